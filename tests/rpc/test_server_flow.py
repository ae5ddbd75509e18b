"""How bytes leave the server: coalesced, held back by the client's windows, never torn; compression and size limits."""

from __future__ import annotations

import gc
import tracemalloc
import weakref
from functools import partial

import pytest
import trio
import trio.testing
from grpclib.const import Status
from grpclib.exceptions import ProtocolError
from tests._pb.dk_trio.test.v1 import Message

from dk_trio import rpc
from dk_trio.rpc.transport import YIELD_EVERY
from dk_trio.wire import HIGH_WATER
from dk_trio.wire.compression import compress

from .wire_client import Call, TestService, connected, echo, serving

WINDOW = 65_535


class CountedPair:
    """`memory_stream_pair`, with the writes of the server recorded."""

    def __init__(self) -> None:
        self.writes: list[int] = []

    def __call__(self):
        ours, theirs = trio.testing.memory_stream_pair()
        send_all = theirs.send_stream.send_all

        async def counted(data):
            self.writes.append(len(data))
            await send_all(data)

        theirs.send_stream.send_all = counted
        return ours, theirs


async def test_small_messages_of_one_pass_are_one_write(autojump_clock):
    async def handler(stream):
        for n in range(YIELD_EVERY - 1):
            await stream.send_message(Message(n=n))

    pair = CountedPair()
    async with connected(rpc.Server([TestService(server_stream=handler)]), pair=pair) as client:
        pair.writes.clear()
        call = await client.call("server_stream", Message())
        assert await call.status() == (Status.OK, None)
        assert len(call.messages) == YIELD_EVERY - 1
        assert len(pair.writes) == 1


async def test_answers_of_many_calls_are_one_write(autojump_clock):
    pair = CountedPair()
    async with connected(rpc.Server([TestService(unary=echo)]), pair=pair) as client:
        await client.unary("unary")
        pair.writes.clear()
        calls = []
        for n in range(50):
            call = Call(client)
            client.wire.open(call, "/test.Service/unary")
            call.queue_message(bytes(Message(n=n)), end=True)
            calls.append(call)
        await client.flush()
        assert [(await call.answer()).n for call in calls] == list(range(50))
        assert len(pair.writes) == 1


async def test_a_stream_lets_others_run(autojump_clock):
    """A handler that never has to wait still gives way."""
    turns = []

    async def handler(stream):
        for _ in range(10 * YIELD_EVERY):
            turns.append((await stream.recv_message() or Message()).n)
            await stream.send_message(Message())

    async def busy(stream):
        for n in range(1000):
            turns.append(-1)
            await stream.send_message(Message(n=n))

    async with serving(bidi=handler, server_stream=busy) as (client, _):
        await client.call("server_stream", Message())
        await client.call("bidi", end=False)
        await client.call("bidi", end=False)
        await trio.testing.wait_all_tasks_blocked()
    assert turns.count(-1) == 1000


def endless(sent: list[int], size: int = 1000):
    async def handler(stream):
        while True:
            await stream.send_message(Message(n=len(sent) + 1, data=bytes(size)))
            sent.append(len(sent))

    return handler


async def test_a_full_window_holds_the_handler(autojump_clock):
    sent = []
    async with serving(bidi=endless(sent), client={"stream_window": WINDOW}) as (client, _):
        call = await client.call("bidi")
        await trio.testing.wait_all_tasks_blocked()
        whole = len(call.messages)
        size = len(bytes(Message(n=100, data=bytes(1000)))) + 5
        assert whole == WINDOW // size
        assert len(sent) == whole  # the next one waits, in part in the client's buffer
        for n in range(1, whole * 20):
            assert (await call.receive()).n == n
        await trio.testing.wait_all_tasks_blocked()
        assert whole * 20 - 1 <= len(sent) <= whole * 21


