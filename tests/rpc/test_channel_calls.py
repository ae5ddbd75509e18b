"""Calls through a channel to a real server: shapes, metadata, errors, compression, limits, interceptors, misuse."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
import trio
from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError, ProtocolError
from tests._pb.dk_trio.test.v1 import EchoBase, EchoStub, Message

from dk_trio import rpc
from dk_trio.pb.google.protobuf import Any as AnyMessage
from dk_trio.pb.google.rpc import ErrorInfo

from .channel_kit import Network, call, channel_and_server, channel_to, request, unary
from .wire_client import TestService, echo

pytestmark = pytest.mark.usefixtures("both_ways")

BIDI = Cardinality.STREAM_STREAM


class Echo(EchoBase):
    async def unary(self, message):
        return message

    async def server_stream(self, message):
        for n in range(message.n):
            yield Message(n=n)

    async def client_stream(self, messages):
        count = 0
        async for _ in messages:
            count += 1
        return Message(n=count)

    async def bidi(self, messages):
        async for message in messages:
            yield message


async def test_generated_stubs_in_all_four_shapes(autojump_clock):
    async with channel_to(rpc.Server([Echo()])) as (channel, _):
        stub = EchoStub(channel, timeout=60)
        assert (await stub.unary(Message(text="hä"))).text == "hä"
        assert [reply.n async for reply in stub.server_stream(Message(n=40))] == list(range(40))
        assert (await stub.client_stream([Message()] * 5)).n == 5

        async def numbers():
            for n in range(40):
                yield Message(n=n)

        assert [reply.n async for reply in stub.bidi(numbers())] == list(range(40))
        assert (await stub.client_stream(numbers())).n == 40
        assert [reply async for reply in stub.bidi([])] == []
        statistics = channel.statistics()
        assert (statistics.started, statistics.succeeded, statistics.failed) == (6, 6, 0)


async def test_large_messages_both_ways(autojump_clock):
    data = bytes(range(256)) * 12_000
    async with channel_and_server({"stream_window": 65_535}, unary=echo, bidi=echo) as (channel, _):
        assert (await call(channel, Message(data=data))).data == data
        async with request(channel, "bidi", BIDI) as stream:
            await stream.send_request()
            stream.feed([Message(data=data)] * 3)
            assert [reply.data == data async for reply in stream] == [True] * 3


async def test_ping_pong(autojump_clock):
    async with channel_and_server(bidi=echo) as (channel, _), request(channel, "bidi", BIDI) as stream:
        for n in range(50):
            await stream.send_message(Message(n=n))
            assert (await stream.recv_message()).n == n
        await stream.end()
        assert await stream.recv_message() is None
        await stream.recv_trailing_metadata()


async def test_metadata_both_ways(autojump_clock):
    seen = []

    async def handler(stream):
        seen.append(list(stream.metadata.items()))
        await stream.send_initial_metadata(metadata={"first": "1", "raw-bin": b"\x00\xff"})
        await stream.send_message(await stream.recv_message())
        await stream.send_trailing_metadata(metadata=[("last", "2"), ("last", "3")])

    async with channel_and_server(unary=handler) as (channel, _):
        sent = [("a", "b"), ("a", "c"), ("x-bin", b"\x01")]
        async with unary(channel, metadata=sent) as stream:
            assert stream.initial_metadata is None
            await stream.send_message(Message())
            await stream.recv_initial_metadata()
            assert dict(stream.initial_metadata) == {"first": "1", "raw-bin": b"\x00\xff"}
            assert stream.trailing_metadata is None
            await stream.recv_message()
            await stream.recv_trailing_metadata()
            assert stream.trailing_metadata.getall("last") == ["2", "3"]
        assert seen == [sent]
        with pytest.raises(ValueError, match="'te' is reserved"):
            await call(channel, metadata={"te": "x"})
        assert channel.statistics().calls == 0


async def test_status_message_and_details(autojump_clock):
    unknown = AnyMessage(type_url="type.googleapis.com/some.Unknown", value=b"\x08\x01")

    async def handler(stream):
        raise GRPCError(Status.NOT_FOUND, "gone: ☺\n", [ErrorInfo(reason="WHY"), unknown])

    async with channel_and_server(unary=handler) as (channel, _):
        with pytest.raises(GRPCError) as caught:
            await call(channel)
        assert caught.value.status is Status.NOT_FOUND
        assert caught.value.message == "gone: ☺\n"
        assert caught.value.details == [ErrorInfo(reason="WHY"), unknown]


async def test_error_after_messages_comes_after_them(autojump_clock):
    async def handler(stream):
        await stream.send_message(Message(n=1))
        raise GRPCError(Status.ABORTED, "enough")

    async with channel_and_server(server_stream=handler) as (channel, _):
        got = []
        with pytest.raises(GRPCError, match="enough"):
            async with request(channel, "server_stream", Cardinality.UNARY_STREAM) as stream:
                await stream.send_message(Message())
                while (message := await stream.recv_message()) is not None:
                    got.append(message.n)
        assert got == [1]


async def test_an_error_that_was_caught_is_not_raised_again(autojump_clock):
    async def handler(stream):
        raise GRPCError(Status.ABORTED, "enough")

    async with channel_and_server(unary=handler) as (channel, _), unary(channel) as stream:
        await stream.send_message(Message())
        with pytest.raises(GRPCError, match="enough"):
            await stream.recv_message()
        with pytest.raises(GRPCError, match="enough"):
            await stream.recv_message()


async def test_leaving_without_reading_raises_the_status(autojump_clock):
    async def handler(stream):
        await stream.recv_message()
        await stream.send_message(Message())
        await stream.send_trailing_metadata(status=Status.DATA_LOSS)

    async with channel_and_server(unary=handler) as (channel, _):
        with pytest.raises(GRPCError) as caught:
            async with unary(channel) as stream:
                await stream.send_message(Message())
        assert caught.value.status is Status.DATA_LOSS


async def test_leaving_discards_what_was_not_read(autojump_clock):
    async def handler(stream):
        for _ in range(100):
            await stream.send_message(Message(data=bytes(20_000)))

    async with channel_and_server({"stream_window": 65_535}, server_stream=handler) as (channel, _):
        async with request(channel, "server_stream", Cardinality.UNARY_STREAM) as stream:
            await stream.send_message(Message())
            await stream.recv_message()
        assert channel.statistics().succeeded == 1


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_compression_by_channel_call_and_message(autojump_clock, encoding):
    seen = []

    async def handler(stream):
        stream.set_compression(encoding)
        async for message in stream:
            seen.append(stream.encoding)
            await stream.send_message(message)

    message = Message(text="squeeze " * 1000)
    async with channel_and_server({"compression": encoding}, bidi=handler, unary=handler) as (channel, _):
        assert await call(channel, message) == message
        assert await call(channel, message, compression="identity") == message
        async with request(channel, "bidi", BIDI) as stream:
            await stream.send_message(message, compress=False)
            await stream.send_message(message, compress=True)
            await stream.end()
            assert [reply async for reply in stream] == [message, message]
        assert seen == [encoding, "identity", encoding, encoding]
        with pytest.raises(ValueError, match="compression is 'br'"):
            unary(channel, compression="br")
        async with unary(channel, compression="identity") as stream:
            with pytest.raises(ValueError, match="compress=True needs"):
                await stream.send_message(message, compress=True)


async def test_message_limits(autojump_clock):
    options = {"max_receive_message_bytes": 1000, "max_send_message_bytes": 500}

    async def handler(stream):
        message = await stream.recv_message()
        stream.set_compression(message.text or "identity")
        await stream.send_message(Message(data=bytes(message.n)))

    async with channel_and_server(options, unary=handler) as (channel, _):
        with pytest.raises(GRPCError, match=r"request of 50. bytes is over the limit of 500 bytes") as caught:
            await call(channel, Message(data=bytes(500)))
        assert caught.value.status is Status.RESOURCE_EXHAUSTED
        assert len((await call(channel, Message(n=990))).data) == 990
        for encoding in ("identity", "gzip", "deflate"):
            with pytest.raises(GRPCError, match="limit of 1000 bytes") as caught:
                await call(channel, Message(n=1001, text=encoding))
            assert caught.value.status is Status.RESOURCE_EXHAUSTED
        assert channel.statistics().connects == 1


async def test_misuse_is_told(autojump_clock):
    async with channel_and_server(unary=echo, bidi=echo) as (channel, _):
        async with unary(channel) as stream:
            with pytest.raises(ProtocolError, match="not sent"):
                await stream.recv_message()
            with pytest.raises(ProtocolError, match="not sent"):
                await stream.recv_initial_metadata()
            with pytest.raises(ProtocolError, match="not sent"):
                await stream.recv_trailing_metadata()
            with pytest.raises(ProtocolError, match="not sent"):
                await stream.end()
            with pytest.raises(ProtocolError, match="not sent"):
                await stream.cancel()
            with pytest.raises(ProtocolError, match="Unary request requires a message"):
                await stream.send_request(end=True)
            with pytest.raises(TypeError, match="Message must be of type"):
                await stream.send_message("text")
            await stream.send_request()
            with pytest.raises(ProtocolError, match="requires a single message"):
                await stream.end()
            await stream.send_message(Message())
            with pytest.raises(ProtocolError, match="already sent"):
                await stream.send_message(Message())
            with pytest.raises(ProtocolError, match="already sent"):
                await stream.send_request()
            await stream.end()
            await stream.recv_initial_metadata()
            with pytest.raises(ProtocolError, match="already received"):
                await stream.recv_initial_metadata()
        with pytest.raises(ProtocolError, match="Outgoing stream was not ended"):
            async with request(channel, "bidi", BIDI) as stream:
                await stream.send_message(Message())
                await stream.recv_message()
        async with request(channel, "bidi", BIDI) as stream:
            await stream.send_request(end=True)
            with pytest.raises(ProtocolError, match="ended"):
                await stream.end()
            with pytest.raises(ProtocolError, match="ended"):
                await stream.send_message(Message())
        before = unary(channel)
    with pytest.raises(trio.ClosedResourceError, match="async with"):
        unary(channel)
    with pytest.raises(trio.ClosedResourceError, match="async with"):
        async with before as stream:
            await stream.send_message(Message())
    with pytest.raises(RuntimeError, match="entered once"):
        async with channel:
            pass


async def test_second_reader_is_told(autojump_clock):
    async with channel_and_server(bidi=echo) as (channel, _), request(channel, "bidi", BIDI) as stream:
        await stream.send_request()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.recv_message)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                await stream.recv_message()
            with pytest.raises(trio.BusyResourceError):
                await stream.recv_initial_metadata()
            await stream.send_message(Message(), end=True)


async def test_cancel_method(autojump_clock):
    ended = trio.Event()

    async def handler(stream):
        try:
            await stream.send_message(Message())
            await trio.sleep_forever()
        finally:
            ended.set()

    async with channel_and_server(server_stream=handler) as (channel, _):
        async with request(channel, "server_stream", Cardinality.UNARY_STREAM) as stream:
            await stream.send_message(Message())
            await stream.recv_message()
            await stream.cancel()
            with pytest.raises(GRPCError) as caught:
                await stream.recv_message()
            assert caught.value.status is Status.CANCELLED
            with pytest.raises(ProtocolError, match="already cancelled"):
                await stream.cancel()
        await ended.wait()


async def test_interceptors_of_both_sides(autojump_clock):
    log = []

    @asynccontextmanager
    async def watch(call):
        log.append(f"{call.side} {call.path} {call.metadata.get('token')} {call.time_remaining():g}")
        try:
            yield
        except GRPCError as error:
            log.append(f"{call.side} {error.status.name}")
            raise
        else:
            log.append(f"{call.side} ok")

    @asynccontextmanager
    async def sign(call):
        call.metadata["token"] = "t"
        yield

    async def fail(stream):
        raise GRPCError(Status.ABORTED)

    async with channel_and_server(
        interceptors=[sign, watch], server_interceptors=[watch], unary=echo, unary_fail=fail
    ) as (channel, _):
        await call(channel, timeout=5)
        with pytest.raises(GRPCError):
            await call(channel, name="unary_fail", timeout=7)
    assert log == [
        "client /test.Service/unary t 5",
        "server /test.Service/unary t 5",
        "server ok",
        "client ok",
        "client /test.Service/unary_fail t 7",
        "server /test.Service/unary_fail t 7",
        "server ABORTED",
        "client ABORTED",
    ]


async def test_interceptors_may_refuse_and_replace_but_not_swallow(autojump_clock):
    @asynccontextmanager
    async def guard(call):
        if "refuse" in call.metadata:
            raise GRPCError(Status.PERMISSION_DENIED, "no")
        try:
            yield
        except GRPCError as error:
            if "replace" in call.metadata:
                raise RuntimeError("replaced") from error

    async def fail(stream):
        raise GRPCError(Status.ABORTED)

    async with channel_and_server(interceptors=[guard], unary=fail) as (channel, _):
        with pytest.raises(GRPCError, match="no"):
            await call(channel, metadata={"refuse": "1"})
        with pytest.raises(RuntimeError, match="replaced"):
            await call(channel, metadata={"replace": "1"})
        with pytest.raises(GRPCError) as caught:
            await call(channel)
        assert caught.value.status is Status.ABORTED
        assert channel.statistics().started == 2


async def test_interceptors_see_what_leaving_the_call_raises(autojump_clock):
    seen = []

    @asynccontextmanager
    async def watch(info):
        try:
            yield
        except (GRPCError, ZeroDivisionError) as error:
            seen.append(type(error))
            raise

    async def fail(stream):
        raise GRPCError(Status.ABORTED, "at the end")

    async with channel_and_server(interceptors=[watch], unary=fail) as (channel, _):
        with pytest.raises(GRPCError, match="at the end"):
            async with unary(channel) as stream:
                await stream.send_message(Message())
        with pytest.raises(ZeroDivisionError):
            async with unary(channel) as stream:
                raise ZeroDivisionError
    assert seen == [GRPCError, ZeroDivisionError]


async def test_initial_metadata_of_an_answer_without_headers(autojump_clock):
    async def fail(stream):
        raise GRPCError(Status.ABORTED, "alone")

    async def nothing(stream):
        await stream.recv_message()

    async with channel_and_server(unary=fail, server_stream=nothing) as (channel, _):
        with pytest.raises(GRPCError, match="alone"):
            async with unary(channel) as stream:
                await stream.send_message(Message())
                await stream.recv_initial_metadata()
        assert stream.trailing_metadata == {}
        async with request(channel, "server_stream", Cardinality.UNARY_STREAM) as stream:
            await stream.send_message(Message())
            await stream.recv_initial_metadata()
            assert stream.initial_metadata == {}
            assert await stream.recv_message() is None


async def test_a_callers_exception_leaves_the_channel_as_it_was_raised(autojump_clock):
    server = rpc.Server([TestService(unary=echo)])
    async with trio.open_nursery() as nursery:
        with trio.fail_after(60), pytest.raises(KeyError, match="mine"):
            async with rpc.open_channel("test", connect=Network(nursery, server).connect) as channel:
                await call(channel)
                raise KeyError("mine")


async def test_state_is_visible(autojump_clock):
    async with channel_and_server(unary=echo) as (channel, _):
        assert repr(channel) == "<Channel 'test' idle, 0 calls, 0 waiting>"
        async with unary(channel) as stream:
            assert repr(stream) == "<ClientCall /test.Service/unary new>"
            await stream.send_message(Message())
            assert repr(stream) == "<ClientCall /test.Service/unary open>"
            assert repr(channel) == "<Channel 'test' ready, 1 calls, 0 waiting>"
            assert stream.peer.addr() is None
            await stream.recv_message()
        assert repr(stream) == "<ClientCall /test.Service/unary done>"
    assert repr(channel) == "<Channel 'test' closed, 0 calls, 0 waiting>"
