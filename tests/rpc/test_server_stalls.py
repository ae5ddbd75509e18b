"""Clients that read nothing, or little: how long a send waits for them, and what a call that was given up leaves."""

from __future__ import annotations

import re
from math import inf

import pytest
import trio
import trio.testing
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from tests._pb.dk_trio.test.v1 import Message

from dk_trio import rpc
from dk_trio.wire import HIGH_WATER
from dk_trio.wire.connection import LARGEST_SENT_FRAME
from dk_trio.wire.frames import window_update

from .wire_client import DAY, Call, TestService, WireClient, connected, echo, serving

WINDOW = 65_535
TIMEOUT = 300.0
MOMENT = 0.001
TEXT = "the client has read nothing for 300 s"


class Sender:
    """A handler that sends without end, and records how each call's sending ended, after how long."""

    def __init__(self, size: int = 1000, timeout: float = TIMEOUT) -> None:
        self.size = size
        self.timeout = timeout
        self.calls: list[rpc.ServerCall] = []
        self.sent = 0
        self.ends: list[tuple[type[BaseException], float]] = []

    async def __call__(self, stream):
        begin = trio.current_time()
        stream.send_timeout = self.timeout
        self.calls.append(stream)
        try:
            while True:
                await stream.send_message(Message(n=self.sent, data=bytes(self.size)))
                self.sent += 1
        except BaseException as error:
            kind = trio.TooSlowError if isinstance(error, trio.TooSlowError) else type(error)
            self.ends.append((kind, trio.current_time() - begin))
            raise


def served(**handlers) -> rpc.Server:
    """Without pings: a client whose transport is full cannot answer them, which would end its connection first."""
    return rpc.Server([TestService(**handlers)], options=rpc.ServerOptions(keepalive_time=DAY))


def hold_connection_window(client: WireClient) -> None:
    """From now on the client gives back no window of the connection by itself."""
    client.wire._credit_connection = lambda: None


async def open_connection_window(client: WireClient, size: int) -> None:
    client.wire.queue(window_update(0, size))
    await client.flush()


async def open_window(call: Call, size: int) -> None:
    """Let `size` more bytes of the call come, whatever was read."""
    call._credit(size)
    await call.client.flush()


@pytest.mark.parametrize("size", [1000, 200_000])
@pytest.mark.parametrize("wall", ["stream", "connection", "transport"])
async def test_a_client_that_reads_nothing_ends_its_call(autojump_clock, caplog, wall, size):
    sender = Sender(size)
    server = served(bidi=sender)
    pair = trio.testing.memory_stream_pair
    options = {"stream_window": WINDOW}
    if wall == "connection":
        options = {"stream_window": 1 << 24, "connection_window": WINDOW}
    elif wall == "transport":
        pair = trio.testing.lockstep_stream_pair
        options = {"stream_window": 1 << 24, "read": False}
    async with connected(server, pair=pair, **options) as client, trio.open_nursery() as nursery:
        hold_connection_window(client)
        call = await client.call("bidi")
        await trio.sleep(TIMEOUT - 1)
        assert sender.ends == []
        await trio.sleep(2)
        assert sender.ends == [(trio.TooSlowError, TIMEOUT)]
        assert server.statistics().rpcs == 0
        if wall == "transport":
            nursery.start_soon(client.read)
        assert await call.status() == (Status.DEADLINE_EXCEEDED, TEXT)
        nursery.cancel_scope.cancel()
    assert [record for record in caplog.records if record.levelname != "INFO"] == []


async def test_without_a_send_timeout_a_send_waits(autojump_clock):
    sender = Sender(timeout=inf)
    async with serving(bidi=sender, client={"stream_window": WINDOW}) as (client, server):
        call = await client.call("bidi")
        await trio.sleep(80_000)
        assert server.statistics().rpcs == 1
        await call.reset_by_client()


async def test_the_exception_is_the_handlers_to_catch(autojump_clock):
    caught = []

    async def handler(stream):
        stream.send_timeout = 5
        try:
            await stream.send_message(Message(data=bytes(200_000)))
        except trio.TooSlowError as error:
            caught.append(str(error))
            raise GRPCError(Status.ABORTED, "nobody listens") from None

    async with serving(bidi=handler, client={"stream_window": WINDOW}) as (client, _):
        call = await client.call("bidi")
        assert await call.status() == (Status.ABORTED, "nobody listens")
        assert caught == ["the client has read nothing for 5 s"]