async def test_the_connection_window_holds_all_handlers(autojump_clock):
    """Two streams with room, one window of 64 KiB for both: they share it, and when it opens both go on."""
    first, second = [], []
    server = rpc.Server([TestService(bidi=endless(first), bidi_other=endless(second))])
    async with connected(server, read=False, connection_window=WINDOW) as client:
        calls = [await client.call("bidi"), await client.call("bidi_other")]
        await trio.testing.wait_all_tasks_blocked()
        assert len(first) + len(second) <= WINDOW // 1000
        assert first
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.read)
            for call in calls:
                for n in range(1, 500):
                    assert (await call.receive()).n == n
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("size", [10, 1000, 100_000])
async def test_memory_is_bounded_for_a_client_that_does_not_read(autojump_clock, size):
    """Windows of 16 MiB, and not one byte taken from the transport."""
    sent = []
    server = rpc.Server([TestService(bidi=endless(sent, size))])
    pair = trio.testing.lockstep_stream_pair
    async with connected(server, pair=pair, read=False, stream_window=1 << 24) as client:
        for _ in range(5):
            await client.call("bidi")
        await trio.testing.wait_all_tasks_blocked()
        (connection,) = server._connections
        frame = 16 * 1024 + 9
        assert connection._wire.out_size <= HIGH_WATER + frame + 1024
        assert len(sent) * size <= 2 * (HIGH_WATER + 5 * (frame + size))


class Reply:
    """A large response, whose end can be seen."""

    def SerializeToString(self) -> bytes:
        return bytes(1_000_000)


async def test_a_large_response_is_in_memory_once(autojump_clock):
    async def handler(stream):
        await stream.send_message(Reply())

    async with serving(unary=handler, client={"stream_window": 100, "connection_window": WINDOW}) as (client, _):
        tracemalloc.start()
        call = await client.call("unary", Message())
        await trio.testing.wait_all_tasks_blocked()
        held, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert call.head is not None
        assert held < 1_100_000
        assert peak < 1_100_000


@pytest.mark.parametrize("leave", ["reset", "close"])
async def test_what_a_client_did_not_read_goes_with_it(autojump_clock, leave):
    """At once, and not with the next collection of cycles, which a server with little to do comes to late."""
    replies = []

    async def handler(stream):
        reply = Reply()
        replies.append(weakref.ref(reply))
        await stream.send_message(reply)

    gc.disable()
    try:
        async with serving(unary=handler, client={"stream_window": 100, "connection_window": WINDOW}) as (client, _):
            call = await client.call("unary", Message())
            await trio.testing.wait_all_tasks_blocked()
            assert replies[0]() is not None
            await (call.reset_by_client() if leave == "reset" else client.stream.aclose())
            await trio.testing.wait_all_tasks_blocked()
            assert replies[0]() is None
    finally:
        gc.enable()


async def test_a_send_that_was_cut_off_is_finished_first(autojump_clock):
    """The author's own time limit ends the wait, not the message: framing holds."""

    async def handler(stream):
        with trio.move_on_after(1) as scope:
            await stream.send_message(Message(text="first", data=bytes(200_000)))
        assert scope.cancelled_caught
        await stream.send_message(Message(text="second", data=bytes(200_000)))

    async with serving(bidi=handler, client={"stream_window": WINDOW}) as (client, _):
        call = await client.call("bidi")
        await trio.sleep(2)
        first, second = await call.receive(), await call.receive()
        assert (first.text, second.text) == ("first", "second")
        assert len(first.data) == len(second.data) == 200_000
        assert await call.receive() is None
        assert await call.status() == (Status.OK, None)


async def test_a_send_that_was_cut_off_is_finished_before_the_trailers(autojump_clock):
    async def handler(stream):
        with trio.move_on_after(1):
            await stream.send_message(Message(data=bytes(200_000)))

    async with serving(unary=handler, bidi=handler, client={"stream_window": WINDOW}) as (client, _):
        for method in ("bidi", "unary"):
            call = await client.call(method, Message())
            await trio.sleep(2)
            assert len((await call.receive()).data) == 200_000
            assert await call.status() == (Status.OK, None)


