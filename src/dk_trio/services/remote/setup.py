"""The setup service behind a services-provider."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import trio
from grpclib.const import Status

from dk_trio.errors import SetupExistsError, SetupNotFoundError, SetupServiceError, Violation
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
    SetupVersion,
    UpdateSetupRequest,
    UpdateSetupResponse,
    UpdateSetupVersionRequest,
    UpdateSetupVersionResponse,
)
from dk_trio.pb.agentic_mesh_protocol.setup.v1 import SetupStatus as WireStatus
from dk_trio.services.field_path import field_path
from dk_trio.services.setup import (
    PREFIX,
    VERSION_PREFIX,
    SetupData,
    SetupPage,
    SetupService,
    SetupStatus,
    SetupVersionData,
    bare,
    bare_version,
)
from dk_trio.services.setup_checks import (
    check_page,
    checked_id,
    checked_json,
    checked_status,
    checked_text,
    checked_text_or_none,
    not_found,
)
from dk_trio.services.strategy import BaseStrategy

from .calls import HEALTH_TIMEOUT, Calls
from .errors import ErrorFamily
from .structs import NotSendableError, from_struct, to_struct

if TYPE_CHECKING:
    from dk_trio.pb.google.protobuf import Struct
    from dk_trio.services.provider_clients import ProviderClients

_FAMILY: Final = ErrorFamily(
    base=SetupServiceError,
    by_status={Status.NOT_FOUND: SetupNotFoundError, Status.ALREADY_EXISTS: SetupExistsError},
    also=(SetupNotFoundError,),
)

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class GrpcSetup(BaseStrategy, SetupService):
    """The remote `SetupService`: see there for what its methods promise.

    The contract changes a setup or a version as a whole. So an update reads it first, and sends what is not given as it
    was; two updates at once are kept apart within this process only. What is empty or zero is no change and no
    condition there: an owner cannot be made empty or be asked for as such, and no setup becomes a draft again. Numbers
    travel as doubles: an integer beyond 2^53 in a content is refused.

    Args:
        mission_id: The mission of the job; there is none where a server or a program asks.
        setup_id: Its setup.
        setup_version_id: The version of the setup.
        providers: Calls to services-providers.
        client_config: Of another provider than the server's own.
    """

    def __init__(
        self,
        mission_id: str = "",
        setup_id: str = "",
        setup_version_id: str = "",
        *,
        providers: ProviderClients,
        client_config: Any = None,
    ) -> None:
        super().__init__(mission_id, setup_id, setup_version_id)
        self._calls = Calls(providers, client_config, "agentic_mesh_protocol.setup.v1.SetupService", _FAMILY)
        self._locks = providers.locks

    def __repr__(self) -> str:
        return "<GrpcSetup>"

    async def check_health(self) -> None:
        """Ask for one setup."""
        await self._calls.read("ListSetups", ListSetupsRequest(limit=1), ListSetupsResponse, timeout=HEALTH_TIMEOUT)

    # --- setups ------------------------------------------------------------------------------------------------------

    async def create_setup(
        self,
        *,
        name: str,
        module_id: str,
        organisation_id: str = "",
        owner_id: str = "",
        content: Mapping[str, Any] | None = None,
        version: str = "1",
        status: SetupStatus | str = SetupStatus.READY,
    ) -> SetupData:
        request = CreateSetupRequest(
            name=checked_text("name", name),
            organisation_id=checked_text("organisation_id", organisation_id, empty=True),
            owner_id=checked_text("owner_id", owner_id, empty=True),
            module_id=checked_text("module_id", module_id),
            status=_wire_status(status),
        )
        if content is not None:
            request.current_setup_version = SetupVersion(
                version=checked_text("version", version), content=_struct(content)
            )
        reply = await self._calls.write("CreateSetup", request, CreateSetupResponse)
        if not reply.success and reply.setup is None:
            raise self._calls.refused("CreateSetup")
        return self._setup("CreateSetup", reply.setup)

    async def get_setup(self, setup_id: str) -> SetupData:
        key = checked_id("setup_id", bare, setup_id)
        try:
            reply = await self._calls.read("GetSetup", GetSetupRequest(PREFIX + key), GetSetupResponse)
        except SetupNotFoundError as error:
            raise not_found("setup", "setup_id", PREFIX + key) from error.__cause__
        if reply.setup is None:
            raise not_found("setup", "setup_id", PREFIX + key)
        return self._setup("GetSetup", reply.setup)

    async def update_setup(
        self,
        setup_id: str,
        *,
        name: str | None = None,
        owner_id: str | None = None,
        status: SetupStatus | str | None = None,
        current_setup_version_id: str | None = None,
    ) -> SetupData:
        key = checked_id("setup_id", bare, setup_id)
        version_key = None
        if current_setup_version_id is not None:
            version_key = checked_id("current_setup_version_id", bare_version, current_setup_version_id)
        request = UpdateSetupRequest(setup_id=PREFIX + key)
        if name is not None:
            request.name = checked_text("name", name)
        request.owner_id = checked_text_or_none("owner_id", owner_id) or ""
        wire_status = None if status is None else _wire_status(status)
        if owner_id == "":
            raise _unsayable("owner_id", "must not be empty: to a services-provider that is no change")
        async with self._locks(self._calls.target, "setup", key):
            there = await self.get_setup(setup_id)
            request.name = request.name or there.name
            request.status = _wire_status(there.status) if wire_status is None else wire_status
            if request.status is WireStatus.DRAFT and there.status is not SetupStatus.DRAFT:
                raise _unsayable("status", "must not become draft again: to a services-provider that is no change")
            if version_key is not None:
                request.current_setup_version = await self._version_of(key, version_key, current_setup_version_id)
            reply = await self._calls.write("UpdateSetup", request, UpdateSetupResponse)
        if not reply.success and reply.setup is None:
            raise self._calls.refused("UpdateSetup")
        return self._setup("UpdateSetup", reply.setup)

    async def delete_setup(self, setup_id: str) -> bool:
        request = DeleteSetupRequest(PREFIX + checked_id("setup_id", bare, setup_id))
        try:
            return (await self._calls.write("DeleteSetup", request, DeleteSetupResponse)).success
        except SetupNotFoundError:
            return False

    async def list_setups(
        self, *, organisation_id: str | None = None, owner_id: str | None = None, limit: int = 100, offset: int = 0
    ) -> SetupPage:
        check_page(limit, offset)
        for field, value in (("organisation_id", organisation_id), ("owner_id", owner_id)):
            if value == "":
                raise _unsayable(field, "must not be empty: to a services-provider that is no condition")
        request = ListSetupsRequest(
            organisation_id=checked_text_or_none("organisation_id", organisation_id),
            owner_id=checked_text_or_none("owner_id", owner_id),
            limit=limit,
            offset=offset,
        )
        reply = await self._calls.read("ListSetups", request, ListSetupsResponse)
        setups = [self._setup("ListSetups", setup) for setup in reply.setups]
        return SetupPage(setups, max(reply.total_count, offset + len(setups) if setups else 0))

    # --- versions ----------------------------------------------------------------------------------------------------

    async def create_setup_version(
        self, setup_id: str, *, version: str, content: Mapping[str, Any]
    ) -> SetupVersionData:
        key = checked_id("setup_id", bare, setup_id)
        request = CreateSetupVersionRequest(
            setup_id=PREFIX + key, version=checked_text("version", version), content=_struct(content)
        )
        try:
            reply = await self._calls.write("CreateSetupVersion", request, CreateSetupVersionResponse)
        except SetupNotFoundError as error:
            raise not_found("setup", "setup_id", PREFIX + key) from error.__cause__
        return self._version("CreateSetupVersion", reply.setup_version)

    async def get_setup_version(self, setup_version_id: str) -> SetupVersionData:
        key = checked_id("setup_version_id", bare_version, setup_version_id)
        request = GetSetupVersionRequest(VERSION_PREFIX + key)
        try:
            reply = await self._calls.read("GetSetupVersion", request, GetSetupVersionResponse)
        except SetupNotFoundError as error:
            raise not_found("setup version", "setup_version_id", VERSION_PREFIX + key) from error.__cause__
        if reply.setup_version is None:
            raise not_found("setup version", "setup_version_id", VERSION_PREFIX + key)
        return self._version("GetSetupVersion", reply.setup_version)

    async def search_setup_versions(
        self, *, setup_id: str | None = None, version: str | None = None, limit: int = 100, offset: int = 0
    ) -> list[SetupVersionData]:
        check_page(limit, offset)
        checked_text_or_none("setup_id", setup_id)
        checked_text_or_none("version", version)
        if version == "" or (setup_id is not None and not bare(setup_id)):  # which would be no condition
            await trio.lowlevel.checkpoint()
            return []
        request = SearchSetupVersionsRequest(
            setup_id="" if setup_id is None else PREFIX + bare(setup_id), version=version
        )
        try:
            reply = await self._calls.read("SearchSetupVersions", request, SearchSetupVersionsResponse)
        except SetupNotFoundError:
            return []
        page = reply.setup_versions[offset : offset + limit]
        return [self._version("SearchSetupVersions", found) for found in page]

    async def update_setup_version(
        self, setup_version_id: str, *, version: str | None = None, content: Mapping[str, Any] | None = None
    ) -> SetupVersionData:
        key = checked_id("setup_version_id", bare_version, setup_version_id)
        name = None if version is None else checked_text("version", version)
        struct = None if content is None else _struct(content)
        async with self._locks(self._calls.target, "setup version", key):
            if name is None or struct is None:
                there = await self.get_setup_version(setup_version_id)
                name = there.version if name is None else name
                struct = to_struct(there.content) if struct is None else struct
            request = UpdateSetupVersionRequest(setup_version_id=VERSION_PREFIX + key, version=name, content=struct)
            try:
                reply = await self._calls.write("UpdateSetupVersion", request, UpdateSetupVersionResponse)
            except SetupNotFoundError as error:
                raise not_found("setup version", "setup_version_id", VERSION_PREFIX + key) from error.__cause__
        return self._version("UpdateSetupVersion", reply.setup_version)

    async def delete_setup_version(self, setup_version_id: str) -> bool:
        key = checked_id("setup_version_id", bare_version, setup_version_id)
        request = DeleteSetupVersionRequest(VERSION_PREFIX + key)
        try:
            return (await self._calls.write("DeleteSetupVersion", request, DeleteSetupVersionResponse)).success
        except SetupNotFoundError:
            return False

    # --- between data and messages ------------------------------------------------------------------------------------

    async def _version_of(self, setup_key: str, key: str, told: object) -> SetupVersion:
        """The version that is to be current: whole, as the rules of the contract want it."""
        try:
            version = await self.get_setup_version(key)
        except SetupNotFoundError:
            version = None
        if version is None or bare(version.setup_id) != setup_key:
            rule = f"setup {PREFIX + setup_key!r} has no version with the id {told!r}"
            raise SetupNotFoundError(
                f"S{rule[1:]}.",
                hint="Find its versions with search_setup_versions(setup_id=...).",
                violations=[Violation("current_setup_version_id", rule)],
            )
        return SetupVersion(
            id=version.id,
            setup_id=version.setup_id,
            version=version.version,
            content=to_struct(version.content),
            creation_date=version.creation_date,
        )

    def _setup(self, method: str, wire: Setup | None) -> SetupData:
        if wire is None:
            raise self._calls.broken(method, "no setup")
        current = wire.current_setup_version
        return SetupData.model_construct(
            id=PREFIX + bare(wire.id),
            name=wire.name,
            organisation_id=wire.organisation_id,
            owner_id=wire.owner_id,
            module_id=wire.module_id,
            current_setup_version=None if current is None or not current.id else self._version(method, current),
            status=SetupStatus[wire.status.name] if wire.status.name else SetupStatus.FAILED,
        )

    def _version(self, method: str, wire: SetupVersion | None) -> SetupVersionData:
        if wire is None:
            raise self._calls.broken(method, "no version")
        with self._calls.errors(method):
            content = from_struct(wire.content)
        return SetupVersionData.model_construct(
            id=VERSION_PREFIX + bare_version(wire.id),
            setup_id=PREFIX + bare(wire.setup_id),
            version=wire.version,
            content=content,
            creation_date=wire.creation_date or _EPOCH,
        )


def _unsayable(field: str, rule: str) -> SetupServiceError:
    """The error for what the contract has no words for."""
    return SetupServiceError(f"{field} {rule}.", violations=[Violation(field, rule)], status=Status.INVALID_ARGUMENT)


def _wire_status(status: SetupStatus | str) -> WireStatus:
    return WireStatus[checked_status(status).name]


def _struct(content: Any) -> Struct:
    members = json.loads(checked_json(content))  # shares nothing with what the caller may still change
    try:
        return to_struct(members)
    except NotSendableError as error:
        raise SetupServiceError(
            f"content cannot be sent: {error.rule}.",
            violations=[Violation(field_path("content", *error.path), error.rule)],
        ) from error
