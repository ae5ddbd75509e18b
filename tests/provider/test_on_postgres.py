"""The provider on PostgreSQL: the same statements mean the same."""

import json
from pathlib import Path
from typing import Any

import pytest
import trio
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from dk_trio.extensions import COST_LIMITS
from dk_trio.pb.agentic_mesh_protocol.cost.v1 import (
    AddCostRequest,
    CostConfig,
    CostFilter,
    CostServiceStub,
    CostType,
    GetCostConfigRequest,
    GetCostRequest,
    GetCostsRequest,
    SetCostConfigRequest,
)
from dk_trio.pb.agentic_mesh_protocol.filesystem.v1 import (
    DeleteFilesRequest,
    FileFilter,
    FileStatus,
    FilesystemServiceStub,
    FileType,
    GetFileRequest,
    GetFilesRequest,
    UpdateFileRequest,
    UploadFileData,
    UploadFilesRequest,
)
from dk_trio.pb.agentic_mesh_protocol.storage.v1 import (
    DataType,
    ListRecordsRequest,
    ReadRecordRequest,
    RemoveRecordRequest,
    StorageServiceStub,
    StoreRecordRequest,
    UpdateRecordRequest,
)
from dk_trio.pb.agentic_mesh_protocol.user_profile.v1 import (
    CreditLot,
    GetUserProfileRequest,
    UserProfile,
    UserProfileServiceStub,
)
from dk_trio.pb.dk_trio.provider.v1 import ProviderServiceStub, PutUserProfileRequest
from dk_trio.pb.google.protobuf import Struct
from dk_trio.services.stores.open import open_database

from .calls import keyed, told
from .kit import provided

M, V = "missions:m", "setup_versions:v"
TIMEOUT = 60.0
ODD = "Ünï — '; DROP TABLE records; -- \\ \x01 \U0001f600"  # of what a name may hold


async def test_records(postgres_url: str, tmp_path: Path) -> None:
    data = {"text": "a\0b", "n": 0.1, "big": 2.0**70, "list": [None, True, {"ü": 1.5}]}
    place = ("missions:" + ODD, ODD, ODD)
    request = StoreRecordRequest(Struct.from_dict(data), *place, DataType.LOGS)
    with trio.fail_after(TIMEOUT):
        async with provided(database=open_database(postgres_url, directory=tmp_path)) as peer:
            stub = StorageServiceStub(peer.channel)
            stored: Any = (await stub.store_record(request, metadata=keyed("k"))).stored_data
            assert (await stub.store_record(request, metadata=keyed("k"))).stored_data == stored
            with pytest.raises(GRPCError) as caught:
                await stub.store_record(request)
            assert told(caught.value)[:2] == (Status.ALREADY_EXISTS, "RECORD_EXISTS")
            read: Any = (await stub.read_record(ReadRecordRequest(*place))).stored_data
            assert read == stored
            assert read.data.to_dict() == data
            await stub.update_record(UpdateRecordRequest(Struct.from_dict({"x": 1}), *place))
            async with trio.open_nursery() as nursery:
                for number in range(250):
                    more = StoreRecordRequest(Struct.from_dict({}), *place[:2], f"r{number}", DataType.OTHER)
                    nursery.start_soon(stub.store_record, more)
            listed = (await stub.list_records(ListRecordsRequest(*place[:2]))).records
            assert len(listed) == 251
            assert (await stub.remove_record(RemoveRecordRequest(*place))).success
            longest = ("x" * 768, "y" * 768, "z" * 768)  # is one key of an index
            assert (await stub.store_record(StoreRecordRequest(Struct.from_dict({}), *longest, DataType.VIEW))).success