async def test_a_send_cancelled_at_once_has_not_happened(autojump_clock):
    async def handler(stream):
        with trio.CancelScope() as scope:
            scope.cancel()
            await stream.send_initial_metadata(metadata={"x": "y"})
        assert scope.cancelled_caught
        await stream.send_message(Message())

    async with serving(bidi=handler) as (client, _):
        call = await client.call("bidi")
        assert "x" not in await call.headers()


@pytest.mark.parametrize("size", [10, 100_000])
async def test_concurrent_senders(autojump_clock, size):
    async def handler(stream):
        async with trio.open_nursery() as nursery:
            for n in range(20):
                message = Message(n=n, data=bytes([n]) * size)
                nursery.start_soon(stream.send_message, message)

    async with serving(bidi=handler, client={"stream_window": WINDOW}) as (client, _):
        call = await client.call("bidi")
        got = [await call.receive() for _ in range(20)]
        assert sorted(message.n for message in got) == list(range(20))
        assert all(message.data == bytes([message.n]) * size for message in got)
        assert await call.status() == (Status.OK, None)


async def test_concurrent_senders_of_which_some_give_up(autojump_clock):
    """Whoever gives up leaves either nothing or a whole message behind."""

    async def handler(stream):
        async def send(n):
            with trio.move_on_after(n % 3):
                await stream.send_message(Message(n=n, data=bytes([n]) * 50_000))

        async with trio.open_nursery() as nursery:
            for n in range(20):
                nursery.start_soon(send, n)

    async with serving(bidi=handler, client={"stream_window": WINDOW}) as (client, _):
        call = await client.call("bidi")
        await trio.sleep(10)
        while (message := await call.receive()) is not None:
            assert message.data == bytes([message.n]) * 50_000
        assert await call.status() == (Status.OK, None)


async def test_unread_requests_hold_the_client(autojump_clock):
    """What a handler does not read, its client cannot send."""
    go = trio.Event()

    async def handler(stream):
        await go.wait()
        count = 0
        async for _ in stream:
            count += 1
        await stream.send_message(Message(n=count))

    options = rpc.ServerOptions(stream_window_bytes=WINDOW)
    async with serving(options, client_stream=handler, unary=echo) as (client, _):
        call = await client.call("client_stream", end=False)
        sent = 0
        with trio.move_on_after(1):
            while True:
                await call.send(Message(data=bytes(1000)))
                sent += 1
        assert sent == WINDOW // 1008
        assert await client.unary("unary") == Message()  # others are not held
        go.set()
        for _ in range(1000):
            await call.send(Message(data=bytes(1000)))
        await call.send_end()
        assert (await call.answer()).n == sent + 1001  # the one that was cut off, too


# -- compression ------------------------------------------------------------------------------------------------------

ACCEPT = (b"grpc-accept-encoding", b"identity,gzip, deflate")


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_responses_are_compressed_when_the_client_accepts(autojump_clock, encoding):
    data = bytes(100_000)
    pair = CountedPair()
    service = TestService(unary=echo)
    server = rpc.Server([service], options=rpc.ServerOptions(compression=encoding))
    async with connected(server, pair=pair, fields=[ACCEPT]) as client:
        call = await client.call("unary", Message(data=data))
        assert (await call.answer()).data == data
        assert call.head.encoding == encoding
        assert sum(pair.writes) < 2000
    async with connected(server) as client:
        call = await client.call("unary", Message(data=data))
        assert (await call.answer()).data == data
        assert call.head.encoding == "identity"


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_requests_may_be_compressed(autojump_clock, encoding):
    data = bytes(100_000)
    async with serving(bidi=echo, client={"fields": [(b"grpc-encoding", encoding.encode())]}) as (client, _):
        call = await client.call("bidi", end=False)
        call.queue_message(compress(encoding, bytes(Message(data=data))), compressed=True)
        await call.send(Message(text="not this one"), end=True)
        assert (await call.receive()).data == data
        assert (await call.receive()).text == "not this one"
        assert await call.status() == (Status.OK, None)


