"""Remote files, registry, setups and profiles before a provider that is not ours: the plain contract, and its flags."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import trio
from grpclib.const import Status

from dk_trio.errors import (
    FileExistsInContextError,
    FilesystemServiceError,
    InvalidFileError,
    RegistryModuleNotFoundError,
    RegistryServiceError,
    SetupExistsError,
    SetupNotFoundError,
    SetupServiceError,
    SetupUnavailableError,
    StoredFileNotFoundError,
    UserProfileServiceError,
)
from dk_trio.pb.agentic_mesh_protocol.filesystem.v1 import (
    DeleteFilesResponse,
    File,
    FileResult,
    FileStatus,
    FilesystemServiceBase,
    FileType,
    GetFileResponse,
    GetFilesResponse,
    UpdateFileResponse,
    UploadFilesResponse,
)
from dk_trio.pb.agentic_mesh_protocol.module_registry.v1 import DeregisterResponse, ModuleRegistryServiceBase
from dk_trio.pb.agentic_mesh_protocol.registry.v1 import (
    DiscoverModulesResponse,
    ModuleDescriptor,
    RegisterModuleResponse,
    RegistryServiceBase,
    SetupDescriptor,
)
from dk_trio.pb.agentic_mesh_protocol.setup.v1 import (
    CreateSetupResponse,
    GetSetupResponse,
    GetSetupVersionResponse,
    Setup,
    SetupServiceBase,
    SetupStatus,
    SetupVersion,
    UpdateSetupResponse,
    UpdateSetupVersionResponse,
)
from dk_trio.pb.agentic_mesh_protocol.user_profile.v1 import GetUserProfileResponse, UserProfile, UserProfileServiceBase
from dk_trio.pb.google.protobuf import Struct
from dk_trio.services.filesystem import FileFilter
from dk_trio.services.remote.filesystem import GrpcFilesystem
from dk_trio.services.remote.registry import GrpcRegistry
from dk_trio.services.remote.setup import GrpcSetup
from dk_trio.services.remote.user_profile import GrpcUserProfile
from dk_trio.services.stored_setups import StoredSetups

from .file_kit import content_of, file, put
from .foreign_provider import IDS, Foreign, foreign, replies

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)
OUTAGES = [Status.UNAVAILABLE, Status.DEADLINE_EXCEEDED, Status.INTERNAL, Status.RESOURCE_EXHAUSTED]


# --- filesystem ------------------------------------------------------------------------------------------------------


def stored(status: FileStatus = FileStatus.ACTIVE, file_type: FileType = FileType.IMAGE, **fields: Any) -> File:
    known = ("files:1", "missions:m", "a.txt", file_type, "a/b", 3, "sum", None)
    return File(*known, "s3://x", "https://x", status, **fields)


def files_of(it: Foreign, **options: Any) -> GrpcFilesystem:
    return GrpcFilesystem(*IDS, providers=it.clients, **options)


async def test_a_file_that_was_refused_is_told_and_not_dropped(autojump_clock: object) -> None:
    answers = replies(
        UploadFilesResponse([FileResult(file=stored())], 1, 0),
        UploadFilesResponse([FileResult(error="quota exceeded")], 0, 1),
        UploadFilesResponse([FileResult(error="FILE_EXISTS: there is one")], 0, 1),
        UploadFilesResponse([], 0, 1),
        Status.ALREADY_EXISTS,
        Status.UNAVAILABLE,
    )
    async with foreign(FilesystemServiceBase, upload_files=answers) as it:
        result = await files_of(it).upload_files([file(name) for name in "abcdef"])
        assert [made.id for made in result.records] == ["files:1"]
        told = [(failure.index, failure.name, type(failure.error)) for failure in result.failures]
        assert told == [
            (1, "b", FilesystemServiceError),
            (2, "c", FileExistsInContextError),
            (3, "d", FilesystemServiceError),
            (4, "e", FileExistsInContextError),
            (5, "f", FilesystemServiceError),
        ]
        assert "quota exceeded" in str(result.failures[0].error)
        assert "neither a file nor an error" in str(result.failures[2].error)
        assert all(len(request.files) == 1 for request in it.asked("upload_files"))
        assert {request.files[0].status for request in it.asked("upload_files")} == {FileStatus.ACTIVE}


async def test_a_name_that_is_taken_is_told_whatever_the_words_of_the_provider(autojump_clock: object) -> None:
    refused = replies(UploadFilesResponse([FileResult(error="no: there is one")], 0, 1))
    there = replies(GetFilesResponse([stored()], 1), GetFilesResponse([], 0), Status.UNAVAILABLE)
    async with foreign(FilesystemServiceBase, upload_files=refused, get_files=there) as it:
        files = files_of(it)
        with pytest.raises(FileExistsInContextError, match="in the context missions:m already"):
            await put(files, "a.txt")
        for _ in range(2):
            with pytest.raises(FilesystemServiceError, match="no: there is one"):
                await put(files, "a.txt")
        with pytest.raises(FilesystemServiceError, match="no: there is one"):
            await put(files, "a.txt", replace_if_exists=True)
        assert len(it.asked("get_files")) == 3


async def test_names_of_the_wire_come_without_their_prefix(autojump_clock: object) -> None:
    async with foreign(
        FilesystemServiceBase, get_file=replies(GetFileResponse(stored()), GetFileResponse(stored(FileStatus(77))))
    ) as it:
        made = await files_of(it).get_file("1")
        assert (made.file_type, made.status, made.metadata, made.content) == ("IMAGE", "ACTIVE", None, None)
        assert (await files_of(it).get_file("1")).status == "ACTIVE"  # of a later contract
        assert it.asked("get_file")[0].file_id == "files:1"


@pytest.mark.parametrize("reply", [GetFileResponse(stored(content=b"abc")), GetFileResponse(stored(), b"abc")])
async def test_a_content_is_found_in_either_place(autojump_clock: object, reply: GetFileResponse) -> None:
    async with foreign(FilesystemServiceBase, get_file=replies(reply)) as it:
        assert (await files_of(it).get_file("1", include_content=True)).content == b"abc"
        assert await content_of(files_of(it), "1") == b"abc"
        assert (await files_of(it).get_file("1")).content is None


async def test_an_update_sends_what_is_given_and_no_more(autojump_clock: object) -> None:
    answers = replies(UpdateFileResponse(FileResult(file=stored())), Status.NOT_FOUND, Status.ALREADY_EXISTS)
    async with foreign(FilesystemServiceBase, update_file=answers) as it:
        await files_of(it).update_file("1", new_name="b", status="FILE_STATUS_ARCHIVED")
        (request,) = it.asked("update_file")
        assert (request.new_name, request.status, request.file_type) == ("b", FileStatus.ARCHIVED, FileType.UNSPECIFIED)
        assert (request.content_type, request.content, request.metadata) == ("", b"", None)
        with pytest.raises(StoredFileNotFoundError, match="No file 'files:2' in the context missions:m"):
            await files_of(it).update_file("files:2", new_name="b")
        with pytest.raises(FileExistsInContextError) as caught:
            await files_of(it).update_file("1", new_name="b")
        assert [violation.field for violation in caught.value.violations] == ["new_name"]


async def test_why_a_file_was_not_deleted_is_found_out(autojump_clock: object) -> None:
    async with foreign(
        FilesystemServiceBase,
        delete_files=replies(DeleteFilesResponse({"files:1": False, "files:2": True, "files:3": False}, 1, 2)),
        get_files=replies(GetFilesResponse([stored(FileStatus.PROCESSING)], 1)),
    ) as it:
        result = await files_of(it).delete_files(FileFilter(prefix="a"))
        assert result.deleted == {"files:1": False, "files:2": True, "files:3": False}
        assert "PROCESSING" in str(result.failures["files:1"])
        assert isinstance(result.failures["files:3"], StoredFileNotFoundError)
        assert it.asked("get_files")[0].filters.file_ids == ["files:1", "files:3"]


async def test_a_content_that_no_message_holds_is_refused_before_it_is_sent(autojump_clock: object) -> None:
    async def endless() -> Any:
        while True:
            yield b"x" * 1000

    async with foreign(FilesystemServiceBase, get_files=replies(GetFilesResponse())) as it:
        files = files_of(it, max_file_size=5000)
        for content in (b"x" * 5001, endless()):
            with pytest.raises(InvalidFileError, match="more than 5000 bytes"):
                await put(files, content=content)
        assert it.asked("upload_files") == []


# --- registry --------------------------------------------------------------------------------------------------------


def registry_of(it: Foreign) -> GrpcRegistry:
    return GrpcRegistry(*IDS, providers=it.clients)


async def test_a_module_without_an_id_is_no_module(autojump_clock: object) -> None:
    async with foreign(RegistryServiceBase, get_module=replies(ModuleDescriptor(), Status.UNAVAILABLE)) as it:
        with pytest.raises(RegistryModuleNotFoundError):
            await registry_of(it).discover_by_id("modules:")
        assert it.requests == []
        with pytest.raises(RegistryModuleNotFoundError):
            await registry_of(it).discover_by_id("a")
        assert it.asked("get_module")[0].module_id == "modules:a"
        with pytest.raises(RegistryServiceError) as caught:
            await registry_of(it).discover_by_id("a")
        assert (type(caught.value), caught.value.status) == (RegistryServiceError, Status.UNAVAILABLE)


async def test_a_search_asks_within_the_rules_and_for_all_pages(autojump_clock: object) -> None:
    page = DiscoverModulesResponse([ModuleDescriptor(id=f"modules:{n}") for n in range(100)])
    last = DiscoverModulesResponse([ModuleDescriptor(id="modules:last")])
    async with foreign(RegistryServiceBase, discover_modules=replies(page, last)) as it:
        assert len(await registry_of(it).search("a", None, "o")) == 101
        first, second, _ = it.asked("discover_modules")
        assert (first.limit, first.offset, first.query, first.organization_id) == (100, 0, "a", "organizations:o")
        assert second.offset == 100


async def test_a_provider_without_the_older_registry_cannot_deregister(autojump_clock: object) -> None:
    async with foreign(RegistryServiceBase, register_module=replies(RegisterModuleResponse())) as it:
        assert await registry_of(it).register("a", "h", 1, "1") is None
        assert not await registry_of(it).deregister("a")
    older = (ModuleRegistryServiceBase, {"deregister_module": replies(DeregisterResponse(True), Status.UNAVAILABLE)})
    async with foreign(RegistryServiceBase, older) as it:
        assert await registry_of(it).deregister("a")
        with pytest.raises(RegistryServiceError) as caught:
            await registry_of(it).deregister("a")
        assert caught.value.status is Status.UNAVAILABLE


async def test_ready_is_who_answers_whatever_it_says(autojump_clock: object) -> None:
    async with foreign(RegistryServiceBase, discover_modules=replies(Status.INVALID_ARGUMENT)) as it:
        assert await registry_of(it).wait_for_ready(1)
    async with foreign(RegistryServiceBase, discover_modules=replies(DiscoverModulesResponse())) as it:
        it.down = True
        began = trio.current_time()
        assert not await registry_of(it).wait_for_ready(3)
        assert trio.current_time() - began == pytest.approx(3)

        async def come_up() -> None:
            await trio.sleep(20)
            it.down = False

        async with trio.open_nursery() as nursery:
            nursery.start_soon(come_up)
            assert await registry_of(it).wait_for_ready(600)


async def test_a_setup_that_is_not_there_is_none_and_an_outage_is_not(autojump_clock: object) -> None:
    answers = replies(Status.NOT_FOUND, SetupDescriptor(), Status.UNAVAILABLE)
    async with foreign(RegistryServiceBase, get_setup=answers) as it:
        assert await registry_of(it).get_setup("s") is None
        assert await registry_of(it).get_setup("s") is None
        with pytest.raises(RegistryServiceError) as caught:
            await registry_of(it).get_setup("s")
        assert caught.value.status is Status.UNAVAILABLE


# --- setups ----------------------------------------------------------------------------------------------------------


def setup(name: str = "Loud") -> Setup:
    return Setup("setups:s", name, "organisations:o", "users:u", "modules:m", version(), SetupStatus.PAUSED)


def version(number: float = 1.0) -> SetupVersion:
    return SetupVersion("setup_versions:v", "setups:s", "1", Struct.from_dict({"n": number}), NOW)


async def test_a_server_tells_a_setup_that_is_not_there_from_a_provider_that_is_not(autojump_clock: object) -> None:
    answers = replies(Status.NOT_FOUND, Status.UNAVAILABLE, Status.DEADLINE_EXCEEDED, GetSetupResponse(setup()))
    async with foreign(SetupServiceBase, get_setup=answers) as it:
        source = StoredSetups(GrpcSetup(providers=it.clients), "modules:m")
        with pytest.raises(SetupNotFoundError):
            await source.get_setup("s", "missions:m")
        for _ in range(2):
            with pytest.raises(SetupUnavailableError, match="cannot be told"):
                await source.get_setup("s", "missions:m")
        found = await source.get_setup("s", "missions:m")
        assert (found.id, found.content) == ("setup_versions:v", {"n": 1})
        assert isinstance(found.content["n"], int)


async def test_a_change_is_sent_whole(autojump_clock: object) -> None:
    async with foreign(
        SetupServiceBase,
        get_setup=replies(GetSetupResponse(setup())),
        update_setup=replies(UpdateSetupResponse(True, setup("Louder"))),
        get_setup_version=replies(GetSetupVersionResponse(version())),
        update_setup_version=replies(UpdateSetupVersionResponse(True, version(2.0)), Status.ALREADY_EXISTS),
    ) as it:
        setups = GrpcSetup(providers=it.clients)
        assert (await setups.update_setup("s", name="Louder")).name == "Louder"
        (request,) = it.asked("update_setup")
        assert (request.name, request.owner_id, request.status) == ("Louder", "", SetupStatus.PAUSED)
        assert request.current_setup_version is None
        await setups.update_setup("s", current_setup_version_id="v")
        sent = it.asked("update_setup")[1].current_setup_version
        assert (sent.id, sent.setup_id, sent.version, sent.content.to_dict()) == (
            "setup_versions:v",
            "setups:s",
            "1",
            {"n": 1},
        )
        await setups.update_setup_version("v", content={"n": 2})
        changed = it.asked("update_setup_version")[0]
        assert (changed.version, changed.content.to_dict()) == ("1", {"n": 2})
        with pytest.raises(SetupExistsError):
            await setups.update_setup_version("v", version="2", content={})


async def test_a_reply_without_what_was_asked_for_is_not_taken_for_it(autojump_clock: object) -> None:
    async with foreign(
        SetupServiceBase,
        create_setup=replies(CreateSetupResponse(False), CreateSetupResponse(True)),
        get_setup=replies(GetSetupResponse(), GetSetupResponse(setup())),
        update_setup=replies(UpdateSetupResponse(False)),
        get_setup_version=replies(GetSetupVersionResponse(), GetSetupVersionResponse(version()), Status.NOT_FOUND),
        update_setup_version=replies(UpdateSetupVersionResponse(True), Status.NOT_FOUND),
        search_setup_versions=replies(Status.NOT_FOUND),
    ) as it:
        setups = GrpcSetup(providers=it.clients)
        for text in ("success=false", "no setup"):
            with pytest.raises(SetupServiceError, match=text):
                await setups.create_setup(name="n", module_id="modules:m")
        with pytest.raises(SetupNotFoundError):
            await setups.get_setup("s")
        with pytest.raises(SetupServiceError, match="success=false"):
            await setups.update_setup("s", name="n")
        with pytest.raises(SetupNotFoundError):
            await setups.get_setup_version("v")
        with pytest.raises(SetupServiceError, match="no version"):
            await setups.update_setup_version("v", content={"n": 2}, version="2")
        with pytest.raises(SetupNotFoundError):  # it was removed between the two
            await setups.update_setup_version("v", content={"n": 2}, version="2")
        assert await setups.search_setup_versions(setup_id="s") == []


async def test_an_update_of_what_cannot_be_read_is_not_sent(autojump_clock: object) -> None:
    async with foreign(SetupServiceBase, get_setup=replies(Status.UNAVAILABLE)) as it:
        with pytest.raises(SetupServiceError) as caught:
            await GrpcSetup(providers=it.clients).update_setup("s", name="n")
        assert caught.value.status is Status.UNAVAILABLE
        assert it.asked("update_setup") == []


# --- user profiles ---------------------------------------------------------------------------------------------------


async def test_no_profile_is_none_and_an_outage_is_not(autojump_clock: object) -> None:
    answers = replies(
        GetUserProfileResponse(False, UserProfile(locale="fr")),
        GetUserProfileResponse(True),
        Status.NOT_FOUND,
        GetUserProfileResponse(True, UserProfile(locale="fr", creation_date=NOW - timedelta(days=1))),
        Status.UNAVAILABLE,
    )
    async with foreign(UserProfileServiceBase, get_user_profile=answers) as it:
        service = GrpcUserProfile("m", *IDS[1:], providers=it.clients)
        assert [await service.get_user_profile() for _ in range(3)] == [None, None, None]
        found = await service.get_user_profile()
        assert found is not None
        assert (found["locale"], found["creation_date"], found["credits"]) == ("fr", "2026-01-01T03:04:05.678901Z", [])
        with pytest.raises(UserProfileServiceError) as caught:
            await service.get_user_profile()
        assert caught.value.status is Status.UNAVAILABLE
        assert it.asked("get_user_profile")[0].mission_id == "missions:m"
