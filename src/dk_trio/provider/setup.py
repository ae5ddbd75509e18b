"""SetupService: setups and their versions.

Ids are made here where the caller gives none: from its idempotency key, if there is one, so that a request that comes
again long after makes nothing new. Ids with and without prefix are the same.

What a request leaves empty is not changed: proto3 has no other way to say so. DRAFT is 0 and so cannot be told from
nothing; a setup is made a draft by CreateSetup alone.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Final
from uuid import NAMESPACE_OID, UUID, uuid5

from dk_trio import chance
from dk_trio.errors import SetupNotFoundError, Violation
from dk_trio.extensions import IDEMPOTENCY_KEY, SETUP_ID
from dk_trio.pb.agentic_mesh_protocol.setup.v1 import (
    CreateSetupRequest,
    CreateSetupResponse,
    CreateSetupVersionRequest,
    CreateSetupVersionResponse,
    DeleteSetupRequest,
    DeleteSetupResponse,
    DeleteSetupVersionRequest,
    DeleteSetupVersionResponse,
    GetSetupRequest,
    GetSetupResponse,
    GetSetupVersionRequest,
    GetSetupVersionResponse,
    ListSetupsRequest,
    ListSetupsResponse,
    SearchSetupVersionsRequest,
    SearchSetupVersionsResponse,
    Setup,
    SetupServiceBase,
    SetupStatus,
    SetupVersion,
    UpdateSetupRequest,
    UpdateSetupResponse,
    UpdateSetupVersionRequest,
    UpdateSetupVersionResponse,
)
from dk_trio.pb.google.protobuf import Struct
from dk_trio.services import setup as stored
from dk_trio.services.setup import PAGE_MAX, PREFIX, VERSION_PREFIX, SetupData, SetupVersionData, bare, bare_version

from ._base import Servicer, json_text, known, struct, text
from ._large import Large
from ._modules import page

if TYPE_CHECKING:
    from dk_trio.services.stores.setups import SetupTable
    from dk_trio.services.stores.work import Work

LIMIT_DEFAULT: Final = 100
"""Setups of a page for who has not said how many."""

FIRST_VERSION: Final = "1"
"""Name of a setup's first version for who has not given one."""

# Entries that are read and made into messages in one go: with their contents some milliseconds of the loop.
_STEP: Final = 50

_NAMESPACE: Final = uuid5(NAMESPACE_OID, "dk-trio setups")

_STATUSES: Final = MappingProxyType({status: stored.SetupStatus[status.name] for status in SetupStatus if status.name})
_WIRE_STATUSES: Final = MappingProxyType({status: wire for wire, status in _STATUSES.items()})


