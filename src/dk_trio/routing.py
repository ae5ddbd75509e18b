"""ModuleService on the wire: which module a call is for, and then its servicer.

With one module every call is for it, whatever the call says: a registry may know it by another id than it has itself.
With several, what is said first decides:

1. the metadata `dk-trio-module-id`, for clients that know the module;
2. the connection, where code of this process calls a module that it serves;
3. the request's `module_id`, which the calls for schemas have;
4. the setup, which is that of one module: it stands in the module's file, was configured for it, is its default
   (`setups:MODULE`), or is stored for it. So clients that know nothing of several modules find theirs.

What is about a job, and not about a module, needs no choice: the jobs of all modules are in one table.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final

import trio
from grpclib.const import Handler

from dk_trio import rpc
from dk_trio.errors import AmbiguousModuleError, DkTrioError, ModuleNotServedError
from dk_trio.extensions import MODULE_ID
from dk_trio.hosting import HostedModule
from dk_trio.pb.agentic_mesh_protocol.module.v1 import (
    ConfigSetupModuleRequest,
    ModuleServiceBase,
    StartModuleRequest,
)
from dk_trio.refusals import log_refusal
from dk_trio.servicer import fail
from dk_trio.services.registry import bare_module_id
from dk_trio.statuses import status_of

_SERVICE: Final = "/agentic_mesh_protocol.module.v1.ModuleService/"
START_MODULE: Final = f"{_SERVICE}StartModule"
CONFIG_SETUP_MODULE: Final = f"{_SERVICE}ConfigSetupModule"

# Calls about jobs, by path; and the methods of a servicer that answer the calls about a module, by path.
_OF_JOBS: Final = {
    f"{_SERVICE}StopModule": "stop_module",
    f"{_SERVICE}GetModuleStatus": "get_module_status",
    f"{_SERVICE}GetModuleJobs": "get_module_jobs",
}
_OF_MODULES: Final = {
    f"{_SERVICE}GetModuleInput": "get_module_input",
    f"{_SERVICE}GetModuleOutput": "get_module_output",
    f"{_SERVICE}GetModuleSetup": "get_module_setup",
    f"{_SERVICE}GetConfigSetupModule": "get_config_setup_module",
    f"{_SERVICE}GetModuleSecret": "get_module_secret",
    f"{_SERVICE}GetModuleCost": "get_module_cost",
    f"{_SERVICE}GetModuleSelectInput": "get_module_select_input",
}


class ModuleStream(trio.abc.Stream):
    """A connection of this process to one module.

    Args:
        stream: The server's end.
        module: The module.
    """

    def __init__(self, stream: trio.abc.Stream, module: HostedModule) -> None:
        self.transport_stream = stream
        self.module = module

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """See `trio.abc.SendStream`."""
        await self.transport_stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """See `trio.abc.SendStream`."""
        await self.transport_stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """See `trio.abc.ReceiveStream`."""
        return await self.transport_stream.receive_some(max_bytes)

    async def aclose(self) -> None:
        """See `trio.abc.AsyncResource`."""
        await self.transport_stream.aclose()


class Routing(ModuleServiceBase):
    """Serves modules by their ids.

    Args:
        modules: At least one.

    Raises:
        ValueError: Two have the same id.
    """

    def __init__(self, modules: Iterable[HostedModule]) -> None:
        self._modules = {bare_module_id(module.id): module for module in modules}
        first, *others = self._modules.values()
        self._only = None if others else first
        self._any = first

    def __repr__(self) -> str:
        return f"<Routing to {', '.join(self._modules)}>"

    def __mapping__(self) -> dict[str, Handler]:
        """The generated table, with a choice before each method."""
        handlers: dict[str, Callable[[rpc.ServerCall], Awaitable[None]]] = {
            START_MODULE: self._start,
            CONFIG_SETUP_MODULE: self._config_setup,
            **{path: self._about_jobs(method) for path, method in _OF_JOBS.items()},
            **{path: self._about_a_module(method) for path, method in _OF_MODULES.items()},
        }
        generated: Mapping[str, Handler] = super().__mapping__()
        return {
            path: Handler(handlers[path], row.cardinality, row.request_type, row.reply_type)
            for path, row in generated.items()
        }

    def __vital__(self) -> Iterable[str]:
        """What an operator needs most when the server is full of jobs."""
        return _OF_JOBS

    # -- the calls ----------------------------------------------------------------------------------------------------

    async def _start(self, stream: rpc.ServerCall) -> None:
        request: StartModuleRequest | None = await stream.recv_message()
        try:
            module = self._told(stream) or await self._by_setup("" if request is None else request.setup_id)
        except DkTrioError as error:
            if request is not None:
                log_refusal("StartModule", error, request.mission_id, request.setup_id)
            await fail(stream, error, "")
        else:
            await module.edition.servicer.start(request, stream)

    async def _config_setup(self, stream: rpc.ServerCall) -> None:
        request: ConfigSetupModuleRequest | None = await stream.recv_message()
        version = None if request is None else request.setup_version
        try:
            module = self._told(stream) or await self._by_setup("" if version is None else version.setup_id)
        except DkTrioError as error:
            raise status_of(error) from error
        await module.edition.servicer.config_setup(request, stream)

    def _about_jobs(self, method: str) -> Callable[[rpc.ServerCall], Awaitable[None]]:
        async def handle(stream: rpc.ServerCall) -> None:
            request = await stream.recv_message()
            assert request is not None
            await stream.send_message(await getattr(self._any.edition.servicer, method)(request))

        return handle

    def _about_a_module(self, method: str) -> Callable[[rpc.ServerCall], Awaitable[None]]:
        async def handle(stream: rpc.ServerCall) -> None:
            request: Any = await stream.recv_message()
            assert request is not None
            try:
                module = self._told(stream) or self._by_id(request.module_id)
            except DkTrioError as error:
                raise status_of(error) from error
            await stream.send_message(await getattr(module.edition.servicer, method)(request))

        return handle

    # -- the choice ---------------------------------------------------------------------------------------------------

    def _told(self, stream: rpc.ServerCall) -> HostedModule | None:
        """What the caller says beside its request; None when it says nothing and there are several.

        Raises:
            ModuleNotServedError: It names none of them.
        """
        if self._only is not None:
            return self._only
        said = stream.metadata.get(MODULE_ID)
        if said is not None:
            return self._named(str(said))
        connection = stream.transport.stream
        return connection.module if isinstance(connection, ModuleStream) else None

    def _by_id(self, module_id: str) -> HostedModule:
        if not module_id:
            raise AmbiguousModuleError(f"The request names no module, and {self._served()}.", hint=self._hint())
        return self._named(module_id)

    def _named(self, module_id: str) -> HostedModule:
        module = self._modules.get(bare_module_id(module_id))
        if module is None:
            raise ModuleNotServedError(
                f"Module {module_id!r} is not served here: {self._served()}.",
                hint="Send the id of one of them, or ask the registry where the other is.",
            )
        return module

    async def _by_setup(self, setup_id: str) -> HostedModule:
        """The module whose setup this is.

        Raises:
            AmbiguousModuleError: It is nobody's, or that of several.
            ModuleNotServedError: It is stored for a module that is not here.
            SetupUnavailableError: It cannot be told now.
        """
        owners = [module for module in self._modules.values() if module.knows(setup_id)]
        if len(owners) > 1:
            raise AmbiguousModuleError(
                f"Setup {setup_id!r} is one of {' and of '.join(module.id for module in owners)}.", hint=self._hint()
            )
        if owners:
            return owners[0]
        for module in self._modules.values():
            owner = await module.owner(setup_id)  # nearly always the same service, so the first that knows it decides
            if owner:
                return self._owning(owner, setup_id)
        raise AmbiguousModuleError(
            f"Setup {setup_id!r} is known for no module, and {self._served()}.", hint=self._hint()
        )

    def _owning(self, module_id: str, setup_id: str) -> HostedModule:
        module = self._modules.get(bare_module_id(module_id))
        if module is None:
            raise ModuleNotServedError(
                f"Setup {setup_id!r} is one of the module {module_id!r}, which is not served here: {self._served()}.",
                hint="Ask the registry where that module is.",
            )
        return module

    def _served(self) -> str:
        return f"served here are {', '.join(module.id for module in self._modules.values())}"

    def _hint(self) -> str:
        defaults = (key for key, module in self._modules.items() if module.knows(key))  # in remote mode there is none
        example = next((f", such as setups:{key}" for key in defaults), "")
        return (
            f"Send the module's id as metadata {MODULE_ID} (`dk-trio call --module`), or a setup of one of them"
            f"{example}."
        )
