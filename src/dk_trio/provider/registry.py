"""RegistryService: which modules are served, and where; which setups there are.

A module is ACTIVE for as long as its lease lasts, which RegisterModule and Heartbeat renew, and READY afterwards, or
once it was deregistered (`module_registry`): known, with the address that it had, and not served now as far as is
known. ARCHIVED is none. A heartbeat of a module that is not registered, or was deregistered, is NOT_FOUND: whoever
still serves it registers it again. So of two servers of one module, the one that stays is found when the other leaves;
at once if the provider knows of it (`_siblings`).

What is registered here belongs to no organization and can be seen by everybody who can ask.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from dk_trio.errors import SetupNotFoundError, Violation
from dk_trio.extensions import MODULE
from dk_trio.pb.agentic_mesh_protocol.registry.v1 import (
    DiscoverModulesRequest,
    DiscoverModulesResponse,
    DiscoverSetupsRequest,
    DiscoverSetupsResponse,
    GetModuleRequest,
    GetSetupRequest,
    HeartbeatRequest,
    HeartbeatResponse,
    ModuleDescriptor,
    ModuleStatus,
    ModuleType,
    RegisterModuleRequest,
    RegisterModuleResponse,
    RegistryServiceBase,
    SetupDescriptor,
    SetupStatus,
    Visibility,
)
from dk_trio.pb.google.protobuf import Struct
from dk_trio.services import setup as setups
from dk_trio.services.record_models import date_of
from dk_trio.services.registry import MODULE_PREFIX, RegistryModuleType, bare_module_id
from dk_trio.services.stores.registrations import Facts, Lease, Registered, Wanted
from dk_trio.services.stores.setup_search import WantedSetups, setup_ids_work

from ._base import refused, text
from ._modules import ModulesServicer, checked, module_not_found, page

if TYPE_CHECKING:
    from dk_trio.services.setup import SetupData
    from dk_trio.services.stores.work import Work

PAGE_MAX: Final = 100
"""Entries of one page, as the contract has it."""

# Of what is kept here, see the module's docstring.
_VISIBILITY: Final = Visibility.PUBLIC

_STATUSES: Final[Mapping[str, SetupStatus]] = MappingProxyType(
    {
        status.value: SetupStatus[
            "WAITING_FOR_APPROVAL" if status is setups.SetupStatus.VALIDATING else status.value.upper()
        ]
        for status in setups.SetupStatus
    }
)


class RegistryServicer(ModulesServicer, RegistryServiceBase):
    """See the module's docstring."""

    async def run(self) -> None:
        """See who was alive before, at once: the later it is looked, the longer the dead live. Then hand over."""
        await self._lease()
        while True:
            await self._hand_over(await self._stores.siblings.next_due())

    async def _hand_over(self, module_id: str) -> None:
        """The module is served elsewhere, too: there it is found now if nobody is left where it is registered."""
        registrations, siblings = self._stores.registrations, self._stores.siblings
        lease, now = await self._lease(), self._now()
        known = await self._stores.database.read(partial(registrations.get_work, module_id))
        heir = None if known is None or not known.served else siblings.heir(module_id, known.place, now)
        if known is None or heir is None:
            return
        lost = siblings.cut_off(module_id, known.place)
        if known.alive(lease) and not lost:
            siblings.watch(module_id, registrations.runs_out(known))
            return

        def work() -> Work[bool]:
            if siblings.heir(module_id, known.place, now) != heir:  # it has left, or another one is better now
                return False
            return (yield from self._move_work(module_id, known.place, heir, now=now, lease=None if lost else lease))

        if await self._stores.database.write(work):
            self._moved(known.module_id, known.place, heir, "was lost" if lost else "was not heard of any more")
        else:
            siblings.watch(module_id, now)

    # --- modules -----------------------------------------------------------------------------------------------------

    async def register_module(self, message: RegisterModuleRequest) -> RegisterModuleResponse:
        """The module is served at this address from now on; of two the last one counts."""
        name, module_type, documentation = _told(self._call.metadata, MODULE)
        facts = checked(
            Facts(
                message.module_id,
                message.address,
                message.port,
                message.version,
                module_type=module_type,
                name=name,
                documentation=documentation,
            )
        )
        lease, now = await self._lease(), self._now()

        def work() -> Work[RegisterModuleResponse]:
            registered = yield from self._stores.registrations.register_work(facts, now=now)
            return RegisterModuleResponse(module=_descriptor(registered, lease))

        reply = await self._write(work)
        self._stores.siblings.registered(bare_module_id(facts.module_id))
        self._heard(facts.module_id, f"{facts.address}:{facts.port}")
        return reply

    async def heartbeat(self, message: HeartbeatRequest) -> HeartbeatResponse:
        """The module is still served.

        Raises:
            RegistryModuleNotFoundError: It has to be registered, or registered again.
        """
        module_id, at = text(message.module_id, "module_id"), self._served_at
        lease, now = await self._lease(), self._now()
        registrations, siblings = self._stores.registrations, self._stores.siblings
        known: Registered | None = None

        def work() -> Work[HeartbeatResponse]:
            nonlocal known
            known = yield from registrations.beat_work(module_id, now=now, at=at, lease=lease)
            if known is None:
                raise module_not_found(module_id)
            return HeartbeatResponse(status=ModuleStatus.ACTIVE)

        reply = await self._write(work)
        self._heard(module_id, at)
        if at and known is not None and known.place != at:
            siblings.watch(bare_module_id(module_id), registrations.runs_out(known))
        elif siblings.stood_in(bare_module_id(module_id), at):
            raise module_not_found(module_id)  # so that it tells of the module what is so there: version, name, ...
        return reply

    async def get_module(self, message: GetModuleRequest) -> ModuleDescriptor:
        """One module.

        Raises:
            RegistryModuleNotFoundError: It never was registered.
        """
        lease = await self._lease()
        return _descriptor(await self._module(message.module_id), lease)

    async def discover_modules(self, message: DiscoverModulesRequest) -> DiscoverModulesResponse:
        """Modules whose name or id has `query` in it; those that are served now first."""
        limit, offset = page(message.limit, message.offset, most=PAGE_MAX)
        statuses = {status for status in message.status if status}
        alive = None
        if statuses:
            if not statuses & {ModuleStatus.ACTIVE, ModuleStatus.READY}:
                return DiscoverModulesResponse()
            if not statuses >= {ModuleStatus.ACTIVE, ModuleStatus.READY}:
                alive = ModuleStatus.ACTIVE in statuses
        if not _visible(message.visibility):
            return DiscoverModulesResponse()
        wanted = Wanted(query=text(message.query, "query", empty=True), types=_types(message.module_types), alive=alive)
        lease = await self._lease()
        work = partial(self._stores.registrations.page_work, wanted, lease, limit=limit, offset=offset)
        found = await self._stores.database.read(work, thread=True)
        return DiscoverModulesResponse(modules=[_descriptor(module, lease) for module in found])

    # --- setups ------------------------------------------------------------------------------------------------------

    async def get_setup(self, message: GetSetupRequest) -> SetupDescriptor:
        """One stored setup, with its module if that is registered.

        Raises:
            SetupNotFoundError: There is none.
        """
        setup_id = text(message.setup_id, "setup_id")
        lease = await self._lease()

        def work() -> Work[SetupDescriptor | None]:
            return (yield from self._setup_work(setup_id, lease))

        found = await self._stores.database.read(work)
        if found is None:
            rule = f"no setup has the id {setup_id!r}"
            raise SetupNotFoundError(f"N{rule[1:]}.", violations=[Violation("setup_id", rule)])
        return found

    async def discover_setups(self, message: DiscoverSetupsRequest) -> DiscoverSetupsResponse:
        """Stored setups, oldest first."""
        limit, offset = page(message.limit, message.offset, most=PAGE_MAX)
        statuses = [name for name, status in _STATUSES.items() if status in message.status]
        if not _visible(message.visibility) or (any(message.status) and not statuses):
            return DiscoverSetupsResponse()
        wanted = WantedSetups(
            organization=text(message.organization_id, "organization_id", empty=True),
            query=text(message.query, "query", empty=True),
            statuses=statuses,
            module_ids=[text(it, f"module_ids[{index}]") for index, it in enumerate(message.module_ids)],
            module_types=_types(message.module_types),
        )
        lease = await self._lease()

        def work() -> Work[DiscoverSetupsResponse]:
            found = []
            for key in (yield from setup_ids_work(wanted, limit=limit, offset=offset)):
                descriptor = yield from self._setup_work(key, lease)
                assert descriptor is not None  # a read sees one state
                found.append(descriptor)
            return DiscoverSetupsResponse(setups=found)

        return await self._stores.database.read(work, thread=True)

    def _setup_work(self, setup_id: str, lease: Lease) -> Work[SetupDescriptor | None]:
        setup = yield from self._stores.setups.get_work(setup_id)
        if setup is None:
            return None
        module = yield from self._stores.registrations.get_work(setup.module_id)
        return _setup_descriptor(setup, None if module is None else _descriptor(module, lease))