class SetupServicer(Servicer, SetupServiceBase):
    """See the module's docstring."""

    @property
    def _table(self) -> SetupTable:
        return self._stores.setups

    # --- setups ------------------------------------------------------------------------------------------------------

    async def create_setup(self, message: CreateSetupRequest) -> CreateSetupResponse:
        """A new setup, with its current version if the request has one.

        Raises:
            SetupExistsError: The id that the metadata ask for is taken, or that of the version.
        """
        asked = bare(text(self._call.text(SETUP_ID), SETUP_ID, empty=True))
        setup = SetupData(
            id=PREFIX + (asked or self._new_id("setup")),
            name=text(message.name, "name"),
            organisation_id=text(message.organisation_id, "organisation_id", empty=True),
            owner_id=text(message.owner_id, "owner_id", empty=True),
            module_id=text(message.module_id, "module_id"),
            status=_STATUSES.get(message.status) or stored.SetupStatus[known(message.status, "status")],
        )
        if message.current_setup_version is not None:
            told = message.current_setup_version
            version = self._version(setup.id, told, told.version or FIRST_VERSION, "current_setup_version.")
            setup = setup.model_copy(update={"current_setup_version": version})

        def work() -> Work[CreateSetupResponse]:
            yield from self._table.create_work(setup)
            return CreateSetupResponse(success=True, setup=_setup(setup))

        return await self._write(work)

    async def get_setup(self, message: GetSetupRequest) -> GetSetupResponse:
        """A setup, with its current version, and beside it the version that was asked for: the current one, if none.

        Raises:
            SetupNotFoundError: There is no such setup, or it has no version of this name or id.
        """
        setup_id = text(message.setup_id, "setup_id")
        name = text(message.version or "", "version", empty=True)

        def work() -> Work[GetSetupResponse]:
            setup = yield from self._existing(setup_id)
            version = setup.current_setup_version
            if name and (version is None or name != version.version):
                version = yield from self._named(setup, name)
            return GetSetupResponse(
                setup=_setup(setup), setup_version=None if version is None else _setup_version(version)
            )

        return await self._stores.database.read(work)

    async def update_setup(self, message: UpdateSetupRequest) -> UpdateSetupResponse:
        """Change a setup. Its current version is chosen by the id; a content makes a version, or changes the one there.

        Raises:
            SetupNotFoundError: There is no such setup, or no such version of it.
            SetupExistsError: Another version of the setup has the version's name.
        """
        setup_id = text(message.setup_id, "setup_id")
        name = text(message.name, "name", empty=True) or None
        owner_id = text(message.owner_id, "owner_id", empty=True) or None
        status = stored.SetupStatus[known(message.status, "status")].value if message.status else None
        told, version = message.current_setup_version, None
        current = None if told is None else text(told.id, "current_setup_version.id", empty=told.content is not None)
        if told is not None and told.content is not None:
            version = self._version(PREFIX + bare(setup_id), told, told.version, "current_setup_version.")

        def work() -> Work[UpdateSetupResponse]:
            chosen = current
            if version is not None and told is not None:
                chosen = yield from self._put(version, told)
            changed = {"name": name, "owner_id": owner_id, "status": status, "current": chosen}
            setup = yield from self._table.update_work(setup_id, **changed)
            return UpdateSetupResponse(success=True, setup=_setup(setup))

        return await self._write(work)

    def _put(self, version: SetupVersionData, told: SetupVersion) -> Work[str]:
        """Id of the version that was told of, by its id or else by its name, which has this content now."""
        there = None
        if told.id:
            there = yield from self._table.get_version_work(told.id)
        elif told.version:
            found = yield from self._table.versions_work(
                setup_id=version.setup_id, version=told.version, limit=1, offset=0
            )
            there = found[0] if found else None
        if there is None:
            yield from self._table.create_version_work(version)
            return version.id
        content = json.dumps(version.content, ensure_ascii=False)
        yield from self._table.update_version_work(there.id, version=told.version or None, content=content)
        return there.id

    async def delete_setup(self, message: DeleteSetupRequest) -> DeleteSetupResponse:
        """Delete a setup and its versions.

        Raises:
            SetupNotFoundError: There is none.
        """
        setup_id = text(message.setup_id, "setup_id")

        def work() -> Work[DeleteSetupResponse]:
            if (yield from self._table.delete_work(setup_id)) is None:
                raise _not_found("setup", "setup_id", setup_id)
            return DeleteSetupResponse(success=True)

        return await self._write(work)

    async def list_setups(self, message: ListSetupsRequest) -> ListSetupsResponse:
        """A page of setups, oldest first, and how many there are on all pages.

        Raises:
            ReplyTooLargeError: They have more bytes than one message.
        """
        limit, offset = page(message.limit or LIMIT_DEFAULT, message.offset, most=PAGE_MAX)
        of = {
            "organisation_id": text(message.organisation_id or "", "organisation_id", empty=True) or None,
            "owner_id": text(message.owner_id or "", "owner_id", empty=True) or None,
        }
        reply = Large("This page of setups", "Ask for fewer at a time.")
        for start in range(0, limit, _STEP):
            step = min(_STEP, limit - start)
            found = await self._table.page(**of, limit=step, offset=offset + start)
            total = {"total_count": found.total_count} if not start else {}
            reply.add(ListSetupsResponse(setups=[_setup(setup) for setup in found.setups], **total))
            if len(found.setups) < step:
                break
        return reply.as_reply(ListSetupsResponse)

    # --- versions ----------------------------------------------------------------------------------------------------

    async def create_setup_version(self, message: CreateSetupVersionRequest) -> CreateSetupVersionResponse:
        """A new version; it is current if it is the first.

        Raises:
            SetupNotFoundError: There is no such setup.
            SetupExistsError: The setup has a version of this name.
        """
        setup_id = PREFIX + bare(text(message.setup_id, "setup_id"))
        told = SetupVersion(content=message.content)
        version = self._version(setup_id, told, text(message.version, "version"))

        def work() -> Work[CreateSetupVersionResponse]:
            yield from self._table.create_version_work(version)
            return CreateSetupVersionResponse(success=True, setup_version=_setup_version(version))

        return await self._write(work)

    async def get_setup_version(self, message: GetSetupVersionRequest) -> GetSetupVersionResponse:
        """A version.

        Raises:
            SetupNotFoundError: There is none of this id.
        """
        version_id = text(message.setup_version_id, "setup_version_id")
        found = await self._table.get_version(version_id)
        if found is None:
            raise _not_found("setup version", "setup_version_id", version_id)
        return GetSetupVersionResponse(setup_version=_setup_version(found))

    async def search_setup_versions(self, message: SearchSetupVersionsRequest) -> SearchSetupVersionsResponse:
        """Versions by setup and name, oldest first; all of them, since there are no pages.

        Raises:
            ReplyTooLargeError: They have more bytes than one message.
        """
        of = {
            "setup_id": text(message.setup_id, "setup_id", empty=True) or None,
            "version": text(message.version or "", "version", empty=True) or None,
        }
        reply = Large("All these versions", "Ask for those of one setup, or for one by its id.")
        offset = 0
        while True:
            found = await self._table.versions(**of, limit=_STEP, offset=offset)
            reply.add(SearchSetupVersionsResponse(setup_versions=[_setup_version(version) for version in found]))
            offset += len(found)
            if len(found) < _STEP:
                return reply.as_reply(SearchSetupVersionsResponse)

    async def update_setup_version(self, message: UpdateSetupVersionRequest) -> UpdateSetupVersionResponse:
        """Change a version's name or content.

        Raises:
            SetupNotFoundError: There is none of this id.
            SetupExistsError: Its setup has another version of this name.
        """
        version_id = text(message.setup_version_id, "setup_version_id")
        name = text(message.version, "version", empty=True) or None
        content = None if message.content is None else json_text(message.content, "content")

        def work() -> Work[UpdateSetupVersionResponse]:
            _, version = yield from self._table.update_version_work(version_id, version=name, content=content)
            return UpdateSetupVersionResponse(success=True, setup_version=_setup_version(version))

        return await self._write(work)

    async def delete_setup_version(self, message: DeleteSetupVersionRequest) -> DeleteSetupVersionResponse:
        """Delete a version that is not the current one.

        Raises:
            SetupNotFoundError: There is none of this id.
            SetupServiceError: It is the current one.
        """
        version_id = text(message.setup_version_id, "setup_version_id")

        def work() -> Work[DeleteSetupVersionResponse]:
            if (yield from self._table.delete_version_work(version_id)) is None:
                raise _not_found("setup version", "setup_version_id", version_id)
            return DeleteSetupVersionResponse(success=True)

        return await self._write(work)

    # --- parts -------------------------------------------------------------------------------------------------------

    def _new_id(self, what: str) -> str:
        call = self._call
        key = call.text(IDEMPOTENCY_KEY)
        made: UUID = uuid5(_NAMESPACE, f"{key} {call.path} {what}") if key else chance.new_uuid()
        return made.hex

    def _version(self, setup_id: str, told: SetupVersion, name: str, where: str = "") -> SetupVersionData:
        if told.content is not None:
            json_text(told.content, f"{where}content")  # refuses what is no JSON
        key = bare_version(text(told.id, f"{where}id", empty=True)) or self._new_id("version")
        return SetupVersionData(
            id=VERSION_PREFIX + key,
            setup_id=setup_id,
            version=text(name, f"{where}version", empty=True) or key,
            content=struct(told.content, f"{where}content"),
            creation_date=datetime.fromtimestamp(self._options.now(), UTC),
        )

    def _existing(self, setup_id: str) -> Work[SetupData]:
        setup = yield from self._table.get_work(setup_id)
        if setup is None:
            raise _not_found("setup", "setup_id", setup_id)
        return setup

    def _named(self, setup: SetupData, name: str) -> Work[SetupVersionData]:
        found = yield from self._table.versions_work(setup_id=setup.id, version=name, limit=1, offset=0)
        if found:
            return found[0]
        version = yield from self._table.get_version_work(name)
        if version is None or version.setup_id != setup.id:
            raise _not_found(f"version of the setup {setup.id!r}", "version", name)
        return version


def _not_found(what: str, field: str, value: str) -> SetupNotFoundError:
    rule = f"no {what} is stored as {value!r}"
    return SetupNotFoundError(f"N{rule[1:]}.", violations=[Violation(field, rule)])


def _setup(setup: SetupData) -> Setup:
    version = setup.current_setup_version
    return Setup(
        id=setup.id,
        name=setup.name,
        organisation_id=setup.organisation_id,
        owner_id=setup.owner_id,
        module_id=setup.module_id,
        status=_WIRE_STATUSES[setup.status],
        current_setup_version=None if version is None else _setup_version(version),
    )


def _setup_version(version: SetupVersionData) -> SetupVersion:
    return SetupVersion(
        id=version.id,
        setup_id=version.setup_id,
        version=version.version,
        content=Struct.from_dict(version.content),
        creation_date=version.creation_date,
    )
