"""What the sample with health and reflection offers, as the official Python clients of both see it."""

from collections.abc import Callable

import grpc
import health_and_reflection
import pytest
import trio
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase


async def ask(question: Callable[[grpc.Channel], object]) -> object:
    """Serve the sample, and run a blocking client of it in a thread."""
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(health_and_reflection.main, 0)
            host, port = listeners[0].socket.getsockname()

            def call() -> object:
                with grpc.insecure_channel(f"{host}:{port}") as channel:
                    return question(channel)

            answer = await trio.to_thread.run_sync(call)
            nursery.cancel_scope.cancel()
    return answer


@pytest.mark.parametrize(("service", "status"), [("", "SERVING"), ("readiness", "NOT_SERVING")])
async def test_health(service: str, status: str) -> None:
    def question(channel: grpc.Channel) -> str:
        request = health_pb2.HealthCheckRequest(service=service)
        reply = health_pb2_grpc.HealthStub(channel).Check(request, timeout=10)
        return health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status)

    assert await ask(question) == status


async def test_reflection() -> None:
    def question(channel: grpc.Channel) -> tuple[set[str], list[str]]:
        database = ProtoReflectionDescriptorDatabase(channel)
        services = set(database.get_services())
        greeter = DescriptorPool(database).FindServiceByName("greeter.v1.Greeter")
        return services, [method.name for method in greeter.methods]

    services, methods = await ask(question)
    assert {"greeter.v1.Greeter", "grpc.health.v1.Health"} <= services
    assert methods == ["Hello", "Repeat", "Together", "Each"]
