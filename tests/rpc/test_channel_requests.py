"""Requests of a stream: who sends them, what feeds them, and what they meet when the call has ended."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError, ProtocolError
from tests._pb.dk_trio.test.v1 import EchoStub, Message

from dk_trio import rpc

from .channel_kit import channel_and_server, channel_to, request
from .test_channel_calls import Echo
from .wire_client import echo

BIDI = Cardinality.STREAM_STREAM


async def test_leaving_raises_what_the_requests_failed_with(autojump_clock):
    async def broken():
        yield Message()
        raise KeyError("mine")

    async with channel_and_server(bidi=echo) as (channel, _):
        with pytest.raises(KeyError, match="mine"):
            async with request(channel, "bidi", BIDI) as stream:
                await stream.send_request()
                stream.feed(broken())
                await trio.sleep(1)


async def test_second_sender_is_told(autojump_clock):
    goes_on = trio.Event()

    async def slow(stream):
        await goes_on.wait()
        assert len((await stream.recv_message()).data) == 1_000_000

    async with channel_and_server(bidi=slow) as (channel, _), request(channel, "bidi", BIDI) as stream:
        await stream.send_request()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_message, Message(data=bytes(1_000_000)))
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError, match="another task is sending"):
                await stream.send_message(Message())
            goes_on.set()
        await stream.end()


async def test_requests_are_fed_once(autojump_clock):
    async with channel_and_server(bidi=echo) as (channel, _), request(channel, "bidi", BIDI) as stream:
        await stream.send_request()
        stream.feed([Message(n=1)])
        with pytest.raises(ProtocolError, match="being fed already"):
            stream.feed([Message(n=2)])
        assert [reply.n async for reply in stream] == [1]


async def test_a_call_that_is_over_takes_no_more_requests(autojump_clock):
    closed = []

    async def refuse(stream):
        raise GRPCError(Status.ABORTED, "no")

    async def requests():
        try:
            await trio.sleep_forever()
            yield Message()
        finally:
            closed.append(True)

    async with channel_and_server(bidi=refuse) as (channel, _), request(channel, "bidi", BIDI) as stream:
        await stream.send_request()
        with pytest.raises(GRPCError, match="no"):
            await stream.recv_message()
        stream.feed(requests())
        await trio.testing.wait_all_tasks_blocked()
        assert closed == [True]


async def test_requests_come_from_any_async_iterable(autojump_clock):
    class Three:
        def __init__(self):
            self.left = 3

        def __aiter__(self):
            return self

        async def __anext__(self):
            if not self.left:
                raise StopAsyncIteration
            self.left -= 1
            return Message(n=self.left)

    async with channel_to(rpc.Server([Echo()])) as (channel, _):
        assert [reply.n async for reply in EchoStub(channel).bidi(Three())] == [2, 1, 0]


async def test_a_send_that_meets_the_end_raises_why_it_ended(autojump_clock):
    async def refuse(stream):
        raise GRPCError(Status.ABORTED, "enough")

    async with channel_and_server(bidi=refuse) as (channel, _):
        with pytest.raises(GRPCError, match="enough"):
            async with request(channel, "bidi", BIDI) as stream:
                await stream.send_request()
                await trio.testing.wait_all_tasks_blocked()
                await stream.send_message(Message())
                pytest.fail("the call had ended")
        with pytest.raises(GRPCError, match="enough"):
            async with request(channel, "bidi", BIDI) as stream:
                await stream.send_request()
                stream.feed([Message()])
                await trio.testing.wait_all_tasks_blocked()
                await trio.sleep(1)
