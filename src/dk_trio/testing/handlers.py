"""One job of a module, or one call of a handler, as a function: what it has sent, and how it ended.

result = await run_job(MyModule, {"text": "hi"}, protocol="message", setup={"loud": True})
assert result.ok, result

outputs = await run_handler(OnMessage, {"text": "hi"})  # without a server, so an exception is the handler's own
"""

from __future__ import annotations

import types
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import trio
from pydantic import BaseModel

from dk_trio import chance
from dk_trio.client import DEFAULT_MISSION_ID, DEFAULT_SETUP_ID, DEFAULT_SETUP_VERSION_ID, wrap_input
from dk_trio.errors import InvalidOutputError, ModuleDefinitionError
from dk_trio.hosting import ModuleClass
from dk_trio.module import (
    Environment,
    ModuleContext,
    ModuleDefinition,
    Output,
    RequestMetadata,
    SessionIds,
    SetupModel,
    TriggerHandler,
    TrioModule,
)
from dk_trio.module._formats import is_model, type_arguments
from dk_trio.module._output import output_dict
from dk_trio.pb.google.protobuf import Struct
from dk_trio.services.channels import ChannelCache
from dk_trio.services.config import ServicesConfig, SharedServices
from dk_trio.services.local.platform import LocalPlatform
from dk_trio.settings import LifecycleSettings, ServicesSettings
from dk_trio.signals import LocalSignals

from .clock import needs_trio
from .jobs import JobResult
from .memory import hints_shown, serve_in_memory

HandlerClass = type[TriggerHandler[Any, Any, Any]]
Values = Mapping[str, Any] | BaseModel


async def run_job(
    module: ModuleClass,
    data: Mapping[str, Any],
    *,
    protocol: str | None = None,
    setup: Mapping[str, Any] | None = None,
    mission_id: str = DEFAULT_MISSION_ID,
    timeout: float | None = None,
    metadata: Mapping[str, str | bytes] | None = None,
    **server_arguments: Any,
) -> JobResult:
    """Run one job on a server of its own, in memory, with all that it goes through in production.

    Args:
        module: The module class.
        data: The whole input with its `root`, or only the root.
        protocol: Put into the root when it has none.
        setup: Content of the job's setup; the module's default setup when None.
        mission_id: Id of the mission that the job is part of.
        timeout: Seconds for the job, as a caller's deadline.
        metadata: Sent with the request.
        server_arguments: More arguments of `serve_in_memory`, such as `settings` or `provider`.

    Returns:
        What it has sent and how it has ended. A failure of the job is no exception here.

    Raises:
        ModuleDefinitionError: The module class is not complete; says what is missing, and where.
    """
    if setup is not None:
        server_arguments["setups"] = {DEFAULT_SETUP_ID: setup}
    async with serve_in_memory(module, **server_arguments) as served:
        return await served.run_job(data, protocol=protocol, mission_id=mission_id, timeout=timeout, metadata=metadata)


class MemoryContext(ModuleContext):
    """A context without a server: what is sent goes to a list. Made by `context_in_memory`.

    Attributes:
        outputs: What was sent, as JSON values: the root of each output.
    """

    __slots__ = ("outputs",)

    def __init__(self, **arguments: Any) -> None:
        super().__init__(send=self._send, **arguments)
        self.outputs: list[dict[str, Any]] = []

    async def _send(self, output: Output) -> None:
        whole = output_dict(output)
        try:
            sent: dict[str, Any] = Struct.parse(bytes(Struct.from_dict(whole))).to_dict()
        except (TypeError, ValueError) as error:
            raise InvalidOutputError(f"An output is not JSON: {error}.") from error
        self.outputs.append(sent["root"])


