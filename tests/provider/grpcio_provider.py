"""A services-provider that is not ours: grpcio's server, dicts in memory, gzip, and the contract without an extension.

    python grpcio_provider.py DESCRIPTORS [PORT]

It does what a provider may do and ours does not: it answers GetSignals at once, tells a job all that was ever said of
it again and again, its own words included, gives RegisterModule an empty answer, and has no ModuleRegistryService.
Prints `READY HOST:PORT`, then every call as one JSON object a line. It forgets everything when it is sent a line.
"""

import hashlib
import itertools
import json
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory

LEASE = 2.0  # seconds after which a module without heartbeats is not ACTIVE any more
PROFILED = "missions:profiled"
PREFIX = "agentic_mesh_protocol."


class Refused(Exception):
    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = grpc.StatusCode[code]


def found(table: dict[Any, Any], key: Any) -> Any:
    if key not in table:
        raise Refused("NOT_FOUND", f"nothing is known of {key}")
    return table[key]


def page(rows: list[Any], request: Any, size: int) -> list[Any]:
    return rows[request.offset :][: size or 100]


class Storage:
    service = "storage.v1.StorageService"

    def __init__(self) -> None:
        self.records: dict[tuple[str, str, str], Any] = {}

    @staticmethod
    def key(request: Any) -> tuple[str, str, str]:
        return request.context, request.collection, request.record_id

    def StoreRecord(self, request: Any, reply: Any) -> None:
        if self.key(request) in self.records:
            raise Refused("ALREADY_EXISTS", "there is such a record")
        record = reply.stored_data
        for name in ("context", "collection", "record_id", "data_type"):
            setattr(record, name, getattr(request, name))
        record.data.CopyFrom(request.data)
        record.creation_date.GetCurrentTime()
        record.update_date.CopyFrom(record.creation_date)
        self.records[self.key(request)] = record
        reply.success = True

    def ReadRecord(self, request: Any, reply: Any) -> None:
        reply.stored_data.CopyFrom(found(self.records, self.key(request)))
        reply.success = True

    def UpdateRecord(self, request: Any, reply: Any) -> None:
        record = found(self.records, self.key(request))
        record.data.CopyFrom(request.data)
        record.update_date.GetCurrentTime()
        reply.stored_data.CopyFrom(record)
        reply.success = True

    def RemoveRecord(self, request: Any, reply: Any) -> None:
        found(self.records, self.key(request))
        del self.records[self.key(request)]
        reply.success = True

    def ListRecords(self, request: Any, reply: Any) -> None:
        place = (request.context, request.collection)
        reply.records.extend(record for key, record in self.records.items() if key[:2] == place)

    def RemoveCollection(self, request: Any, reply: Any) -> None:
        place = (request.context, request.collection)
        kept = {key: record for key, record in self.records.items() if key[:2] != place}
        reply.success = len(kept) < len(self.records)
        self.records = kept


