"""What variables of the server's layer change, from the environment to what a connection sees."""

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Annotated, Any

import pytest
import trio
import trio.testing
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from tests.module.remote_kit import REMOTE, Network, module, wall_clock
from tests.module.sample import Input, Message, Output, module_class, module_with
from tests.module.served import outputs_of, served
from tests.module.service_kit import WAIT, serving, settings_of, start
from tests.provider.kit import provided
from tests.rpc.wire_client import WireClient, connected

from dk_trio import ModuleClient, ModuleServer, Settings
from dk_trio.module import Dynamic, SetupModel, TriggerHandler, TrioModule
from dk_trio.pb.agentic_mesh_protocol.module.v1 import GetModuleInputRequest
from dk_trio.pb.grpc.health.v1 import HealthCheckRequest

SCHEMA = "/agentic_mesh_protocol.module.v1.ModuleService/GetModuleInput"
HEALTH = "/grpc.health.v1.Health/Check"
REFLECTION = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"


async def repeats(self: Any, input_data: Any, setup_data: Any, context: Any) -> None:
    await context.send(Message(text=input_data.text * 10))


@asynccontextmanager
async def wired(environ: dict[str, str], **options: Any) -> AsyncIterator[WireClient]:
    """A connection to a server with these variables, frame by frame."""
    server = ModuleServer(module_with(repeats), settings=Settings.from_environment(environ | {"SERVICE_MODE": "local"}))
    async with server.opened(), connected(server, **options) as client:
        yield client


async def status_of(client: WireClient, path: str) -> Status:
    call = await client.call(path, HealthCheckRequest())
    return (await call.status())[0]


@pytest.mark.parametrize("name", ["RECEIVE", "SEND"])
@pytest.mark.parametrize("limit", ["2000", "200000"])
async def test_max_message_length(autojump_clock: object, name: str, limit: str) -> None:
    settings = Settings.from_environment({f"SERVER_GRPC_OPTIONS_MAX_{name}_MESSAGE_LENGTH": limit})
    text = "x" * (5000 if name == "RECEIVE" else 500)  # the answer is ten times as long
    async with served(module_with(repeats), settings=settings) as (_, client):
        if limit == "200000":
            assert len(await outputs_of(client, {"protocol": "message", "text": text})) == 3
            return
        with pytest.raises(GRPCError) as caught:
            await outputs_of(client, {"protocol": "message", "text": text})
        # The caller has sent too much, or the module has.
        assert caught.value.status is (Status.RESOURCE_EXHAUSTED if name == "RECEIVE" else Status.INTERNAL)
        assert "is over the limit of 2000 bytes" in str(caught.value.message)


@pytest.mark.parametrize(
    ("variable", "path"), [("SERVER_HEALTH_CHECK", HEALTH), ("SERVER_REFLECTION", REFLECTION)], ids=["health", "tools"]
)
async def test_services_that_can_be_switched_off(autojump_clock: object, variable: str, path: str) -> None:
    for switch, status in (("true", Status.OK), ("false", Status.UNIMPLEMENTED)):
        async with wired({variable: switch}) as client:
            assert await status_of(client, path) is status


@pytest.mark.parametrize("compression", ["none", "gzip", "deflate"])
async def test_compression(autojump_clock: object, compression: str) -> None:
    fields = [(b"grpc-accept-encoding", b"identity,gzip,deflate")]
    async with wired({"SERVER_GRPC_COMPRESSION": compression}, fields=fields) as client:
        call = await client.call(SCHEMA, GetModuleInputRequest(), timeout=None)
        await call.headers()
        encoding = dict(call.head.fields).get("grpc-encoding", "identity")
        assert encoding == ("identity" if compression == "none" else compression)


async def test_keepalive(autojump_clock: object) -> None:
    times = {"KEEPALIVE_TIME": "30000", "KEEPALIVE_TIMEOUT": "4000"}
    async with wired({f"SERVER_GRPC_OPTIONS_{name}": value for name, value in times.items()}) as client:
        client.answer_pings = False
        began = trio.current_time()
        await status_of(client, HEALTH)
        await client.lost.wait()
        assert trio.current_time() - began == pytest.approx(34)


@pytest.mark.parametrize(("interval", "stays"), [("1000", True), ("60000", False)])
async def test_min_ping_interval(autojump_clock: object, interval: str, stays: bool) -> None:
    async with wired({"SERVER_GRPC_OPTIONS_MIN_PING_INTERVAL": interval}) as client:
        for number in range(1000):
            client.wire.ping(number.to_bytes(8, "big"))
            await client.flush()
            await trio.sleep(2)
            if client.lost.is_set():
                break
        assert client.lost.is_set() is not stays


@pytest.mark.parametrize("threads", [1, 2])
async def test_thread_pool_workers(threads: int) -> None:
    """Two fetchers that stand still: the second one has a thread when there are two."""
    release = threading.Event()
    began: list[str] = []
    two_began = trio.Event()

    def fetcher(name: str) -> Any:
        def fetch() -> list[str]:
            def note() -> None:
                began.append(name)
                if len(began) == threads:
                    two_began.set()

            trio.from_thread.run_sync(note)
            release.wait(60)
            return [name]

        return fetch

    class Setup(SetupModel):
        one: Annotated[str, Dynamic(enum=fetcher("one"), in_thread=True)] = ""
        two: Annotated[str, Dynamic(enum=fetcher("two"), in_thread=True)] = ""

    async def handle(self: Any, input_data: Any, setup_data: Any, context: Any) -> None: ...

    form = module_class(TrioModule[Input, Output, Setup])
    form.register(type("Handler", (TriggerHandler,), {"protocol": "message", "handle": handle}))
    settings = settings_of(THREAD_POOL_WORKERS=threads, FETCH_TIMEOUT=60)

    async def ask(client: ModuleClient) -> None:
        fields = (await client.config_setup_schema())["properties"]
        assert (fields["one"]["enum"], fields["two"]["enum"]) == (["one"], ["two"])

    async with served(form, settings=settings) as (_, client), trio.open_nursery() as nursery:
        nursery.start_soon(ask, client)
        await two_began.wait()
        await trio.testing.wait_all_tasks_blocked()
        assert len(began) == threads
        release.set()


async def test_cleanup_grace(autojump_clock: object) -> None:
    async def cleanup(self: Any) -> None:
        await trio.sleep_forever()

    settings = settings_of(CLEANUP_GRACE=4, EXECUTION_TIMEOUT=10)
    async with serving(cleanup=cleanup, settings=settings) as (_, client):
        assert (await start(client, WAIT)).seconds == 14


@pytest.mark.parametrize(("interval", "least", "most"), [(5, 40, 80), (50, 4, 8)])
async def test_heartbeat_interval(autojump_clock: object, interval: int, least: int, most: int) -> None:

    server_settings = replace(
        REMOTE.server, heartbeat_interval=settings_of(HEARTBEAT_INTERVAL=interval).server.heartbeat_interval
    )
    async with provided(now=wall_clock) as provider:
        server = ModuleServer(
            module(repeats), settings=replace(REMOTE, server=server_settings), provider=Network(provider).connect
        )
        async with server.running(port=0):
            await trio.sleep(300)
            assert least <= server.statistics().provider.registration.heartbeats <= most