async def test_a_time_limit_of_the_handlers_own_is_its_own_failure(autojump_clock, caplog):
    async def handler(stream):
        with trio.fail_after(1):
            await trio.sleep(2)

    async with serving(bidi=handler) as (client, _):
        call = await client.call("bidi")
        assert await call.status() == (Status.UNKNOWN, "the handler failed: TooSlowError")
    assert "bidi failed" in caplog.text


@pytest.mark.parametrize("catches", [False, True])
async def test_a_message_that_is_stuck_when_the_handler_returns_ends_the_call(autojump_clock, catches):
    async def handler(stream):
        stream.send_timeout = TIMEOUT
        with trio.move_on_after(10 if not catches else 1000):
            try:
                await stream.send_message(Message(data=bytes(200_000)))
            except trio.TooSlowError:
                assert catches

    async with serving(bidi=handler, unary=handler, client={"stream_window": WINDOW}) as (client, server):
        for method in ("bidi", "unary"):
            begin = trio.current_time()
            call = await client.call(method, Message())
            assert await call.status() == (Status.DEADLINE_EXCEEDED, TEXT)
            assert trio.current_time() - begin == TIMEOUT + (TIMEOUT if catches else 10)
            assert server.statistics().rpcs == 0


async def test_explicit_trailers_wait_as_long_as_a_send(autojump_clock):
    waited = []

    async def handler(stream):
        stream.send_timeout = TIMEOUT
        with trio.move_on_after(10):
            await stream.send_message(Message(data=bytes(200_000)))
        with pytest.raises(trio.TooSlowError, match=re.escape(TEXT)):
            await stream.send_trailing_metadata()
        waited.append(trio.current_time())
        await stream.send_trailing_metadata(status=Status.DATA_LOSS)  # a failure waits for nothing
        assert trio.current_time() == waited[0]

    async with serving(bidi=handler, client={"stream_window": WINDOW}) as (client, _):
        call = await client.call("bidi")
        assert (await call.status())[0] is Status.DATA_LOSS
        assert len(waited) == 1


@pytest.mark.parametrize("size", [1000, 1_000_000])
async def test_a_reader_that_takes_a_window_just_in_time_is_never_cut(autojump_clock, size):
    """Also when one message takes many windows, during which its sender is never woken."""
    sender = Sender(size)
    async with serving(bidi=sender, client={"stream_window": WINDOW}) as (client, _):
        call = await client.call("bidi")
        for _ in range(40):
            await trio.sleep(TIMEOUT - MOMENT)
            await open_window(call, WINDOW)
        await trio.testing.wait_all_tasks_blocked()
        assert sender.ends == []
        assert sender.sent * (size + 10) <= 41 * WINDOW
        last = trio.current_time()
        assert (await call.status())[0] is Status.DEADLINE_EXCEEDED
        assert trio.current_time() - last == TIMEOUT  # from the last progress, no later