class Files:
    service = "filesystem.v1.FilesystemService"

    def __init__(self) -> None:
        self.files: dict[str, Any] = {}
        self.numbers = itertools.count(1)

    def UploadFiles(self, request: Any, reply: Any) -> None:
        for data in request.files:
            result = reply.results.add()
            taken = [row for row in self.files.values() if (row.context, row.name) == (data.context, data.name)]
            if taken and not data.replace_if_exists:
                result.error = "that name is taken"
                reply.total_failed += 1
                continue
            file = result.file
            file.file_id = taken[0].file_id if taken else f"files:{next(self.numbers)}"
            for name in ("context", "name", "file_type", "content_type", "content"):
                setattr(file, name, getattr(data, name))
            if data.HasField("metadata"):
                file.metadata.CopyFrom(data.metadata)
            file.status = 2
            self.measure(file)
            self.files[file.file_id] = type(file)()
            self.files[file.file_id].CopyFrom(file)
            file.content = b""
            reply.total_uploaded += 1

    @staticmethod
    def measure(file: Any) -> None:
        file.size_bytes = len(file.content)
        file.checksum = hashlib.sha256(file.content).hexdigest()
        file.storage_uri = file.file_url = f"memory://{file.file_id}"

    def file(self, request: Any) -> Any:
        file = found(self.files, request.file_id)
        if file.context != request.context:
            raise Refused("NOT_FOUND", f"{file.file_id} is not of {request.context}")
        return file

    def GetFile(self, request: Any, reply: Any) -> None:
        reply.file.CopyFrom(self.file(request))
        if not request.include_content:
            reply.file.content = b""

    def matching(self, filters: Any) -> list[Any]:
        return [
            file
            for file in self.files.values()
            if file.context == filters.context
            and (not filters.names or file.name in filters.names)
            and (not filters.file_ids or file.file_id in filters.file_ids)
            and (not filters.file_types or file.file_type in filters.file_types)
            and filters.status in {0, file.status}
            and filters.content_type in {"", file.content_type}
            and file.content_type.startswith(filters.content_type_prefix)
            and filters.min_size_bytes <= file.size_bytes <= (filters.max_size_bytes or file.size_bytes)
            and file.name.startswith(filters.prefix)
        ]

    def GetFiles(self, request: Any, reply: Any) -> None:
        rows = self.matching(request.filters)
        reply.files.extend(page(rows, request, request.list_size))
        reply.total_count = len(rows)
        for file in () if request.include_content else reply.files:
            file.content = b""

    def UpdateFile(self, request: Any, reply: Any) -> None:
        file = self.file(request)
        file.name = request.new_name or file.name
        for name in ("file_type", "content_type", "content", "status"):
            setattr(file, name, getattr(request, name) or getattr(file, name))
        if request.HasField("metadata"):
            file.metadata.CopyFrom(request.metadata)
        self.measure(file)
        reply.result.file.CopyFrom(file)

    def DeleteFiles(self, request: Any, reply: Any) -> None:
        for file in self.matching(request.filters):
            del self.files[file.file_id]
            reply.results[file.file_id] = True
            reply.total_deleted += 1


class Costs:
    service = "cost.v1.CostService"

    def __init__(self) -> None:
        self.costs: list[Any] = []
        self.prices: dict[str, list[Any]] = {}

    def AddCost(self, request: Any, reply: Any) -> None:
        self.costs.append(request)
        reply.success = True

    def GetCost(self, request: Any, reply: Any) -> None:
        self.tell(
            [row for row in self.costs if (row.mission_id, row.name) == (request.mission_id, request.name)], reply
        )

    def GetCosts(self, request: Any, reply: Any) -> None:
        names, types = request.filter.names, request.filter.cost_types
        rows = [
            row
            for row in self.costs
            if row.mission_id == request.mission_id
            and (not names or row.name in names)
            and (not types or row.cost_type in types)
        ]
        reply.total_count = len(rows)
        self.tell(page(rows, request, request.limit), reply)

    @staticmethod
    def tell(rows: list[Any], reply: Any) -> None:
        for row in rows:
            reply.costs.add().ParseFromString(row.SerializeToString())  # the same fields under the same numbers
        reply.total_cost = sum(row.cost for row in rows)

    def GetCostConfig(self, request: Any, reply: Any) -> None:
        reply.configs.extend(self.prices.get(request.setup_version_id, []))
        reply.success = True

    def SetCostConfig(self, request: Any, reply: Any) -> None:
        self.prices[request.setup_version_id] = list(request.configs)
        reply.success = True


class Profiles:
    service = "user_profile.v1.UserProfileService"

    def GetUserProfile(self, request: Any, reply: Any) -> None:
        if request.mission_id == PROFILED:
            names = {"user_id": "users:1", "email": "a@b.example", "first_name": "Ada", "locale": "en"}
            json_format.ParseDict(
                {"success": True, "user_profile": {**names, "credits": [{"source": "gift", "remaining": 1.5}]}}, reply
            )


