"""Calls of ModuleService by grpcio and google.protobuf, which know the contract's descriptors and nothing of ours."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import trio
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

import dk_trio

SERVICE = "agentic_mesh_protocol.module.v1.ModuleService"
PATIENCE = 30.0  # seconds for a call that has no deadline of its own
RETRIES = {
    "methodConfig": [
        {
            "name": [{}],
            "retryPolicy": {
                "maxAttempts": 5,
                "initialBackoff": "0.1s",
                "maxBackoff": "1s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ]
}
RETRYING = [
    ("grpc.service_config", json.dumps(RETRIES)),
    ("grpc.enable_retries", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
]


@dataclass
class Told:
    """What a call gave."""

    code: str
    details: str
    messages: list[dict[str, Any]] = field(default_factory=list)

    def roots(self, protocol: str) -> list[dict[str, Any]]:
        found = [message["output"]["root"] for message in self.messages if "root" in message.get("output", {})]
        return [root for root in found if root["protocol"] == protocol]


class Peer:
    """One channel, with a connection of its own."""

    def __init__(self, channel: grpc.Channel, pool: descriptor_pool.DescriptorPool) -> None:
        self.channel = channel
        self._pool = pool

    def call(
        self,
        method: str,
        request: dict[str, Any] | None = None,
        *,
        service: str = SERVICE,
        metadata: Sequence[tuple[str, str]] = (),
        timeout: float = PATIENCE,
        then: Callable[[grpc.Call], object] = lambda _: None,
    ) -> Told:
        """Make a call to its end; `then` gets it after each message."""
        kind = self._pool.FindServiceByName(service).methods_by_name[method]
        sent, received = (message_factory.GetMessageClass(it) for it in (kind.input_type, kind.output_type))
        stub = (self.channel.unary_stream if kind.server_streaming else self.channel.unary_unary)(
            f"/{service}/{method}",
            request_serializer=sent.SerializeToString,
            response_deserializer=received.FromString,
        )
        message = json_format.ParseDict(request or {}, sent())
        messages = []
        try:
            if kind.server_streaming:
                call = stub(message, timeout=timeout, metadata=metadata)
                for response in call:
                    messages.append(json_format.MessageToDict(response, preserving_proto_field_name=True))
                    then(call)
            else:
                response, call = stub.with_call(message, timeout=timeout, metadata=metadata)
                messages.append(json_format.MessageToDict(response, preserving_proto_field_name=True))
        except grpc.RpcError as error:
            call = error
        return Told(call.code().name, call.details(), messages)

    def start(self, setup_id: str, /, *, metadata: Sequence[tuple[str, str]] = (), **root: Any) -> Told:
        """StartModule with an input of the protocol `message`, unless it says another one."""
        return self.call("StartModule", start(setup_id, **root), metadata=metadata)

    def raw(self, path: str, data: bytes, metadata: Sequence[tuple[str, str]] = ()) -> str:
        """Send bytes to a path; the code."""
        try:
            self.channel.unary_unary(path)(data, metadata=metadata, timeout=PATIENCE)
        except grpc.RpcError as error:
            return str(error.code().name)
        return "OK"

    def health(self, name: str) -> str:
        """As a probe asks."""
        try:
            reply = health_pb2_grpc.HealthStub(self.channel).Check(
                health_pb2.HealthCheckRequest(service=name), timeout=PATIENCE
            )
        except grpc.RpcError as error:
            return str(error.code().name)
        return str(health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status))

    def services(self) -> list[str]:
        """By reflection."""
        return sorted(ProtoReflectionDescriptorDatabase(self.channel).get_services())


def start(setup_id: str, /, **root: Any) -> dict[str, Any]:
    """A StartModuleRequest."""
    return {
        "input": {"root": {"protocol": "message", **root}},
        "setup_id": setup_id,
        "mission_id": "missions:m",
    }


@contextmanager
def connected(address: str, *options: tuple[str, Any]) -> Iterator[Peer]:
    """A peer with a connection that it shares with no other one."""
    pool = descriptor_pool.DescriptorPool()
    descriptors = Path(dk_trio.__file__).parent / "pb" / "descriptors.bin"
    for file in descriptor_pb2.FileDescriptorSet.FromString(descriptors.read_bytes()).file:
        pool.Add(file)
    own = ("grpc.use_local_subchannel_pool", 1)
    with grpc.insecure_channel(address, options=[own, *options]) as channel:
        yield Peer(channel, pool)


async def aside(do: Callable[..., Any], *arguments: Any) -> Any:
    """Run what blocks in a thread."""
    return await trio.to_thread.run_sync(do, *arguments, abandon_on_cancel=True)