async def test_a_window_that_opens_at_the_very_moment_is_used(autojump_clock):
    """The sender was woken by its time, so the window cannot wake it: it looks before it waits again."""
    sender = Sender()
    async with serving(bidi=sender, client={"stream_window": WINDOW}) as (client, _):
        calls = [await client.call("bidi") for _ in range(12)]  # Trio decides which of two tasks is first
        await trio.testing.wait_all_tasks_blocked()
        begun, due = sender.sent, trio.current_time() + TIMEOUT

        async def open_at_the_moment(call: Call, server_call: rpc.ServerCall) -> None:
            await trio.sleep_until(due)
            call.recv_window += WINDOW
            server_call._moved_at = server_call.connection.now = trio.current_time()
            server_call.connection._window_update(server_call.id, WINDOW.to_bytes(4, "big"))

        async with trio.open_nursery() as nursery:
            for call, server_call in zip(calls, sender.calls, strict=True):
                nursery.start_soon(open_at_the_moment, call, server_call)
        await trio.testing.wait_all_tasks_blocked()
        told = {type_ for type_, _ in sender.ends}
        assert told <= {trio.TooSlowError}
        assert sender.sent >= begun + (len(calls) - len(sender.ends)) * (WINDOW // 1100)


async def test_one_byte_is_progress_and_a_ping_is_none(autojump_clock):
    sender = Sender(200_000)
    async with serving(bidi=sender, client={"stream_window": WINDOW}) as (client, _):
        call = await client.call("bidi")
        await trio.sleep(200)
        await open_window(call, 1)
        for _ in range(29):
            await trio.sleep(10)
            client.wire.ping(b"anybody?")
            await client.flush()
        assert sender.ends == []
        await trio.sleep(10)
        await trio.testing.wait_all_tasks_blocked()
        assert sender.ends == [(trio.TooSlowError, 500)]


async def test_a_slow_transport_is_not_cut(autojump_clock):
    """A stream without room for one byte, read so that a write takes 200 s: every write that is done is progress."""
    sender = Sender(100_000)
    server = served(bidi=sender)
    pair = trio.testing.lockstep_stream_pair
    async with connected(server, pair=pair, read=False, stream_window=1 << 24) as client:
        await client.call("bidi")
        begin = trio.current_time()
        while trio.current_time() - begin < 20 * TIMEOUT:
            await client.stream.receive_some(8 * 1024)
            await trio.sleep(5)
        assert sender.ends == []
        assert sender.sent > 10
        await trio.sleep(2 * TIMEOUT)
        assert [kind for kind, _ in sender.ends] == [trio.TooSlowError]


async def test_one_stalled_stream_beside_moving_ones(autojump_clock):
    stalled, moving = Sender(), Sender()
    async with serving(bidi_stalled=stalled, bidi_moving=moving, client={"stream_window": WINDOW}) as (client, _):
        dead = await client.call("bidi_stalled")
        living = [await client.call("bidi_moving") for _ in range(3)]
        read = 0

        async def consume(call: Call) -> None:
            nonlocal read
            while True:
                assert await call.receive() is not None
                read += 1
                await trio.sleep(1)

        async with trio.open_nursery() as nursery:
            for call in living:
                nursery.start_soon(consume, call)
            await trio.sleep(3 * TIMEOUT)
            assert stalled.ends == [(trio.TooSlowError, TIMEOUT)]
            assert await dead.status() == (Status.DEADLINE_EXCEEDED, TEXT)
            assert moving.ends == []
            assert read > 2 * 3 * TIMEOUT
            nursery.cancel_scope.cancel()
        for call in living:
            await call.reset_by_client()


async def test_calls_that_share_a_connections_window_wait_for_their_turn(autojump_clock):
    """The client reads, but its connection lets little through: a call is cut off for its own window only."""
    sender = Sender(100_000)
    server = served(bidi=sender)
    async with connected(server, stream_window=1 << 24, connection_window=WINDOW) as client:
        hold_connection_window(client)
        calls = [await client.call("bidi") for _ in range(20)]
        for _ in range(100):
            await trio.sleep(TIMEOUT - 1)
            await open_connection_window(client, 10_000)
        await trio.testing.wait_all_tasks_blocked()
        assert sender.ends == []  # although each of them gets further only every 20 turns
        last = trio.current_time()
        for call in calls:
            assert (await call.status())[0] is Status.DEADLINE_EXCEEDED
        assert trio.current_time() - last == TIMEOUT


async def test_a_call_without_window_is_cut_though_the_connection_moves(autojump_clock):
    sender = Sender(100_000)
    server = served(bidi=sender)
    async with connected(server, stream_window=WINDOW, connection_window=1 << 17) as client:
        hold_connection_window(client)
        dead = await client.call("bidi")
        await trio.testing.wait_all_tasks_blocked()
        living = await client.call("bidi")
        for _ in range(10):
            await trio.sleep(TIMEOUT / 3)
            await open_window(living, 1000)
            await open_connection_window(client, 1000)
        assert sender.ends == [(trio.TooSlowError, TIMEOUT)]
        assert (await dead.status())[0] is Status.DEADLINE_EXCEEDED
        await living.reset_by_client()


def check_accounts(server: rpc.Server, client: WireClient) -> None:
    """Both ends agree about the connection's window, and nothing is queued or waits."""
    (connection,) = server._connections
    wire = connection._wire
    assert (wire.out, wire.out_size) == ([], 0)
    assert (wire.streams, wire.blocked) == ({}, {})
    assert connection._transport._draining == {}
    assert wire.send_window == client.wire._window_size - client.wire._uncredited


async def test_what_a_stalled_call_leaves_behind(autojump_clock):
    """Torn messages of 50 calls: the connection is whole for others, the windows add up, the messages are freed."""
    sender = Sender(1_000_000)
    server = served(bidi=sender, unary=echo)
    async with connected(server, stream_window=WINDOW) as client:
        calls = [await client.call("bidi", end=index % 2 == 0) for index in range(50)]
        await trio.testing.wait_all_tasks_blocked()
        (connection,) = server._connections
        assert connection._wire.out_size == 0
        assert len(connection._wire.blocked) == 50
        assert await client.unary("unary", Message(text="other")) == Message(text="other")
        for call in calls:
            assert (await call.status())[0] is Status.DEADLINE_EXCEEDED
            assert call.next_message() is None
        await trio.testing.wait_all_tasks_blocked()
        assert len(sender.ends) == 50
        assert all(call._pending is None and not call._writers for call in sender.calls)
        check_accounts(server, client)
        assert await client.unary("unary", Message(data=bytes(50_000))) == Message(data=bytes(50_000))
        check_accounts(server, client)


async def test_fifty_stalled_calls_behind_a_transport_that_is_not_read(autojump_clock):
    """Their handlers end though not one byte of their statuses can leave; what is queued stays bounded."""
    sender = Sender(1_000_000)
    server = served(bidi=sender, unary=echo)
    pair = trio.testing.lockstep_stream_pair
    async with (
        connected(server, pair=pair, read=False, stream_window=1 << 24) as client,
        trio.open_nursery() as nursery,
    ):
        calls = [await client.call("bidi") for _ in range(50)]
        await trio.testing.wait_all_tasks_blocked()
        (connection,) = server._connections
        wire = connection._wire
        bound = HIGH_WATER + LARGEST_SENT_FRAME
        assert wire.out_size <= bound
        await trio.sleep(TIMEOUT + 1)
        assert server.statistics().rpcs == 0
        assert len(sender.ends) == 50
        assert wire.out_size <= bound + 50 * 200
        assert (wire.streams, wire.blocked, connection._transport._draining) == ({}, {}, {})
        assert all(call._pending is None for call in sender.calls)
        nursery.start_soon(client.read)
        for call in calls:
            assert (await call.status())[0] is Status.DEADLINE_EXCEEDED
        assert await client.unary("unary", Message(text="other")) == Message(text="other")
        check_accounts(server, client)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("wall", ["window", "transport"])
async def test_cancelled_while_stalled(autojump_clock, wall):
    """By the client, its deadline, or a scope of the handler: it is Cancelled, and nothing is left that waits."""
    sender = Sender(100_000)
    scope = trio.CancelScope()

    async def scoped(stream):
        with scope:
            await sender(stream)
        raise GRPCError(Status.ABORTED)

    server = served(bidi=sender, bidi_scoped=scoped, unary=echo)
    pair = trio.testing.memory_stream_pair if wall == "window" else trio.testing.lockstep_stream_pair
    window = WINDOW if wall == "window" else 1 << 24
    async with connected(server, pair=pair, read=False, stream_window=window) as client, trio.open_nursery() as nursery:
        if wall == "window":
            nursery.start_soon(client.read)
        reset = await client.call("bidi")
        await client.call("bidi", timeout=60)
        scoped_call = await client.call("bidi_scoped")
        await trio.sleep(50)
        await reset.reset_by_client()
        scope.cancel()
        await trio.sleep(TIMEOUT)
        assert sorted(sender.ends, key=lambda end: end[1]) == [
            (trio.Cancelled, pytest.approx(when)) for when in (50, 50, 60)
        ]
        assert all(not call._writers and call._pending is None for call in sender.calls[1:])
        (connection,) = server._connections
        assert connection._transport._draining == {}
        if wall == "transport":
            nursery.start_soon(client.read)
        assert (await scoped_call.status())[0] is Status.ABORTED
        assert await client.unary("unary") == Message()
        check_accounts(server, client)
        nursery.cancel_scope.cancel()


async def test_the_callers_scope_wins_at_the_same_moment(autojump_clock):
    ends = []

    async def handler(stream):
        stream.send_timeout = 60
        with trio.move_on_after(60) as scope:
            await stream.send_message(Message(data=bytes(200_000)))
        ends.append(scope.cancelled_caught)
        await stream.cancel()

    async with serving(bidi=handler, client={"stream_window": WINDOW}) as (client, _):
        await client.call("bidi")
        await trio.sleep(100)
        assert ends == [True]


async def test_senders_of_one_call_do_not_lengthen_each_others_waits(autojump_clock):
    ends = []

    async def handler(stream):
        stream.send_timeout = TIMEOUT

        async def send(delay):
            await trio.sleep(delay)
            with pytest.raises(trio.TooSlowError):
                await stream.send_message(Message(data=bytes(200_000)))
            ends.append((delay, trio.current_time() - begin))

        begin = trio.current_time()
        async with trio.open_nursery() as nursery:
            for delay in (0, 100, 200):
                nursery.start_soon(send, delay)
        await stream.cancel()

    async with serving(bidi=handler, client={"stream_window": WINDOW}) as (client, _):
        await client.call("bidi")
        await trio.sleep(1000)
        assert ends == [(0, 300), (100, 400), (200, 500)]