def _told(metadata: Mapping[str, str | bytes], key: str) -> tuple[str, str, str]:
    """Name, type and documentation that `MODULE` metadata tells of a module; empty where it tells nothing."""
    value = metadata.get(key)
    if not value:
        return "", "", ""
    try:
        told = json.loads(value)
    except ValueError as error:
        raise refused(key, f"is no JSON: {error}") from error
    if not isinstance(told, dict):
        raise refused(key, "must be a JSON object")
    name, module_type, documentation = (
        _text(told, part, f"{key}.{part}") for part in ("name", "module_type", "documentation")
    )
    known = [kind.value for kind in RegistryModuleType]
    if module_type not in ("", *known):
        raise refused(f"{key}.module_type", f"must be one of {', '.join(known)}, not {module_type!r}")
    return name, module_type, documentation


def _text(told: Mapping[str, Any], part: str, field: str) -> str:
    value = told.get(part) or ""
    if not isinstance(value, str):
        raise refused(field, f"must be a text, not {value!r:.80}")
    return text(value, field, empty=True)


def _visible(wanted: Iterable[Visibility]) -> bool:
    wanted = [visibility for visibility in wanted if visibility]
    return not wanted or _VISIBILITY in wanted


def _types(wanted: Iterable[ModuleType]) -> list[str]:
    return [kind.name.lower() for kind in wanted if kind and kind.name]


