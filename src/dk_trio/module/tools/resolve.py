"""From the id of a setup to a tool: its setup and module in the registry, then the schemas that its server tells."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import dataclass, field
from math import inf
from typing import Final

import trio

from dk_trio.errors import DkTrioError, RegistryModuleNotFoundError, ToolUnavailableError, Violation
from dk_trio.services.communication import Communication, Metadata, for_module
from dk_trio.services.registry import Registry, SetupInfo, bare_setup_id, target_of

from .cache import ToolCache
from .definitions import tool_definitions
from .models import ToolModuleInfo

TIMEOUT: Final = 10.0
"""Seconds for each tool: the default of DIGITALKIN_TOOL_RESOLVE_TIMEOUT."""


@dataclass(slots=True)
class Wanted:
    """A tool that was selected.

    Attributes:
        setup_id: Its setup.
        path: Where it was selected, as `content.tools[1]`.
        triggers: Which functions of it, by protocol; those that are not there are not selected.
    """

    setup_id: str
    path: str
    triggers: dict[str, bool] = field(default_factory=dict)

    def unavailable(self, why: str, *, hint: str) -> ToolUnavailableError:
        """The error that says so, at the selection."""
        return ToolUnavailableError(
            f"The tool with the setup {self.setup_id!r}, selected in {self.path}, cannot be used: {why}.",
            hint=hint,
            violations=[Violation(f"{self.path}.setupId", f"{self.setup_id!r} cannot be used: {why}")],
        )


async def resolve(
    selection: Iterable[Wanted],
    *,
    registry: Registry | None,
    communication: Communication | None,
    timeout: float = TIMEOUT,
    metadata: Metadata | None = None,
    resolved: MutableMapping[str, ToolModuleInfo] | None = None,
) -> ToolCache:
    """The tools of a selection, asked for all at once. One that fails does not disturb the others.

    Args:
        selection: Of a setup that occurs twice, the triggers of both are selected.
        registry: Where setups and modules are found; None finds none.
        communication: Asks the modules for their schemas; None asks none.
        timeout: Seconds for each tool.
        metadata: Sent with each call of a module.
        resolved: Tools that are known, by setup id: not asked for again. What is found is put there, with all of its
            functions.
    """
    resolved = {} if resolved is None else resolved
    merged: dict[str, Wanted] = {}
    for wanted in selection:
        first = merged.setdefault(bare_setup_id(wanted.setup_id), Wanted(wanted.setup_id, wanted.path))
        for protocol, chosen in wanted.triggers.items():
            first.triggers[protocol] = chosen or first.triggers.get(protocol, False)
    known = {bare_setup_id(setup_id): tool for setup_id, tool in resolved.items()}
    failures: dict[str, ToolUnavailableError] = {}

    async def find(key: str, wanted: Wanted) -> None:
        try:
            known[key] = await _Search(wanted, registry, communication, timeout, metadata).run()
        except ToolUnavailableError as error:
            failures[key] = error

    async with trio.open_nursery() as nursery:
        for key, wanted in merged.items():
            if key not in known:
                nursery.start_soon(find, key, wanted)

    cache = ToolCache()
    for key, wanted in merged.items():  # in the order of the selection, whoever was faster
        try:
            if key in failures:
                raise failures[key]
            resolved.setdefault(wanted.setup_id, known[key])
            cache.add(_selected(known[key], wanted))
        except ToolUnavailableError as error:
            cache.failures[wanted.setup_id] = error
    return cache


def _selected(tool: ToolModuleInfo, wanted: Wanted) -> ToolModuleInfo:
    """The tool with those of its functions that were selected.

    Raises:
        ToolUnavailableError: Functions were selected, but the module has none of them.
    """
    chosen = {protocol for protocol, selected in wanted.triggers.items() if selected}
    functions = [function for function in tool.tools if function.name in chosen]
    if chosen and not functions:
        offered = ", ".join(repr(function.name) for function in tool.tools) or "none"
        raise wanted.unavailable(
            f"its module {tool.module_id!r} at {target_of(tool.address, tool.port)} has no trigger "
            f"{' or '.join(map(repr, sorted(chosen)))} (its triggers: {offered})",
            hint="Select its triggers again, and configure the setup anew.",
        )
    return tool.model_copy(update={"tools": functions})


class _Search:
    """The way to one tool, and how far it has come."""

    def __init__(
        self,
        wanted: Wanted,
        registry: Registry | None,
        communication: Communication | None,
        timeout: float,
        metadata: Metadata | None,
    ) -> None:
        self._wanted = wanted
        self._registry = registry
        self._communication = communication
        self._timeout = timeout
        self._metadata = metadata
        self._step = "the registry, asked for the setup,"

    async def run(self) -> ToolModuleInfo:
        """The tool.

        Raises:
            ToolUnavailableError: Says what is missing, and where.
        """
        with trio.move_on_after(self._timeout):
            try:
                return await self._find()
            except ToolUnavailableError:
                raise
            except RegistryModuleNotFoundError as error:
                hint = "Start the module and register it, or select another tool."
                raise self._wanted.unavailable(f"{self._step} does not know it", hint=hint) from error
            except Exception as error:  # boundary: strategies may be anybody's, what fails for one tool is its failure
                known = error if isinstance(error, DkTrioError) else DkTrioError(f"{type(error).__name__}: {error}")
                raise self._wanted.unavailable(
                    f"{self._step} failed: {known.message.rstrip('.')}", hint=known.hint or "Try again when it works."
                ) from error
        raise self._wanted.unavailable(
            f"{self._step} did not answer within {self._timeout:g} s",
            hint="Check what keeps it, or raise DIGITALKIN_TOOL_RESOLVE_TIMEOUT.",
        )

    async def _find(self) -> ToolModuleInfo:
        if self._registry is None or self._communication is None:
            raise self._wanted.unavailable("there is no registry to find it in", hint="Configure the registry service.")
        setup = await self._registry.get_setup(self._wanted.setup_id)
        if setup is None:
            raise self._wanted.unavailable(
                "the registry has no setup of this id", hint="Select another tool, or create the setup."
            )
        self._step = f"the registry, asked for its module {setup.module_id!r},"
        module = await self._registry.discover_by_id(setup.module_id)
        if not module.address:
            raise self._wanted.unavailable(
                f"its module {module.module_id!r} is registered without an address", hint="Start the module's server."
            )
        self._step = f"its module {module.module_id!r} at {target_of(module.address, module.port)}"
        schemas = await self._communication.get_module_schemas(
            module.address,
            module.port,
            llm_format=True,
            timeout=inf,  # the scope around is nearer, and the server is told of it
            metadata=for_module(module.module_id, self._metadata),
        )
        return self._tool(setup, ToolModuleInfo(**module.model_dump(), setup_id=self._wanted.setup_id), schemas)

    def _tool(
        self, setup: SetupInfo, tool: ToolModuleInfo, schemas: Mapping[str, Mapping[str, object]]
    ) -> ToolModuleInfo:
        functions = tool_definitions(schemas.get("input", {}))
        if not functions:
            raise self._wanted.unavailable(
                f"{self._step} has no triggers in its input schema", hint="Select the setup of another module."
            )
        name = setup.name or tool.module_name or tool.module_id
        return tool.model_copy(
            update={"tool_name": name, "cost_config": dict(schemas.get("cost", {})), "tools": functions}
        )
