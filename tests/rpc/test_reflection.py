"""Reflection in both versions: against the protocol over memory, and against gRPC's own client over a socket."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module, resources
from pathlib import Path

import pytest
import trio
from google.protobuf import descriptor_pb2
from grpclib.const import Status
from tests._pb.dk_trio.test.v1 import EchoBase

from dk_trio import rpc
from dk_trio.pb.agentic_mesh_protocol.module.v1 import ModuleServiceBase, StartModuleRequest

from .wire_client import WireClient, connected

VERSIONS = ("v1", "v1alpha")
MODULE = "agentic_mesh_protocol.module.v1"


class Asker:
    """One reflection stream."""

    def __init__(self, client: WireClient, version: str) -> None:
        self.client = client
        self.package = f"grpc.reflection.{version}"
        self.messages = import_module(f"dk_trio.pb.{self.package}")
        self.call = None

    async def ask(self, **question):
        if self.call is None:
            path = f"/{self.package}.ServerReflection/ServerReflectionInfo"
            self.call = await self.client.call(path, end=False)
        request = self.messages.ServerReflectionRequest(host="test", **question)
        await self.call.send(request)
        while (data := self.call.next_message()) is None:
            await self.call.changed.wait()
        answer = self.messages.ServerReflectionResponse.FromString(data)
        assert answer.valid_host == "test"
        assert answer.original_request == request
        return answer

    async def files(self, **question) -> list[descriptor_pb2.FileDescriptorProto]:
        response = (await self.ask(**question)).file_descriptor_response
        return [descriptor_pb2.FileDescriptorProto.FromString(data) for data in response.file_descriptor_proto]

    async def error(self, **question) -> tuple[Status, str]:
        response = (await self.ask(**question)).error_response
        return Status(response.error_code), response.error_message


def reflected(*services, descriptors=()) -> rpc.Server:
    return rpc.Server([*services, *rpc.reflection(services, descriptors=descriptors)])


def custom_set() -> bytes:
    """Two files as a user might have them: proto2, with extensions, one inside a message."""
    base = descriptor_pb2.FileDescriptorProto(name="base.proto", package="dk_trio.test.v1")
    message = base.message_type.add(name="Extended")
    message.extension_range.add(start=100, end=200)
    file = descriptor_pb2.FileDescriptorProto(name="ext.proto", package="dk_trio.test.v1", dependency=["base.proto"])
    file.dependency.append("not/here.proto")
    for scope, name, number in ((file, "top", 100), (file.message_type.add(name="Scope"), "nested", 101)):
        scope.extension.add(name=name, number=number, extendee=".dk_trio.test.v1.Extended", type=5, label=1)
    service = file.service.add(name="Echo")
    service.method.add(name="Unary", input_type=".dk_trio.test.v1.Extended", output_type=".dk_trio.test.v1.Extended")
    return descriptor_pb2.FileDescriptorSet(file=[file, base]).SerializeToString()


@pytest.mark.parametrize("version", VERSIONS)
async def test_services_are_listed(autojump_clock, version):
    async with connected(reflected(ModuleServiceBase(), rpc.Health())) as client:
        answer = await Asker(client, version).ask(list_services="*")
        assert [service.name for service in answer.list_services_response.service] == [
            f"{MODULE}.ModuleService",
            "grpc.health.v1.Health",
            "grpc.reflection.v1.ServerReflection",
            "grpc.reflection.v1alpha.ServerReflection",
        ]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    "symbol",
    [
        f"{MODULE}.ModuleService",
        f"{MODULE}.ModuleService.StartModule",
        f"{MODULE}.StartModuleRequest",
        f"{MODULE}.StartModuleRequest.{next(iter(StartModuleRequest.__dataclass_fields__))}",
        "google.protobuf.Value.kind",
        "google.protobuf.NULL_VALUE",
        "grpc.health.v1.HealthCheckResponse.ServingStatus",
        "grpc.health.v1.HealthCheckResponse.NOT_SERVING",
    ],
)
async def test_symbols_lead_to_their_file_and_its_imports(autojump_clock, version, symbol):
    async with connected(reflected(ModuleServiceBase())) as client:
        files = await Asker(client, version).files(file_containing_symbol=symbol)
        names = [file.name for file in files]
        assert files[0].package == symbol[: len(files[0].package)]
        assert len(names) == len(set(names))
        assert {name for file in files for name in file.dependency} <= set(names)
        assert not any(file.HasField("source_code_info") for file in files)


async def test_files_by_name(autojump_clock):
    async with connected(reflected(ModuleServiceBase())) as client:
        asker = Asker(client, "v1")
        files = await asker.files(file_by_filename="google/protobuf/struct.proto")
        assert [file.name for file in files] == ["google/protobuf/struct.proto"]


@pytest.mark.parametrize("version", VERSIONS)
async def test_what_is_unknown_is_an_answer_not_a_failure(autojump_clock, version):
    async with connected(reflected(ModuleServiceBase())) as client:
        asker = Asker(client, version)
        extension = asker.messages.ExtensionRequest(containing_type="a.B", extension_number=7)
        for question, text in (
            ({"file_by_filename": "x.proto"}, "file 'x.proto' is not known here"),
            ({"file_containing_symbol": "a.B"}, "symbol 'a.B' is not known here"),
            ({"file_containing_symbol": ""}, "symbol '' is not known here"),
            ({"file_containing_extension": extension}, "extension 7 of 'a.B' is not known here"),
            ({"all_extension_numbers_of_type": "a.B"}, "message type 'a.B' is not known here"),
        ):
            assert await asker.error(**question) == (Status.NOT_FOUND, text)
        assert (await asker.error())[0] is Status.INVALID_ARGUMENT
        assert (await asker.ask(list_services="")).list_services_response is not None
        await asker.call.send_end()
        assert await asker.call.status() == (Status.OK, None)


@pytest.mark.parametrize("version", VERSIONS)
async def test_descriptors_of_ones_own(autojump_clock, version):
    async with connected(reflected(EchoBase(), descriptors=[custom_set()])) as client:
        asker = Asker(client, version)
        files = await asker.files(file_containing_symbol="dk_trio.test.v1.Echo.Unary")
        assert [file.name for file in files] == ["ext.proto", "base.proto"]  # what is not there is left out
        extended = "dk_trio.test.v1.Extended"
        for number, symbol in ((100, "top"), (101, "Scope.nested")):
            question = asker.messages.ExtensionRequest(containing_type=extended, extension_number=number)
            by_number = await asker.files(file_containing_extension=question)
            by_name = await asker.files(file_containing_symbol=f"dk_trio.test.v1.{symbol}")
            assert by_number[0].name == by_name[0].name == "ext.proto"
        answer = (await asker.ask(all_extension_numbers_of_type=extended)).all_extension_numbers_response
        assert (answer.base_type_name, sorted(answer.extension_number)) == (extended, [100, 101])
        answer = (
            await asker.ask(all_extension_numbers_of_type="google.protobuf.Struct")
        ).all_extension_numbers_response
        assert answer.extension_number == []  # known, and not extended


async def test_ones_own_version_of_a_file_counts(autojump_clock):
    mine = descriptor_pb2.FileDescriptorProto(name="google/protobuf/struct.proto", package="google.protobuf")
    mine.message_type.add(name="Mine")
    sets = [descriptor_pb2.FileDescriptorSet(file=[mine]).SerializeToString()]
    async with connected(reflected(ModuleServiceBase(), descriptors=sets)) as client:
        (file,) = await Asker(client, "v1").files(file_by_filename="google/protobuf/struct.proto")
        assert file == mine


async def test_services_without_descriptors_are_listed_all_the_same(autojump_clock):
    async with connected(reflected(EchoBase())) as client:
        asker = Asker(client, "v1")
        listed = (await asker.ask(list_services="")).list_services_response.service
        assert "dk_trio.test.v1.Echo" in [service.name for service in listed]
        assert (await asker.error(file_containing_symbol="dk_trio.test.v1.Echo"))[0] is Status.NOT_FOUND


def test_bytes_that_are_no_descriptors_are_refused_at_once():
    with pytest.raises(ValueError, match="4 bytes are not a serialised FileDescriptorSet: "):
        rpc.reflection([], descriptors=[b"\x0a\xff\xff\x01"])


def test_descriptors_are_loaded_when_asked_for():
    """Not by importing, not by making the services."""
    code = """
