"""The headings of the troubleshooting page are texts that the code really produces."""

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing
from call_shouter import ModuleClient
from greeter import GreeterBase, GreeterStub, HelloReply, HelloRequest
from greeter_service import Greeter
from grpclib import GRPCError
from shouter import Shouter
from tests.docs import author_troubles as authors
from tests.docs import job_troubles as jobs
from tests.docs import provider_troubles as providers
from tests.module.served import served

from dk_trio import ModuleServer, Settings, rpc, wire
from dk_trio.cli._connect import check_address
from dk_trio.cli._load import load_module
from dk_trio.errors import DkTrioError
from dk_trio.module import ModuleDefinition

PAGE = (Path(__file__).parents[2] / "docs" / "troubleshooting.md").read_text()
PATH = "/greeter.v1.Greeter/Hello"


class Odd(GreeterBase):
    """A service that does what a service should not do."""

    async def hello(self, message: HelloRequest) -> HelloReply:
        if message.name == "fail":
            raise KeyError(message.name)
        await trio.sleep_forever()


class Silent:
    """Answers nothing."""

    def __mapping__(self) -> dict:
        async def hello(stream: object) -> None:
            return

        handler = Greeter().__mapping__()[PATH]
        return {PATH: handler._replace(func=hello)}


@asynccontextmanager
async def greeter(server: rpc.Server) -> AsyncIterator[GreeterStub]:
    with trio.fail_after(86_400):
        async with trio.open_nursery() as nursery:

            async def connect() -> trio.abc.Stream:
                ours, theirs = trio.testing.memory_stream_pair()
                nursery.start_soon(server.serve_stream, theirs)
                return ours

            options = rpc.ChannelOptions(retry=None)
            async with rpc.open_channel("memory", connect=connect, options=options) as channel:
                yield GreeterStub(channel)
            nursery.cancel_scope.cancel()


async def status_of(call: Callable[[], Awaitable[object]]) -> str:
    with pytest.raises(GRPCError) as caught:
        await call()
    return f"{caught.value.status.name}: {caught.value.message}"


# -- one function for each heading ----------------------------------------------------------------------------------


async def port_in_use() -> str:
    listeners = await rpc.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    try:
        with pytest.raises(DkTrioError) as caught:
            async with ModuleServer(Shouter).running(host="127.0.0.1", port=port):
                pass
    finally:
        for listener in listeners:
            await listener.aclose()
    return caught.value.message.replace(str(port), "50055")


def bad_setting() -> str:
    with pytest.raises(DkTrioError) as caught:
        Settings.from_environment({"SERVER_CHANNEL_PORT": "http"})
    return caught.value.message


def no_module_class() -> str:
    Path("module.py").write_text("")
    with pytest.raises(DkTrioError) as caught:
        load_module("module.py")
    return caught.value.message


def served_twice() -> str:
    with pytest.raises(ValueError, match="two services") as caught:
        rpc.Server([Greeter(), Greeter()])
    return str(caught.value)


def no_port() -> str:
    import click

    with pytest.raises(click.BadParameter) as caught:
        check_address("127.0.0.1")
    return caught.value.message


async def refused_input(data: dict) -> str:
    async with served(Shouter) as (_, client):
        with pytest.raises(GRPCError) as caught:
            await read_all(client, data)
    return caught.value.message


async def read_all(client: ModuleClient, data: dict) -> None:
    async with client.start(data) as outputs:
        async for _ in outputs:
            pass


def no_root() -> str:
    with pytest.raises(DkTrioError) as caught:
        ModuleDefinition.of(Shouter).parse_input({"text": "hello"})
    return caught.value.message


async def nobody_listens() -> str:
    path = Path("module.sock").absolute()
    async with rpc.open_channel(f"unix:{path}") as channel:
        text = await status_of(partial(GreeterStub(channel).hello, HelloRequest()))
    return text.replace(str(path), "/run/module.sock")


async def closed_at_once() -> str:
    async def connect() -> trio.abc.Stream:
        ours, theirs = trio.testing.memory_stream_pair()
        await theirs.aclose()
        return ours

    async with rpc.open_channel("127.0.0.1:50051", connect=connect) as channel:
        return await status_of(partial(GreeterStub(channel).hello, HelloRequest()))


async def no_method() -> str:
    async with greeter(rpc.Server([rpc.Health()])) as stub:
        return await status_of(partial(stub.hello, HelloRequest()))


async def too_many_rpcs() -> str:
    options = rpc.ServerOptions(max_concurrent_rpcs=1)
    async with greeter(rpc.Server([Odd()], options=options)) as stub, trio.open_nursery() as nursery:
        nursery.start_soon(stub.hello, HelloRequest())
        await trio.testing.wait_all_tasks_blocked()
        text = await status_of(partial(stub.hello, HelloRequest()))
        nursery.cancel_scope.cancel()
    return text