async def test_compression_by_call_and_by_message(autojump_clock):
    data = bytes(10_000)
    raised = []

    async def handler(stream):
        with pytest.raises(ValueError, match="compression is 'br', it must be one of identity"):
            stream.set_compression("br")
        stream.set_compression("gzip")
        await stream.send_message(Message(data=data), compress=False)
        await stream.send_message(Message(data=data))
        with pytest.raises(ProtocolError, match="already sent"):
            stream.set_compression("identity")
        raised.append("both")

    pair = CountedPair()
    async with connected(rpc.Server([TestService(bidi=handler)]), pair=pair, fields=[ACCEPT]) as client:
        pair.writes.clear()
        call = await client.call("bidi")
        assert [(await call.receive()).data for _ in range(2)] == [data, data]
        assert call.head.encoding == "gzip"
        assert len(data) < sum(pair.writes) < len(data) + 1000
    assert raised == ["both"]


def test_unknown_compression_is_refused_at_once():
    with pytest.raises(ValueError, match="compression is 'zstd', it must be one of identity, gzip, deflate"):
        rpc.ServerOptions(compression="zstd")


# -- sizes ------------------------------------------------------------------------------------------------------------


async def test_size_limits(autojump_clock):
    async def send(stream, size):
        await stream.recv_message()
        await stream.send_message(Message(data=bytes(size)))

    overhead = len(bytes(Message(data=bytes(1000)))) - 1000
    options = rpc.ServerOptions(max_receive_message_bytes=1000 + overhead, max_send_message_bytes=2000 + overhead)
    handlers = {"unary": echo, "unary_fits": partial(send, size=2000), "unary_over": partial(send, size=2001)}
    async with serving(options, **handlers) as (client, _):
        assert len((await client.unary("unary", Message(data=bytes(1000)))).data) == 1000
        assert len((await client.unary("unary_fits")).data) == 2000

        call = await client.call("unary", Message(data=bytes(1001)))
        assert await call.status() == (
            Status.RESOURCE_EXHAUSTED,
            "message of 1004 bytes is over the limit of 1003 bytes (max_receive_message_bytes)",
        )
        call = await client.call("unary_over", Message())
        assert await call.status() == (
            Status.RESOURCE_EXHAUSTED,
            "response of 2004 bytes is over the limit of 2003 bytes (max_send_message_bytes)",
        )
        assert await client.unary("unary") == Message()


async def test_a_message_is_refused_by_its_prefix(autojump_clock):
    """Four bytes announce 4 GiB: nothing is allocated, the call ends before any of it is sent."""
    async with serving(unary=echo) as (client, _):
        call = await client.call("unary", end=False)
        client.wire.queue(b"\0\0\x05\0\0" + call.id.to_bytes(4, "big") + b"\0\xff\xff\xff\xff")
        await client.flush()
        status, text = await call.status()
        assert status is Status.RESOURCE_EXHAUSTED
        assert text.startswith("message of 4294967295 bytes is over the limit of 104857600 bytes")


async def test_limit_counts_after_decompression(autojump_clock):
    options = rpc.ServerOptions(max_receive_message_bytes=10_000)
    async with serving(options, unary=echo, client={"fields": [(b"grpc-encoding", b"gzip")]}) as (client, _):
        call = await client.call("unary", end=False)
        call.queue_message(compress("gzip", bytes(10_000_000)), compressed=True, end=True)
        await client.flush()
        status, text = await call.status()
        assert status is Status.RESOURCE_EXHAUSTED
        assert "10000" in text
