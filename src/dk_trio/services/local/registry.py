"""The registry of one process: the modules that it serves, those that were registered here, and those it was told of.

`LocalRegistry` belongs to the process (`platform.registry`) and is what its jobs share. `DefaultRegistry` is one job's
view of it, with the modules and setups of other processes that the operator has listed:

    services_config_params = {
        "registry": {
            "modules": [{"module_id": "modules:search", "address": "127.0.0.1", "port": 50056}],
            "setups": [{"setup_id": "setups:web", "module_id": "modules:search", "name": "Web search"}],
        }
    }
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from pydantic import BaseModel, ValidationError

from dk_trio.errors import RegistryModuleNotFoundError, RegistryServiceError, StorageServiceError, Violation
from dk_trio.services.channels import Connect
from dk_trio.services.field_path import field_path
from dk_trio.services.registry import (
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

if TYPE_CHECKING:
    from dk_trio.services.stores.setups import SetupTable

# Callers choose the ids of setups that they configure. Nobody configures so many by hand.
SETUPS_MAX: Final = 10_000

# Jobs choose the ids of modules that they register, and searches look through all of them.
REGISTERED_MAX: Final = 1_000

_NO_HOST_NAME = re.compile(r"[^A-Za-z0-9.-]+")

ModelT = TypeVar("ModelT", bound=BaseModel)


@dataclass(slots=True, eq=False)
class _Served:
    info: ModuleInfo
    connect: Connect | None


class LocalRegistry:
    """What this process knows of modules and setups. Everything is in memory and synchronous."""

    def __init__(self) -> None:
        self._served: list[_Served] = []  # a few at most; the last one of an id is its current one
        self._registered: OrderedDict[str, ModuleInfo] = OrderedDict()  # oldest first
        self._setups: OrderedDict[str, SetupInfo] = OrderedDict()  # oldest first

    def __repr__(self) -> str:
        return f"<LocalRegistry {len(self._served)} served, {len(self._registered)} registered>"

    @contextmanager
    def serving(
        self, info: ModuleInfo, *, connect: Connect | None = None, setups: Iterable[SetupInfo] = ()
    ) -> Iterator[ModuleInfo]:
        """A module is served by this process for the length of the block: found as ACTIVE, and first of its id.

        Args:
            info: The module. Without an address it gets one that only names it, which needs `connect`.
            connect: Opens a byte stream to its server; calls from this process take it instead of the address.
            setups: Setups of the module, found for the length of the process.

        Returns:
            The module as it is found.
        """
        update: dict[str, Any] = {"status": RegistryModuleStatus.ACTIVE}
        if not info.address:
            update["address"] = f"{_NO_HOST_NAME.sub('-', bare_module_id(info.module_id)) or 'module'}.memory"
        served = _Served(info.model_copy(update=update), connect)
        self._served.append(served)
        for setup in setups:
            self.put_setup(setup)
        try:
            yield served.info
        finally:
            self._served.remove(served)

    def renew(self, info: ModuleInfo) -> None:
        """A module that is served here has changed in all but where it is served."""
        for served in self._served:
            if bare_module_id(served.info.module_id) == bare_module_id(info.module_id):
                kept = {name: getattr(served.info, name) for name in ("address", "port", "status")}
                served.info = info.model_copy(update=kept)

    def connect_for(self, address: str, port: int) -> Connect | None:
        """The way to a module that this process serves at an address; None for any other address."""
        for served in reversed(self._served):
            if (served.info.address, served.info.port) == (address, port):
                return served.connect
        return None

    def served(self, module_id: str) -> ModuleInfo | None:
        """The module of this id that this process serves."""
        key = bare_module_id(module_id)
        return next((it.info for it in reversed(self._served) if bare_module_id(it.info.module_id) == key), None)

    def registered(self, module_id: str) -> ModuleInfo | None:
        """The module of this id that was registered here."""
        return self._registered.get(bare_module_id(module_id))

    def modules(self) -> dict[str, ModuleInfo]:
        """All modules by bare id."""
        served = {bare_module_id(it.info.module_id): it.info for it in self._served}
        return {**self._registered, **served}

    def register(self, info: ModuleInfo) -> None:
        """`info` is the registered module of its id now. Of more than `REGISTERED_MAX` the oldest is forgotten."""
        key = bare_module_id(info.module_id)
        self._registered[key] = info
        self._registered.move_to_end(key)
        if len(self._registered) > REGISTERED_MAX:
            self._registered.popitem(last=False)

    def deregister(self, module_id: str) -> bool:
        """Forget a registered module; whether there was one. One that is served stays until its server ends."""
        return self._registered.pop(bare_module_id(module_id), None) is not None

    def put_setup(self, setup: SetupInfo) -> None:
        """From now on `setup` is the setup of its id. Of more than `SETUPS_MAX` the oldest is forgotten."""
        key = bare_setup_id(setup.setup_id)
        self._setups[key] = setup
        self._setups.move_to_end(key)
        if len(self._setups) > SETUPS_MAX:
            self._setups.popitem(last=False)

    def setup(self, setup_id: str) -> SetupInfo | None:
        """The setup of this id."""
        return self._setups.get(bare_setup_id(setup_id))


class HasRegistry(Protocol):
    """What is needed of the platform that the jobs of a process share."""

    @property
    def registry(self) -> LocalRegistry:
        """Modules and setups of the process."""
        ...

    @property
    def setups(self) -> SetupTable:
        """Setups that are stored."""
        ...


class DefaultRegistry(BaseStrategy, Registry):
    """The registry without another process: see `Registry`, and this module's docstring.

    A module that this process serves goes before one of `modules`, and that before one that was registered. Setups of
    `setups` go before those of the process, and those before stored ones. Ids with and without prefix are the same.
    Modules belong to no organization here, so `organization_id` does not restrict a search.

    Args:
        mission_id: The mission of the job.
        setup_id: Its setup.
        setup_version_id: The version of the setup.
        platform: What the jobs of the process share.
        modules: Modules of other processes, as models or dicts.
        setups: Setups of any module, as models or dicts.

    Raises:
        RegistryServiceError: One of `modules` or `setups` is not one.
    """

    def __init__(
        self,
        mission_id: str,
        setup_id: str,
        setup_version_id: str,
        *,
        platform: HasRegistry,
        modules: Iterable[ModuleInfo | Mapping[str, Any]] = (),
        setups: Iterable[SetupInfo | Mapping[str, Any]] = (),
    ) -> None:
        super().__init__(mission_id, setup_id, setup_version_id)
        self._platform = platform
        self._process = platform.registry
        self._modules = {bare_module_id(it.module_id): it for it in _models(ModuleInfo, "modules", modules)}
        self._setups = {bare_setup_id(it.setup_id): it for it in _models(SetupInfo, "setups", setups)}

    async def discover_by_id(self, module_id: str) -> ModuleInfo:
        """See `Registry.discover_by_id`."""
        info = (
            self._process.served(module_id)
            or self._modules.get(bare_module_id(module_id))
            or self._process.registered(module_id)
        )
        if info is None:
            known = ", ".join(sorted(self._all())[:10]) or "none"
            raise RegistryModuleNotFoundError(
                f"No module has the id {module_id!r} (known here: {known}).",
                hint="Serve it in this process, or list it in services_config_params['registry']['modules'].",
                violations=[Violation("module_id", f"no module has the id {module_id!r}")],
            )
        return info

    async def search(
        self,
        name: str | None = None,
        module_type: RegistryModuleType | str | None = None,
        organization_id: str | None = None,
    ) -> Sequence[ModuleInfo]:
        """See `Registry.search`."""
        wanted = (name or "").lower()
        return [
            info
            for info in self._all().values()
            if wanted in f"{info.module_name}\n{info.module_id}".lower() and module_type in {None, info.module_type}
        ]

    async def get_status(self, module_id: str) -> ModuleStatusInfo:
        """See `Registry.get_status`."""
        info = await self.discover_by_id(module_id)
        return ModuleStatusInfo(module_id=info.module_id, status=info.status)

    async def register(self, module_id: str, address: str, port: int, version: str) -> ModuleInfo | None:
        """See `Registry.register`. The module is ACTIVE, until the process ends or it is deregistered."""
        known = self._all().get(bare_module_id(module_id)) or ModuleInfo(module_id=module_id)
        changed = {"address": address, "port": port, "version": version, "status": RegistryModuleStatus.ACTIVE}
        info = known.model_copy(update=changed)
        self._process.register(info)
        return info

    async def heartbeat(self, module_id: str) -> RegistryModuleStatus:
        """See `Registry.heartbeat`. Nothing expires here."""
        return (await self.discover_by_id(module_id)).status

    async def get_setup(self, setup_id: str) -> SetupInfo | None:
        """See `Registry.get_setup`."""
        known = self._setups.get(bare_setup_id(setup_id)) or self._process.setup(setup_id)
        return known or await self._stored(setup_id)

    async def _stored(self, setup_id: str) -> SetupInfo | None:
        try:
            setup = await self._platform.setups.get(setup_id)
        except StorageServiceError as error:
            raise RegistryServiceError(error.message, hint=error.hint) from error
        if setup is None:
            return None
        version = setup.current_setup_version
        return SetupInfo(
            setup_id=setup.id,
            module_id=setup.module_id,
            name=setup.name,
            status=setup.status,
            organization_id=setup.organisation_id,
            owner_id=setup.owner_id,
            setup_version_id="" if version is None else version.id,
            setup_version="" if version is None else version.version,
            config={} if version is None else version.content,
        )

    async def deregister(self, module_id: str) -> bool:
        """See `Registry.deregister`."""
        return self._process.deregister(module_id)

    async def wait_for_ready(self, timeout: float) -> bool:
        """See `Registry.wait_for_ready`: there is nothing to wait for."""
        return True

    def _all(self) -> dict[str, ModuleInfo]:
        everything = {**self._process.modules(), **self._modules}
        return {key: self._process.served(key) or info for key, info in everything.items()}


def _models(model: type[ModelT], name: str, entries: Iterable[ModelT | Mapping[str, Any]]) -> Iterator[ModelT]:
    for index, entry in enumerate(entries):
        try:
            yield model.model_validate(entry)
        except ValidationError as error:
            where = f"{name}[{index}]"
            faults = [(field_path(*fault["loc"]), fault["msg"]) for fault in error.errors()]
            raise RegistryServiceError(
                f"services_config_params['registry']: {where} is no {model.__name__}: "
                + "; ".join(f"{field or 'it'}: {text[:1].lower()}{text[1:]}" for field, text in faults)
                + ".",
                hint="It needs the fields of the model, see dk_trio.services.registry.",
                violations=[Violation(field_path(where, field), text) for field, text in faults],
            ) from error