import sys
from dk_trio import rpc
services = rpc.reflection([])
print(repr(services[0]), [name for name in sys.modules if "reflection.v1" in name or name == "google.protobuf"])
print(services[0]._source._complete)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "<rpc.reflection grpc.reflection.v1 of 2 services> []\nFalse\n"


async def test_grpcs_own_client_over_a_socket():
    server = reflected(ModuleServiceBase(), rpc.Health())
    listeners = await rpc.open_tcp_listeners(0, host="127.0.0.1")
    command = [sys.executable, str(Path(__file__).with_name("reflection_peer.py"))]
    command.append(str(listeners[0].socket.getsockname()[1]))
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            await nursery.start(server.serve, listeners)
            done = await trio.run_process(command, capture_stdout=True)
            nursery.cancel_scope.cancel()
    learnt = json.loads(done.stdout)
    file = descriptor_pb2.FileDescriptorSet.FromString(
        resources.files("dk_trio.pb").joinpath("descriptors.bin").read_bytes()
    )
    (service,) = [each for part in file.file for each in part.service if each.name == "ModuleService"]
    assert learnt["methods"] == [method.name for method in service.method]
    assert learnt["fields"]
    assert learnt["absent"] == "KeyError"
    assert learnt["extensions"] == []
    assert len(learnt["services"]) == 4


def test_the_services_take_part_in_a_server_once():
    services = rpc.reflection([])
    assert len(services) == len(VERSIONS)
    with pytest.raises(ValueError, match="two services serve /grpc"):
        rpc.Server([*services, *rpc.reflection([])])