async def message_too_large() -> str:
    options = rpc.ServerOptions(max_receive_message_bytes=1000)
    async with greeter(rpc.Server([Odd()], options=options)) as stub:
        return await status_of(partial(stub.hello, HelloRequest(name="x" * 2003)))


async def deadline_passed() -> str:
    async with greeter(rpc.Server([Odd()])) as stub:
        return await status_of(partial(stub.hello, HelloRequest(), timeout=5))


async def handler_failed() -> str:
    async with greeter(rpc.Server([Odd()])) as stub:
        return await status_of(partial(stub.hello, HelloRequest(name="fail")))


async def no_response() -> str:
    async with greeter(rpc.Server([Silent()])) as stub:
        return await status_of(partial(stub.hello, HelloRequest()))


async def shutting_down() -> str:
    server = rpc.Server([Odd()])
    async with greeter(server) as stub, trio.open_nursery() as nursery:

        async def stop() -> None:
            await trio.sleep(1)
            await server.drain(grace=1)

        nursery.start_soon(stop)
        return await status_of(partial(stub.hello, HelloRequest()))


def connection_error(*data: bytes) -> str:
    connection = wire.ServerConnection(lambda *_: pytest.fail("no call"))
    with pytest.raises(wire.PeerError) as caught:
        for each in data:
            connection.receive(each)
            connection.take()
    return str(caught.value)


def ping_flood() -> str:
    from dk_trio.wire import frames

    return connection_error(frames.PREFACE + frames.settings_frame({}), *[frames.ping(bytes(8))] * 300)


def reset_flood() -> str:
    from dk_trio.wire import frames
    from dk_trio.wire.hpack import Encoder

    fields = [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", b"/a/b"),
        (b"content-type", b"application/grpc"),
    ]
    encoder = Encoder()
    block = b"".join(encoder.field(name, value) for name, value in fields)

    connection = wire.ServerConnection(lambda stream_id, head: wire.Stream(connection, stream_id))
    with pytest.raises(wire.PeerError) as caught:
        connection.receive(frames.PREFACE + frames.settings_frame({}))
        for stream_id in range(1, 1001, 2):
            connection.receive(frames.header_frames(stream_id, block, 0, 16384) + frames.rst_stream(stream_id, 8))
            connection.take()
    return str(caught.value)


PRODUCERS: list[Callable[..., object]] = [
    port_in_use,
    bad_setting,
    jobs.drop_oldest,
    jobs.narrow_front_door,
    no_module_class,
    authors.no_triggers,
    authors.broken_trigger_file,
    authors.directory_in_use,
    served_twice,
    providers.second_on_postgres,
    providers.newer_release,
    providers.contents_of_another,
    no_port,
    partial(refused_input, {"root": {"protocol": "whisper"}}),
    no_root,
    partial(refused_input, {"root": {"protocol": "shout"}}),
    nobody_listens,
    closed_at_once,
    no_method,
    too_many_rpcs,
    message_too_large,
    deadline_passed,
    handler_failed,
    no_response,
    shutting_down,
    partial(jobs.refused, max_concurrent_tasks=10, max_queued_tasks=20),
    partial(jobs.refused, max_concurrent_tasks=10),
    jobs.stalled_reader,
    jobs.ran_too_long,
    jobs.authors_exception,
    authors.service_without_parameters,
    authors.cost_limit,
    jobs.nursery_left_open,
    jobs.cut_by_a_drain,
    jobs.configured_too_long,
    authors.tool_that_is_not_there,
    jobs.few_slots,
    authors.refusal_logged,
    jobs.failure_logged,
    jobs.slow_cleanup,
    jobs.goes_on,
    jobs.went_on,
    jobs.loop_blocked,
    providers.broken_rule,
    providers.used_key,
    providers.setup_cannot_be_told,
    providers.service_not_reached,
    providers.breaker_open,
    providers.breaker_opens,
    providers.not_registered,
    providers.told_by_name,
    providers.no_signals_out,
    providers.no_signals_in,
    partial(connection_error, b"GET / HTTP/1.1\r\n\r\n"),
    ping_flood,
    reset_flood,
]
# Two backticks and a space where the text has backticks itself.
HEADINGS = [text for _, text in re.findall(r"^### (`` |`)(.+?)(?: ``|`)$", PAGE, re.MULTILINE)]


def test_every_heading_has_its_producer() -> None:
    assert len(HEADINGS) == len(PRODUCERS)


@pytest.mark.parametrize(("heading", "produce"), list(zip(HEADINGS, PRODUCERS, strict=False)))
async def test_heading_is_a_real_text(
    heading: str,
    produce: Callable[..., object],
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    autojump_clock: trio.testing.MockClock,
) -> None:
    monkeypatch.chdir(tmp_path)
    text = produce(autojump_clock) if produce is jobs.loop_blocked else produce()
    if not isinstance(text, str):
        text = await text
    assert text == heading