@asynccontextmanager
async def context_in_memory(
    module: ModuleClass | None = None,
    *,
    mission_id: str = DEFAULT_MISSION_ID,
    setup_id: str = DEFAULT_SETUP_ID,
    metadata: Mapping[str, str | bytes] | None = None,
) -> AsyncIterator[MemoryContext]:
    """A context for handlers and other code of a module, with local services in memory, for the length of the block.

    At its end the services write what waits to be written, and close.

    Args:
        module: Says which services there are, and their parameters. Without it, those that need none.
        mission_id: Id of the mission.
        setup_id: Id of the setup.
        metadata: The caller's.

    Raises:
        RuntimeError: Trio does not run here.
    """
    needs_trio("a context for handlers")
    settings, signals, channels = ServicesSettings(), LocalSignals(), ChannelCache()
    config = ServicesConfig(owner="a handler without a module")
    if module is not None:
        config = ServicesConfig(
            module.services_config_strategies, module.services_config_params, owner=module.name or module.__name__
        )
    async with LocalPlatform(None).opened() as platform, channels.opened():
        shared = SharedServices(platform=platform, channels=channels)
        context = MemoryContext(
            session=SessionIds(
                job_id=str(chance.new_uuid()),
                mission_id=mission_id,
                setup_id=setup_id,
                setup_version_id=DEFAULT_SETUP_VERSION_ID,
            ),
            request_metadata=RequestMetadata((metadata or {}).items()),
            environment=Environment(settings=settings, config=config, shared=shared, signals=signals),
        )
        try:
            yield context
            await context.services.flush()
        finally:
            with trio.move_on_after(LifecycleSettings().cleanup_grace, shield=True):
                await context.services.close()


async def run_handler(
    handler: HandlerClass,
    data: Values,
    *,
    setup: Values | None = None,
    module: ModuleClass | None = None,
    context: MemoryContext | None = None,
) -> list[dict[str, Any]]:
    """Call a handler with one input. No server, no job: `initialize` and `cleanup` of a module do not run.

    Args:
        handler: The class; an instance is made for the call.
        data: The input's root: an instance, or its values; the protocol may be left out.
        setup: An instance of the setup format, or its values; that of no values when None.
        module: The module that it belongs to, for its formats and services; by default what the handler's type
            arguments say, and services that need no parameters.
        context: What it gets, for tests that prepare it or look at it afterwards; one of its own when None.

    Returns:
        What it has sent or yielded, as JSON values: the root of each output.

    Raises:
        ModuleDefinitionError: The handler is not complete.
        InvalidInputError: The input does not fit.
        InvalidSetupError: The setup does not fit.
        InvalidOutputError: It has sent what is not JSON, or returned a value.
        Exception: Whatever it raises, as it is.
    """
    with hints_shown():
        root, values = _parsed(handler, data, setup, module)
        if context is not None:
            return await _call(handler, root, values, context)
        async with context_in_memory(module) as own:
            return await _call(handler, root, values, own)


def _parsed(handler: HandlerClass, data: Values, setup: Values | None, module: ModuleClass | None) -> tuple[Any, Any]:
    """The root of the input, and the setup, as a server would give them to the handler."""
    definition = ModuleDefinition.of(_module_of(handler) if module is None else module)
    if not any(handler in handlers for handlers in definition.triggers.values()):
        raise ModuleDefinitionError(
            f"{handler.__qualname__} is no handler of {definition.name}.",
            hint=f"Decorate it with @{definition.cls.__name__}.register, or leave `module` out.",
        )
    if not isinstance(setup, BaseModel):
        setup = definition.parse_setup(setup or {}, setup_id=DEFAULT_SETUP_ID)
    if isinstance(data, BaseModel):
        return getattr(data, "root", data), setup
    return definition.parse_input(wrap_input(data, handler.protocol)).root, setup


async def _call(handler: HandlerClass, root: Any, setup: Any, context: MemoryContext) -> list[dict[str, Any]]:
    before = len(context.outputs)
    caller: Any = TrioModule()  # calls a handler of either kind
    caller.enter(context, {root.protocol: (handler,)})
    await caller.run(types.SimpleNamespace(root=root), setup)
    return context.outputs[before:]


def _module_of(handler: HandlerClass) -> ModuleClass:
    """A module with this handler and nothing else."""
    _, setup, *_ = (*type_arguments(handler, TriggerHandler), None, None)

    def body(namespace: dict[str, Any]) -> None:
        namespace["setup_format"] = setup if is_model(setup) else SetupModel

    module: ModuleClass = types.new_class(f"ModuleOf{handler.__name__}", (TrioModule,), exec_body=body)
    module.register(handler)
    return module