def _descriptor(module: Registered, lease: Lease) -> ModuleDescriptor:
    return ModuleDescriptor(
        id=module.module_id,
        name=module.name or bare_module_id(module.module_id),
        module_type=ModuleType[(module.module_type or RegistryModuleType.UNSPECIFIED).upper()],
        version=module.version,
        address=module.address,
        port=module.port,
        status=ModuleStatus.ACTIVE if module.alive(lease) else ModuleStatus.READY,
        visibility=_VISIBILITY,
        documentation=module.documentation,
        created_at=date_of(module.created),
        updated_at=date_of(module.updated),
    )


def _setup_descriptor(setup: SetupData, module: ModuleDescriptor | None) -> SetupDescriptor:
    version = setup.current_setup_version
    facts: dict[str, Any] = {}
    if version is not None:
        facts = {
            "setup_version_id": version.id,
            "setup_version": version.version,
            "config": Struct.from_dict(version.content),
        }
    return SetupDescriptor(
        id=setup.id,
        name=setup.name,
        status=_STATUSES[setup.status],
        visibility=_VISIBILITY,
        organization_id=setup.organisation_id,
        owner_id=setup.owner_id,
        module_id=MODULE_PREFIX + bare_module_id(setup.module_id),
        module=module,
        **facts,
    )