async def test_costs(postgres_url: str, tmp_path: Path) -> None:
    def cost(name: str, kind: CostType = CostType.TIME) -> AddCostRequest:
        return AddCostRequest(0.1, M, name, kind, "s", 0.1, V, 1.0)

    with trio.fail_after(TIMEOUT):
        async with provided(database=open_database(postgres_url, directory=tmp_path)) as peer:
            stub = CostServiceStub(peer.channel)
            limit = {"field": "f", "limit": {"limit_type": "amount", "max_value": 1, "scope": "mission"}}
            metadata = {COST_LIMITS: json.dumps([limit]).encode()}
            refused = 0

            async def add() -> None:
                nonlocal refused
                try:
                    await stub.add_cost(cost(ODD), metadata=metadata)
                except GRPCError as error:
                    assert error.status is Status.FAILED_PRECONDITION
                    refused += 1

            async with trio.open_nursery() as nursery:
                for _ in range(25):
                    nursery.start_soon(add)
            assert refused == 15
            reply = await stub.get_cost(GetCostRequest(M, ODD))
            assert (len(reply.costs), reply.total_cost) == (10, 1.0)
            await stub.add_cost(cost("other", CostType.STORAGE))
            wanted = CostFilter(names=["other", "none"], cost_types=[CostType.STORAGE], setup_version_ids=[V])
            page = await stub.get_costs(GetCostsRequest(M, wanted, limit=5))
            assert (page.total_count, page.total_cost, len(page.costs)) == (1, 0.1, 1)
            page = await stub.get_costs(GetCostsRequest(M, limit=3, offset=9))
            assert (page.total_count, page.total_cost, len(page.costs)) == (11, 1.1, 2)
            prices = [CostConfig(ODD, CostType.OTHER, "", "u", 0.3)]
            for _ in range(2):
                await stub.set_cost_config(SetCostConfigRequest(V, prices))
            assert (await stub.get_cost_config(GetCostConfigRequest(V))).configs == prices


async def test_files(postgres_url: str, tmp_path: Path) -> None:
    content = bytes(range(256)) * 2000
    with trio.fail_after(TIMEOUT):
        database = open_database(postgres_url, directory=tmp_path)
        async with provided(database=database, directory=tmp_path) as peer:
            stub = FilesystemServiceStub(peer.channel)
            files = [
                UploadFileData(M, name, FileType.OTHER, "x/y", content, status=FileStatus.ACTIVE)
                for name in ("Ünï — '; --", "b", "c")
            ]
            reply = await stub.upload_files(UploadFilesRequest(files), metadata=keyed("k"))
            assert reply.total_uploaded == 3
            assert await stub.upload_files(UploadFilesRequest(files), metadata=keyed("k")) == reply
            assert len(list((tmp_path / "files").iterdir())) == 1  # one content for the three of them
            ids = [result.file.file_id for result in reply.results if result.file]
            got: Any = (await stub.get_file(GetFileRequest(M, ids[0], include_content=True))).file
            assert got.content == content
            update = UpdateFileRequest(M, ids[1], new_name="bb", content=b"new")
            for _ in range(2):
                await stub.update_file(update, metadata=keyed("u"))
            filters = FileFilter(context=M, prefix="b", min_size_bytes=1, max_size_bytes=10, file_ids=ids)
            page = await stub.get_files(GetFilesRequest(M, filters, 10, order="name desc"))
            assert [(file.name, file.size_bytes) for file in page.files] == [("bb", 3)]
            delete = DeleteFilesRequest(M, FileFilter(context=M), permanent=True)
            assert (await stub.delete_files(delete)).total_deleted == 3
            assert list((tmp_path / "files").iterdir()) == []


async def test_profiles(postgres_url: str, tmp_path: Path) -> None:
    metadata = Struct.from_dict({"text": "a\0b", "n": 1e300})
    profile = UserProfile(first_name=ODD + "\0", credits=[CreditLot(total=2**62)], metadata=metadata)
    asked = GetUserProfileRequest(mission_id="missions:" + ODD)
    with trio.fail_after(TIMEOUT):
        async with provided(database=open_database(postgres_url, directory=tmp_path)) as peer:
            told, put = UserProfileServiceStub(peer.channel), ProviderServiceStub(peer.channel)
            for replaced in (False, True):
                for _ in range(2):
                    request = PutUserProfileRequest(ODD, profile)
                    reply = await put.put_user_profile(request, metadata=keyed(str(replaced)))
                    assert reply.replaced is replaced
            assert (await told.get_user_profile(asked)).user_profile == profile
