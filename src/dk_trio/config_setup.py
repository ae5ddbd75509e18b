"""ConfigSetupModule: turn the form that a user has filled in into the content that jobs run with.

The author's `run_config_setup` runs in a task of its own, within a bounded time, and its failure is told at once with
its cause. Neither `initialize` nor `cleanup` is called: there is no job.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import trio
from pydantic import BaseModel

from dk_trio.boundary import apart, authors_code
from dk_trio.errors import (
    ConfigSetupFailedError,
    ConfigSetupTimeoutError,
    DkTrioError,
    InvalidOutputError,
    InvalidSetupError,
    ShutdownError,
)
from dk_trio.lifecycle import FLUSH_GRACE
from dk_trio.module import Environment, ModuleContext, ModuleDefinition, Output, RequestMetadata, SessionIds
from dk_trio.module._find_tools import find_tools, unavailable
from dk_trio.pb.google.protobuf import Struct

_log = logging.getLogger("dk_trio.session")

_RESOLVED = "resolved_tools"


class ConfigSetup:
    """One run of the author's `run_config_setup`.

    Args:
        definition: The module.
        form: The form's content as the module's setup model.
        ids: Of this configuration; the job id is its own.
        request_metadata: The caller's metadata.
        environment: Where the services of the context come from; None: there are none.
        timeout: Seconds.
        patience: Seconds that cancelled code may go on before its caller is told all the same.
        abandon: Tells the caller of an error without waiting; called at most once, while the code still runs.
    """

    def __init__(
        self,
        definition: ModuleDefinition,
        form: Any,
        *,
        ids: SessionIds,
        request_metadata: RequestMetadata,
        environment: Environment | None = None,
        timeout: float,
        patience: float,
        abandon: Callable[[DkTrioError], None],
    ) -> None:
        self._definition = definition
        self._form = form
        self._ids = ids
        self._context = ModuleContext(
            session=ids, send=_no_stream, request_metadata=request_metadata, environment=environment
        )
        self._timeout = timeout
        self._patience = patience
        self._abandon = abandon
        self._scope = trio.CancelScope()
        self._returned: list[object] = []
        self._failure: DkTrioError | None = None

    def __repr__(self) -> str:
        return f"<ConfigSetup of {self._ids.setup_id} of {self._definition.name}>"

    async def run(self) -> Struct:
        """Run it once.

        Returns:
            The content that jobs run with.

        Raises:
            ConfigSetupFailedError: The author's code raised, or returned what is no setup of this module.
            ConfigSetupTimeoutError: It took longer than `timeout`.
            trio.Cancelled: A surrounding scope was cancelled. Whatever the author's code made of that is in the log.
        """
        with self._scope:
            self._scope.deadline = trio.current_time() + self._timeout
            name = f"config setup {self._ids.setup_id}"
            await apart(self._authors_task, name=name, patience=self._patience, goes_on=self._goes_on)
        if self._scope.cancelled_caught:
            raise self._timed_out()
        if self._failure is not None:
            raise self._failure
        if not self._returned:
            raise ConfigSetupFailedError("run_config_setup let trio.Cancelled out, and nobody had cancelled it.")
        return self._content(self._returned[0])

    async def _authors_task(self) -> None:
        try:
            with authors_code(ConfigSetupFailedError, self._ids.job_id):
                try:
                    await self._run()
                finally:
                    await self._close_services()
        except DkTrioError as error:
            self._failure = error

    async def _run(self) -> None:
        resolved = getattr(self._form, _RESOLVED, None)
        if isinstance(resolved, dict):
            resolved.clear()  # a form may hold those of an older version of the tool
        await find_tools(self._context, self._form)
        module = self._definition.cls()
        module.enter(self._context, self._definition.triggers)
        returned = await module.run_config_setup(self._context, self._form)
        # Only now: the author has seen the failures, and may have done without the tool.
        failure = unavailable(self._context, returned if isinstance(returned, BaseModel) else self._form)
        if failure is not None:
            raise failure
        self._returned.append(returned)

    async def _close_services(self) -> None:
        if self._context.uses_services:
            services = self._context.services
            try:
                await _within_grace(services.flush)
            finally:
                await _within_grace(services.close)

    def _goes_on(self, where: list[str]) -> None:
        _log.error(
            "%r: its code goes on %g s after it was cancelled (%s): it catches trio.Cancelled and does not raise it "
            "again, or it shields itself. It keeps its slot until it ends",
            self,
            self._patience,
            "; ".join(where) or "not at an await",
        )
        # Otherwise the server stops, or the caller does not wait any more.
        late = trio.current_time() >= self._scope.deadline + self._patience
        shutdown = f"run_config_setup of {self._definition.name} was interrupted: the server is shutting down."
        self._abandon(self._timed_out() if late else ShutdownError(shutdown))

    def _timed_out(self) -> ConfigSetupTimeoutError:
        return ConfigSetupTimeoutError(
            f"run_config_setup of {self._definition.name} took longer than {self._timeout:g} s and was cancelled.",
            hint="Make it faster, or raise DIGITALKIN_CONFIG_SETUP_TIMEOUT.",
        )

    def _content(self, returned: object) -> Struct:
        """What was returned as it goes on the wire, checked against the format that jobs will parse it with."""
        if isinstance(returned, BaseModel):
            content = returned.model_dump(mode="json")
            found = {key: tool.model_dump(mode="json") for key, tool in self._context.tool_cache.entries.items()}
            if found:  # the author may have returned another object than the form, which has them
                content[_RESOLVED] = {**found, **content.get(_RESOLVED, {})}
        elif isinstance(returned, Mapping):
            content = dict(returned)
        else:
            raise ConfigSetupFailedError(
                f"run_config_setup returned a {type(returned).__name__}: {returned!r:.80}.",
                hint="Return the setup model, or a dict of its fields.",
            )
        content = {key: value for key, value in content.items() if key not in self._definition.form_only}
        try:
            data = bytes(Struct.from_dict(content))
        except (TypeError, ValueError) as error:
            raise ConfigSetupFailedError(f"run_config_setup returned what is not JSON: {error}.") from error
        struct = Struct.parse(data)  # shares nothing with what the author may still hold
        try:
            self._definition.parse_setup(struct.to_dict(), setup_id=self._ids.setup_id)
        except InvalidSetupError as error:
            raise ConfigSetupFailedError(f"run_config_setup returned what is no setup: {error.message}") from error
        return struct


async def _within_grace(step: Callable[[], Awaitable[None]]) -> None:
    with trio.move_on_after(FLUSH_GRACE, shield=True) as scope:
        await step()
    if scope.cancelled_caught:
        raise ConfigSetupFailedError(f"The services did not close within {FLUSH_GRACE:g} s.")


async def _no_stream(_: Output) -> None:
    raise InvalidOutputError(
        "A config setup has no stream to send to.", hint="Return the setup from run_config_setup; send from a handler."
    )
