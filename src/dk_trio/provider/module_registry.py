"""ModuleRegistryService: the older registry, over the registrations of the newer one.

Its types are words of its own: `kin` is an archetype, `tool` a tool. RUNNING and IDLE are modules that are served now,
as they told last; ENDED is READY there. Unlike the newer one it can deregister.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from dk_trio.pb.agentic_mesh_protocol.module_registry.v1 import (
    DeregisterRequest,
    DeregisterResponse,
    DiscoverInfoRequest,
    DiscoverInfoResponse,
    DiscoverSearchRequest,
    DiscoverSearchResponse,
    GetAllModulesStatusRequest,
    ListModulesStatusRequest,
    ListModulesStatusResponse,
    Metadata,
    ModuleRegistryServiceBase,
    ModuleStatus,
    ModuleStatusRequest,
    ModuleStatusResponse,
    RegisterRequest,
    RegisterResponse,
    Tag,
    UpdateStatusRequest,
    UpdateStatusResponse,
)
from dk_trio.services.registry import bare_module_id
from dk_trio.services.stores.registrations import Facts, Registered, Wanted

from ._base import refused, text
from ._modules import ModulesServicer, checked, module_not_found, page

if TYPE_CHECKING:
    from dk_trio.services.stores.registrations import Lease
    from dk_trio.services.stores.work import Work

    from ._siblings import Heir

TYPES: Final = MappingProxyType(
    {"kin": "archetype", "tool": "tool", "trigger": "unspecified", "view": "unspecified", "": ""}
)
"""Types of the newer registry."""

_KINDS: Final = MappingProxyType({"archetype": "kin", "tool": "tool"})

PAGE_MAX: Final = 1000
"""Entries of one page. The contract has no number here; this one is that of other lists."""

TAGS_MAX: Final = 100


class ModuleRegistryServicer(ModulesServicer, ModuleRegistryServiceBase):
    """See the module's docstring."""

    # --- writing -----------------------------------------------------------------------------------------------------

    async def register_module(self, message: RegisterRequest) -> RegisterResponse:
        """The module is served at this address from now on."""
        if message.module_type not in TYPES:
            known = ", ".join(filter(None, TYPES))
            raise refused("module_type", f"must be one of {known}, not {message.module_type!r}")
        told = message.metadata or Metadata()
        if len(told.tags) > TAGS_MAX:
            raise refused("metadata.tags", f"has {len(told.tags)} tags, at most {TAGS_MAX} are allowed")
        facts = checked(
            Facts(
                message.module_id,
                message.address,
                message.port,
                message.version,
                module_type=TYPES[message.module_type],
                kind=message.module_type,
                name=text(told.name, "metadata.name", empty=True),
                documentation=text(told.description or "", "metadata.description", empty=True),
                tags=tuple(text(it.tag, f"metadata.tags[{index}].tag") for index, it in enumerate(told.tags)),
            )
        )
        await self._lease()
        now = self._now()

        def work() -> Work[RegisterResponse]:
            yield from self._stores.registrations.register_work(facts, now=now)
            return RegisterResponse(success=True)

        reply = await self._write(work)
        self._stores.siblings.registered(bare_module_id(facts.module_id))
        return reply

    async def deregister_module(self, message: DeregisterRequest) -> DeregisterResponse:
        """The module is not served any more, or only at another address, to which it is handed over. It stays known.

        Raises:
            RegistryModuleNotFoundError: It never was registered.
        """
        module_id, at = text(message.module_id, "module_id"), self._served_at
        await self._lease()
        now = self._now()

        if self._stores.siblings.left(bare_module_id(module_id), at, self._instance):
            return DeregisterResponse(success=True)  # others serve it there
        heir: Heir | None = None

        def work() -> Work[DeregisterResponse]:
            nonlocal heir
            heir = self._stores.siblings.heir(bare_module_id(module_id), at, now)
            # From nowhere nothing is moved: who does not say where it served the module means it wherever it is.
            if heir is None or not (yield from self._move_work(module_id, at, heir, now=now)):
                heir = None
                if not (yield from self._stores.registrations.withdraw_work(module_id, now=now, at=at)):
                    raise module_not_found(module_id)
            return DeregisterResponse(success=True)

        reply = await self._write(work)
        if heir is not None:
            self._moved(module_id, at, heir, "was deregistered")
        return reply

    async def update_module_status(self, message: UpdateStatusRequest) -> UpdateStatusResponse:
        """The module says how it is, which is a heartbeat; ENDED deregisters it.

        Raises:
            RegistryModuleNotFoundError: It never was registered.
        """
        module_id = text(message.module_id, "module_id")
        if message.status not in {ModuleStatus.RUNNING, ModuleStatus.IDLE, ModuleStatus.ENDED}:
            raise refused("status", f"must be RUNNING, IDLE or ENDED, not {int(message.status)}")
        served, idle = message.status is not ModuleStatus.ENDED, message.status is ModuleStatus.IDLE
        await self._lease()
        now = self._now()

        def work() -> Work[UpdateStatusResponse]:
            if not (yield from self._stores.registrations.tell_work(module_id, served=served, idle=idle, now=now)):
                raise module_not_found(module_id)
            return UpdateStatusResponse(success=True)

        return await self._write(work)

    # --- reading -----------------------------------------------------------------------------------------------------

    async def discover_info_module(self, message: DiscoverInfoRequest) -> DiscoverInfoResponse:
        """One module.

        Raises:
            RegistryModuleNotFoundError: It never was registered.
        """
        return _info(await self._module(message.module_id))

    async def discover_search_module(self, message: DiscoverSearchRequest) -> DiscoverSearchResponse:
        """The first `PAGE_MAX` modules that fit; those that are served now first."""
        kind = text(message.module_type or "", "module_type", empty=True)
        both = kind in _KINDS.values()  # the newer registry has this type, so its modules count as well
        wanted = Wanted(
            name=text(message.name or "", "name", empty=True),
            documentation=text(message.description or "", "description", empty=True),
            types=[TYPES[kind]] if both else [],
            kind="" if both else kind,
        )
        tags = {it.tag for it in message.tags if it.tag}
        lease = await self._lease()
        found: list[Registered] = []
        offset = 0
        while len(found) < PAGE_MAX:
            modules = await self._page(wanted, lease, offset)
            found += [module for module in modules if tags <= set(module.tags)]
            offset += len(modules)
            if len(modules) < PAGE_MAX:
                break
        return DiscoverSearchResponse(modules=[_info(module) for module in found[:PAGE_MAX]])

    async def get_module_status(self, message: ModuleStatusRequest) -> ModuleStatusResponse:
        """How a module is.

        Raises:
            RegistryModuleNotFoundError: It never was registered.
        """
        lease = await self._lease()
        return _status(await self._module(message.module_id), lease)

    async def list_module_status(self, message: ListModulesStatusRequest) -> ListModulesStatusResponse:
        """How modules are; those that are served now first."""
        limit, offset = page(message.list_size or 0, message.offset or 0, most=PAGE_MAX, name="list_size")
        lease = await self._lease()
        found = await self._page(Wanted(), lease, offset, limit)
        return ListModulesStatusResponse(
            list_size=len(found), modules_statuses=[_status(module, lease) for module in found]
        )

    async def get_all_module_status(self, message: GetAllModulesStatusRequest) -> AsyncIterator[ModuleStatusResponse]:
        """How all modules are, those that are served now first."""
        lease = await self._lease()
        told: set[str] = set()  # pages move under who reads them slowly
        offset = 0
        while modules := await self._page(Wanted(), lease, offset):
            offset += len(modules)
            for module in modules:
                if module.module_id not in told:
                    told.add(module.module_id)
                    yield _status(module, lease)

    async def _page(self, wanted: Wanted, lease: Lease, offset: int, limit: int = PAGE_MAX) -> list[Registered]:
        work = partial(self._stores.registrations.page_work, wanted, lease, limit=limit, offset=offset)
        return await self._stores.database.read(work, thread=True)


def _info(module: Registered) -> DiscoverInfoResponse:
    return DiscoverInfoResponse(
        module_id=module.module_id,
        module_type=module.kind or _KINDS.get(module.module_type, ""),
        address=module.address,
        port=module.port,
        version=module.version,
        metadata=Metadata(
            name=module.name or bare_module_id(module.module_id),
            tags=[Tag(tag=tag) for tag in module.tags],
            description=module.documentation or None,
        ),
    )


def _status(module: Registered, lease: Lease) -> ModuleStatusResponse:
    status = ModuleStatus.ENDED
    if module.alive(lease):
        status = ModuleStatus.IDLE if module.idle else ModuleStatus.RUNNING
    return ModuleStatusResponse(module_id=module.module_id, status=status)
