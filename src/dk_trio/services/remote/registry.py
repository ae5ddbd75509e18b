"""The registry behind a services-provider."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import trio
from grpclib.const import Status

from dk_trio import chance, extensions
from dk_trio.errors import DkTrioError, RegistryModuleNotFoundError, RegistryServiceError, Violation
from dk_trio.pb.agentic_mesh_protocol.module_registry.v1 import DeregisterRequest, DeregisterResponse
from dk_trio.pb.agentic_mesh_protocol.registry.v1 import (
    DiscoverModulesRequest,
    DiscoverModulesResponse,
    GetModuleRequest,
    GetSetupRequest,
    HeartbeatRequest,
    HeartbeatResponse,
    ModuleDescriptor,
    ModuleStatus,
    ModuleType,
    RegisterModuleRequest,
    RegisterModuleResponse,
    SetupDescriptor,
)
from dk_trio.services.registry import (
    MODULE_PREFIX,
    SETUP_PREFIX,
    ModuleInfo,
    ModuleStatusInfo,
    Registry,
    RegistryModuleStatus,
    RegistryModuleType,
    SetupInfo,
    bare_module_id,
    bare_setup_id,
)
from dk_trio.services.strategy import BaseStrategy

from .calls import HEALTH_TIMEOUT, Calls
from .errors import ErrorFamily
from .structs import from_struct

if TYPE_CHECKING:
    from dk_trio.services.provider_clients import ProviderClients

_FAMILY: Final = ErrorFamily(base=RegistryServiceError, by_status={Status.NOT_FOUND: RegistryModuleNotFoundError})

_PAGE: Final = 100  # DiscoverModulesRequest.limit of the contract
_ORGANIZATION: Final = "organizations:"
_PROBE: Final = "dk-trio-health"

# Seconds between two looks whether the registry answers: a provider that comes up is seen at once, as a person sees it.
_LOOK: Final = 0.25

# An answer of these says that nobody answers there.
_ABSENT: Final = frozenset(
    {Status.UNAVAILABLE, Status.DEADLINE_EXCEEDED, Status.UNIMPLEMENTED, Status.CANCELLED, Status.INTERNAL}
)


class GrpcRegistry(BaseStrategy, Registry):
    """The remote `Registry`: see there for what its methods promise. Ids are told with their prefixes.

    A module that was deregistered, or whose server has not been heard of for some time, stays known as READY.

    Args:
        mission_id: The mission of the job; there is none where a server asks.
        setup_id: Its setup.
        setup_version_id: The version of the setup.
        providers: Calls to services-providers.
        client_config: Of another provider than the server's own.
        told: Modules that `register` says more of than the contract has fields for: name, type and documentation.
        instance: Which one of several servers at one address this is; one of its own when empty.
        modules: Of the local strategy; nothing here depends on it.
        setups: Of the local strategy; nothing here depends on it.
    """

    def __init__(
        self,
        mission_id: str,
        setup_id: str,
        setup_version_id: str,
        *,
        providers: ProviderClients,
        client_config: Any = None,
        told: ModuleInfo | None = None,
        instance: str = "",
        modules: Iterable[ModuleInfo | Mapping[str, Any]] = (),
        setups: Iterable[SetupInfo | Mapping[str, Any]] = (),
    ) -> None:
        super().__init__(mission_id, setup_id, setup_version_id)
        self._told = told
        self._served_at: dict[str, bytes] = {}  # what was registered here
        self._instance = instance or chance.new_uuid().hex
        self._calls = Calls(providers, client_config, "agentic_mesh_protocol.registry.v1.RegistryService", _FAMILY)
        older = "agentic_mesh_protocol.module_registry.v1.ModuleRegistryService"
        self._older = Calls(providers, client_config, older, _FAMILY)

    def __repr__(self) -> str:
        return "<GrpcRegistry>"

    async def check_health(self) -> None:
        """Ask for a module: that there is none is an answer."""
        # Not for one of all: then the rules of the contract want a query and an organization, and a provider may too.
        with suppress(RegistryModuleNotFoundError):
            request = GetModuleRequest(MODULE_PREFIX + _PROBE)
            await self._calls.read("GetModule", request, ModuleDescriptor, timeout=HEALTH_TIMEOUT)

    async def discover_by_id(self, module_id: str) -> ModuleInfo:
        """See `Registry.discover_by_id`."""
        key = bare_module_id(module_id)
        if not key:
            raise _not_found(module_id)
        try:
            found = await self._calls.read("GetModule", GetModuleRequest(MODULE_PREFIX + key), ModuleDescriptor)
        except RegistryModuleNotFoundError as error:
            raise _not_found(module_id) from error.__cause__
        if not found.id:  # what was never set: a provider that has no NOT_FOUND
            raise _not_found(module_id)
        return _module(found)

    async def search(
        self,
        name: str | None = None,
        module_type: RegistryModuleType | str | None = None,
        organization_id: str | None = None,
    ) -> Sequence[ModuleInfo]:
        """See `Registry.search`. All pages, so what is registered meanwhile may be in it or not."""
        request = DiscoverModulesRequest(query=name or "", limit=_PAGE)
        if organization_id:
            request.organization_id = _ORGANIZATION + organization_id.removeprefix(_ORGANIZATION)
        if module_type is not None:
            kind = ModuleType.__members__.get(str(module_type).upper())
            if kind is None:
                await trio.lowlevel.checkpoint()
                return []
            if kind is not ModuleType.UNSPECIFIED:
                request.module_types = [kind]
        found: dict[str, ModuleInfo] = {}
        while True:
            reply = await self._calls.read("DiscoverModules", request, DiscoverModulesResponse)
            known = len(found)
            found |= {module.id: _module(module) for module in reply.modules}
            request.offset += len(reply.modules)
            # A short page may be the provider's own measure, and a page that is known already is of one which does not
            # understand offsets: the end is where nothing new comes.
            if len(found) == known:
                # Only the contract's types can be asked for; who has told none is found among all.
                return [info for info in found.values() if module_type in {None, info.module_type}]

    async def get_status(self, module_id: str) -> ModuleStatusInfo:
        """See `Registry.get_status`."""
        info = await self.discover_by_id(module_id)
        return ModuleStatusInfo(module_id=info.module_id, status=info.status)

    async def register(self, module_id: str, address: str, port: int, version: str) -> ModuleInfo | None:
        """See `Registry.register`. The module is ACTIVE for as long as heartbeats come."""
        key = bare_module_id(module_id)
        request = RegisterModuleRequest(module_id=MODULE_PREFIX + key, address=address, port=port, version=version)
        metadata: dict[str, str | bytes] = {extensions.INSTANCE: self._instance}
        if self._told is not None and bare_module_id(self._told.module_id) == key:
            told = {
                "name": self._told.module_name,
                "module_type": self._told.module_type.value,
                "documentation": self._told.documentation,
            }
            metadata[extensions.MODULE] = json.dumps(told).encode()
        self._served_at[key] = f"{address}:{port}".encode(errors="backslashreplace")
        reply = await self._calls.write("RegisterModule", request, RegisterModuleResponse, metadata=metadata)
        return None if reply.module is None else _module(reply.module)

    async def heartbeat(self, module_id: str) -> RegistryModuleStatus:
        """See `Registry.heartbeat`."""
        request = HeartbeatRequest(module_id=MODULE_PREFIX + bare_module_id(module_id))
        try:
            reply = await self._calls.read("Heartbeat", request, HeartbeatResponse, metadata=self._place(module_id))
        except RegistryModuleNotFoundError as error:
            raise _not_found(module_id) from error.__cause__
        return _status(reply.status)

    async def get_setup(self, setup_id: str) -> SetupInfo | None:
        """See `Registry.get_setup`."""
        key = bare_setup_id(setup_id)
        if not key:
            await trio.lowlevel.checkpoint()
            return None
        try:
            found = await self._calls.read("GetSetup", GetSetupRequest(SETUP_PREFIX + key), SetupDescriptor)
        except DkTrioError as error:
            if error.status is not Status.NOT_FOUND:
                raise
            return None
        with self._calls.errors("GetSetup"):
            return _setup(found) if found.id else None

    async def deregister(self, module_id: str) -> bool:
        """See `Registry.deregister`. False, too, for a provider without the older registry, which alone can do it."""
        request = DeregisterRequest(module_id=MODULE_PREFIX + bare_module_id(module_id))
        metadata = self._place(module_id)
        try:
            return (await self._older.write("DeregisterModule", request, DeregisterResponse, metadata=metadata)).success
        except DkTrioError as error:
            if error.status not in {Status.NOT_FOUND, Status.UNIMPLEMENTED}:
                raise
            return False

    def _place(self, module_id: str) -> dict[str, str | bytes]:
        """Metadata that says which server of a module speaks."""
        place = self._served_at.get(bare_module_id(module_id))
        return {} if place is None else {extensions.SERVED_AT: place, extensions.INSTANCE: self._instance}

    async def wait_for_ready(self, timeout: float) -> bool:
        """See `Registry.wait_for_ready`: asks until there is an answer, whatever it is."""
        request = DiscoverModulesRequest(limit=1)
        with trio.move_on_after(timeout):
            while True:
                try:
                    await self._calls.read("DiscoverModules", request, DiscoverModulesResponse, timeout=timeout)
                except DkTrioError as error:
                    if error.status in _ABSENT:
                        await trio.sleep(_LOOK)
                        continue
                return True
        return False


def _not_found(module_id: str) -> RegistryModuleNotFoundError:
    rule = f"no module has the id {module_id!r}"
    return RegistryModuleNotFoundError(
        f"N{rule[1:]}.",
        hint="Serve it with the same services-provider, or correct the id.",
        violations=[Violation("module_id", rule)],
    )


def _module(wire: ModuleDescriptor) -> ModuleInfo:
    return ModuleInfo(
        module_id=wire.id,
        # A type of a later contract is none to us: what is asked for is where the module is.
        module_type=RegistryModuleType.__members__.get(wire.module_type.name or "", RegistryModuleType.UNSPECIFIED),
        address=wire.address,
        port=wire.port,
        version=wire.version,
        module_name=wire.name,
        documentation=wire.documentation,
        status=_status(wire.status),
    )


def _status(wire: ModuleStatus) -> RegistryModuleStatus:
    return RegistryModuleStatus.__members__.get(wire.name or "", RegistryModuleStatus.UNSPECIFIED)


def _setup(wire: SetupDescriptor) -> SetupInfo:
    return SetupInfo(
        setup_id=wire.id,
        module_id=wire.module_id,
        name=wire.name,
        documentation=wire.documentation,
        status=(wire.status.name or "unspecified").lower(),
        visibility=(wire.visibility.name or "unspecified").lower(),
        organization_id=wire.organization_id,
        owner_id=wire.owner_id,
        card_id=wire.card_id,
        setup_version_id=wire.setup_version_id,
        setup_version=wire.setup_version,
        config=from_struct(wire.config),
    )