class Setups:
    service = "setup.v1.SetupService"

    def __init__(self) -> None:
        self.setups: dict[str, Any] = {}
        self.versions: dict[str, Any] = {}
        self.numbers = itertools.count(1)

    def CreateSetup(self, request: Any, reply: Any) -> None:
        setup = reply.setup
        setup.id = f"setups:{next(self.numbers)}"
        for name in ("name", "organisation_id", "owner_id", "module_id", "status"):
            setattr(setup, name, getattr(request, name))
        if request.HasField("current_setup_version"):
            self.add(setup.id, request.current_setup_version, setup.current_setup_version)
        self.setups[setup.id] = setup
        reply.success = True

    def add(self, setup_id: str, told: Any, version: Any) -> None:
        version.id = f"setup_versions:{next(self.numbers)}"
        version.setup_id = setup_id
        version.version = told.version
        version.content.CopyFrom(told.content)
        version.creation_date.GetCurrentTime()
        self.versions[version.id] = version

    def GetSetup(self, request: Any, reply: Any) -> None:
        reply.setup.CopyFrom(found(self.setups, request.setup_id))

    def ListSetups(self, request: Any, reply: Any) -> None:
        rows = [
            row
            for row in self.setups.values()
            if all(getattr(row, field.name) == value for field, value in request.ListFields() if "_id" in field.name)
        ]
        reply.setups.extend(page(rows, request, request.limit))
        reply.total_count = len(rows)

    def UpdateSetup(self, request: Any, reply: Any) -> None:
        setup = found(self.setups, request.setup_id)
        setup.name = request.name
        setup.status = request.status
        setup.owner_id = request.owner_id or setup.owner_id
        if request.HasField("current_setup_version"):
            setup.current_setup_version.CopyFrom(request.current_setup_version)
        reply.setup.CopyFrom(setup)
        reply.success = True

    def DeleteSetup(self, request: Any, reply: Any) -> None:
        found(self.setups, request.setup_id)
        del self.setups[request.setup_id]
        self.versions = {key: row for key, row in self.versions.items() if row.setup_id != request.setup_id}
        reply.success = True

    def CreateSetupVersion(self, request: Any, reply: Any) -> None:
        found(self.setups, request.setup_id)
        self.add(request.setup_id, request, reply.setup_version)
        reply.success = True

    def GetSetupVersion(self, request: Any, reply: Any) -> None:
        reply.setup_version.CopyFrom(found(self.versions, request.setup_version_id))

    def SearchSetupVersions(self, request: Any, reply: Any) -> None:
        reply.setup_versions.extend(
            row
            for row in self.versions.values()
            if request.setup_id in {"", row.setup_id} and request.version in {"", row.version}
        )

    def UpdateSetupVersion(self, request: Any, reply: Any) -> None:
        version = found(self.versions, request.setup_version_id)
        version.version = request.version
        version.content.CopyFrom(request.content)
        current = self.setups[version.setup_id].current_setup_version
        if current.id == version.id:
            current.CopyFrom(version)
        reply.setup_version.CopyFrom(version)
        reply.success = True

    def DeleteSetupVersion(self, request: Any, reply: Any) -> None:
        found(self.versions, request.setup_version_id)
        del self.versions[request.setup_version_id]
        reply.success = True


