"""What is tried with grpcio's client alone: health, reflection, keepalive, a server that drains.

A feature takes a channel. It may `note` a stage that it has reached, so that the test can act while it goes on.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from .caller import SERVICE
from .cases import LARGE_REQUEST
from .grpcio_sync import CALL_TIMEOUT, SyncCaller, run_blocking

FEATURES: dict[str, Callable[[grpc.Channel, Any], None]] = {}
EXPECTED_SERVICES = {
    SERVICE,
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
}


def feature(function: Callable[[grpc.Channel, Any], None]) -> Callable[[grpc.Channel, Any], None]:
    """Add a feature to the table under its own name."""
    FEATURES[function.__name__] = function
    return function


def note(text: str) -> None:
    """Tell the test that a stage was reached."""
    print("NOTE", text, flush=True)


class States:
    """The connectivity states of a channel, as they come; ones that pass quickly may never be seen."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.seen: list[grpc.ChannelConnectivity] = []
        self._changed = threading.Condition()
        channel.subscribe(self._add)

    def _add(self, state: grpc.ChannelConnectivity) -> None:
        with self._changed:
            self.seen.append(state)
            self._changed.notify_all()

    def wait(self, *, ready: bool) -> None:
        """Wait until the channel is ready, or no longer so."""
        with self._changed:
            wanted = self._changed.wait_for(
                lambda: bool(self.seen) and (self.seen[-1] is grpc.ChannelConnectivity.READY) is ready, CALL_TIMEOUT
            )
            assert wanted, self.seen


@feature
def health_check(channel: grpc.Channel, messages: Any) -> None:
    stub = health_pb2_grpc.HealthStub(channel)
    for service in ("", "readiness"):
        response = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=CALL_TIMEOUT)
        assert response.status == health_pb2.HealthCheckResponse.SERVING
    try:
        stub.Check(health_pb2.HealthCheckRequest(service="no.such"), timeout=CALL_TIMEOUT)
    except grpc.RpcError as error:
        assert error.code() is grpc.StatusCode.NOT_FOUND, error
    else:
        raise AssertionError("an unknown service has a health")


@feature
def health_watch(channel: grpc.Channel, messages: Any) -> None:
    stub = health_pb2_grpc.HealthStub(channel)
    unknown = stub.Watch(health_pb2.HealthCheckRequest(service="no.such"), timeout=CALL_TIMEOUT)
    assert next(unknown).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
    unknown.cancel()
    watch = stub.Watch(health_pb2.HealthCheckRequest(service="readiness"), timeout=CALL_TIMEOUT)
    assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
    note("serving")
    assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
    note("not serving")
    assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
    watch.cancel()


@feature
def reflection_v1alpha(channel: grpc.Channel, messages: Any) -> None:
    database = ProtoReflectionDescriptorDatabase(channel)
    assert set(database.get_services()) == EXPECTED_SERVICES
    pool = DescriptorPool(database)
    service = pool.FindServiceByName(SERVICE)
    method = service.methods_by_name["FullDuplexCall"]
    assert (method.client_streaming, method.server_streaming) == (True, True)
    assert method.input_type.fields_by_name["response_parameters"].message_type.full_name == (
        "grpc.testing.ResponseParameters"
    )
    assert pool.FindServiceByName("grpc.health.v1.Health").methods_by_name["Watch"].server_streaming


@feature
def reflection_v1(channel: grpc.Channel, messages: Any) -> None:
    """grpcio-reflection knows v1alpha only; v1 has the same messages under another name."""
    call = channel.stream_stream(
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    requests = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol=SERVICE),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="no.such.Symbol"),
    ]
    services, files, nothing = call(iter(requests), timeout=CALL_TIMEOUT)
    assert {service.name for service in services.list_services_response.service} == EXPECTED_SERVICES
    assert files.file_descriptor_response.file_descriptor_proto
    assert nothing.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]


@feature
def keepalive(channel: grpc.Channel, messages: Any) -> None:
    """The channel's options ask for a ping after 100 ms of silence, so there are six, more than grpcio's server allows.

    A server that took offence would say GOAWAY, and the channel would leave READY.
    """
    states = States(channel)
    call = SyncCaller(channel, messages, server_sees_compression=True).multicallable("StreamingOutputCall")
    parameters = [messages.ResponseParameters(size=1, interval_us=300_000)] * 6
    responses = call(messages.StreamingOutputCallRequest(response_parameters=parameters), timeout=CALL_TIMEOUT)
    assert len(list(responses)) == 6
    later = set(states.seen[states.seen.index(grpc.ChannelConnectivity.READY) :])
    assert later == {grpc.ChannelConnectivity.READY}, states.seen


@feature
def compressed_by_default(channel: grpc.Channel, messages: Any) -> None:
    """The channel compresses everything; the server checks that it does."""
    caller = SyncCaller(channel, messages, server_sees_compression=True)
    request = messages.SimpleRequest(
        payload=messages.Payload(body=bytes(LARGE_REQUEST)), expect_compressed=messages.BoolValue(value=True)
    )
    run_blocking(caller.unary("UnaryCall", request))


@feature
def drain(channel: grpc.Channel, messages: Any) -> None:
    """A call in flight goes on while its server drains; a new one fails, there is no other server."""
    states = States(channel)
    caller = SyncCaller(channel, messages, server_sees_compression=True)

    async def talk() -> None:
        async with caller.call("FullDuplexCall") as call:
            await ping(call, messages)
            states.wait(ready=True)
            note("in flight")
            states.wait(ready=False)
            try:
                await caller.unary("EmptyCall", messages.Empty())
            except Exception as error:  # noqa: BLE001  whatever it is, it is shown
                assert str(error).startswith("UNAVAILABLE"), error
            else:
                raise AssertionError("a draining server took a new call")
            for _ in range(3):
                await ping(call, messages)
            await call.end()
            assert await call.receive() is None

    run_blocking(talk())


@feature
def drain_to_other(channel: grpc.Channel, messages: Any) -> None:
    """With a second address the calls in flight go on at the first, the new ones go to the second."""
    caller = SyncCaller(channel, messages, server_sees_compression=True)
    unary = caller.multicallable("UnaryCall")

    def server() -> str:
        request = messages.SimpleRequest(fill_server_id=True)
        return unary(request, timeout=CALL_TIMEOUT, wait_for_ready=True).server_id

    async def talk() -> None:
        states = States(channel)
        first = server()
        async with caller.call("FullDuplexCall") as call:
            await ping(call, messages)
            states.wait(ready=True)
            note("in flight")
            states.wait(ready=False)
            assert server() != first
            for _ in range(3):
                await ping(call, messages)
            await call.end()
            assert await call.receive() is None

    run_blocking(talk())


async def ping(call: Any, messages: Any) -> None:
    """Exchange one message each way."""
    parameters = [messages.ResponseParameters(size=5)]
    await call.send(messages.StreamingOutputCallRequest(response_parameters=parameters))
    assert len((await call.receive()).payload.body) == 5