class Registry:
    service = "registry.v1.RegistryService"

    def __init__(self, setups: Setups) -> None:
        self.setups = setups
        self.modules: dict[str, Any] = {}
        self.heard: dict[str, float] = {}

    def RegisterModule(self, request: Any, reply: Any) -> None:
        module = type(reply.module)()
        module.id = module.name = request.module_id
        for name in ("address", "port", "version"):
            setattr(module, name, getattr(request, name))
        self.modules[module.id] = module
        self.heard[module.id] = time.monotonic()

    def described(self, module_id: str) -> Any:
        module = found(self.modules, module_id)
        module.status = 2 if time.monotonic() - self.heard[module_id] < LEASE else 1
        return module

    def Heartbeat(self, request: Any, reply: Any) -> None:
        found(self.modules, request.module_id)
        self.heard[request.module_id] = time.monotonic()
        reply.status = self.described(request.module_id).status

    def GetModule(self, request: Any, reply: Any) -> None:
        reply.CopyFrom(self.described(request.module_id))

    def DiscoverModules(self, request: Any, reply: Any) -> None:
        rows = [self.described(module_id) for module_id in self.modules if request.query.lower() in module_id]
        reply.modules.extend(page(rows, request, request.limit))

    def GetSetup(self, request: Any, reply: Any) -> None:
        setup = found(self.setups.setups, request.setup_id)
        reply.id, reply.name, reply.module_id = setup.id, setup.name, setup.module_id
        reply.config.CopyFrom(setup.current_setup_version.content)


class Tasks:
    service = "task_manager.v1.TaskManagerService"

    def __init__(self) -> None:
        self.tasks: list[Any] = []

    def SendSignals(self, request: Any, reply: Any) -> None:
        self.tasks.extend(request.tasks)
        reply.tasks.extend(request.tasks)
        reply.success = True

    def GetSignals(self, request: Any, reply: Any) -> None:
        reply.tasks.extend(task for task in self.tasks if task.task_id in request.task_ids)


class Services(grpc.GenericRpcHandler):
    """All of them, which can be made anew."""

    def __init__(self, descriptors: bytes) -> None:
        self.pool = descriptor_pool.DescriptorPool()
        for file in descriptor_pb2.FileDescriptorSet.FromString(descriptors).file:
            self.pool.Add(file)
        self.lock = threading.Lock()
        self.forget()

    def forget(self) -> None:
        """As if nothing had been called yet."""
        setups = Setups()
        table = {}
        for servicer in (Storage(), Files(), Costs(), Profiles(), setups, Registry(setups), Tasks()):
            service = PREFIX + servicer.service
            for method in self.pool.FindServiceByName(service).methods_by_name.values():
                if hasattr(servicer, method.name):
                    table[f"/{service}/{method.name}"] = handler(method, getattr(servicer, method.name), self.lock)
        self.table = table

    def service(self, call: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        return self.table.get(call.method)


def handler(method: Any, serve: Callable[[Any, Any], None], lock: threading.Lock) -> grpc.RpcMethodHandler:
    request_type, reply_type = map(message_factory.GetMessageClass, (method.input_type, method.output_type))

    def answer(request: Any, context: grpc.ServicerContext) -> Any:
        reply = reply_type()
        with lock:
            tell(method, request, context)
            try:
                serve(request, reply)
            except Refused as error:
                context.abort(error.code, str(error))
            return reply

    return grpc.unary_unary_rpc_method_handler(answer, request_type.FromString, reply_type.SerializeToString)


def tell(method: Any, request: Any, context: grpc.ServicerContext) -> None:
    asked = json_format.MessageToDict(request, preserving_proto_field_name=True)
    for file in asked.get("files", ()):
        file["content"] = len(file.get("content", ""))
    told = {"method": method.name, "request": asked, "seconds": context.time_remaining(), "at": time.time()}
    print(json.dumps(told), flush=True)


def main(descriptors: str, port: str = "0") -> None:
    server = grpc.server(ThreadPoolExecutor(8), compression=grpc.Compression.Gzip)
    services = Services(Path(descriptors).read_bytes())
    server.add_generic_rpc_handlers((services,))
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    print(f"READY 127.0.0.1:{bound}", flush=True)
    for _ in sys.stdin:
        services.forget()
        print("FORGOTTEN", flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    main(*sys.argv[1:])
