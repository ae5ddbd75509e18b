"""Calls that end while their handler's tasks still send and receive."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from grpclib.const import Status
from grpclib.exceptions import ProtocolError, StreamTerminatedError
from tests._pb.dk_trio.test.v1 import Message

from dk_trio import rpc

from .test_server_stalls import check_accounts
from .wire_client import echo, serving

WINDOW = 65_535


async def fail(stream: rpc.ServerCall) -> None:
    await stream.send_trailing_metadata(status=Status.ABORTED, status_message="enough")


async def reset(stream: rpc.ServerCall) -> None:
    await stream.cancel()


@pytest.mark.parametrize("end", [True, False])
@pytest.mark.parametrize("how", [fail, reset])
async def test_a_call_that_another_task_ends_lets_its_senders_and_readers_go(autojump_clock, how, end):
    """A stream that is over gets no window and no message: who waits for one would wait for ever."""
    raised = []

    async def handler(stream):
        async def send():
            with pytest.raises(ProtocolError, match="the call has ended, nothing can be sent any more"):
                await stream.send_message(Message(data=bytes(200_000)))
            raised.append("send")

        async def receive():
            with pytest.raises(StreamTerminatedError, match="the call has ended"):
                await stream.recv_message()
            raised.append("receive")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            nursery.start_soon(send)
            if not end:
                nursery.start_soon(receive)
            await trio.sleep(10)
            await how(stream)

    async with serving(bidi=handler, unary=echo, client={"stream_window": WINDOW}) as (client, server):
        call = await client.call("bidi", end=end)
        await trio.sleep(11)
        assert sorted(raised) == ["send", "send"] if end else ["receive", "send", "send"]
        assert server.statistics().rpcs == 0
        if how is fail:
            assert await call.status() == (Status.ABORTED, "enough")
        assert await client.unary("unary") == Message()
        check_accounts(server, client)


async def test_a_message_that_went_out_whole_is_not_refused_because_the_call_ends_with_ok(autojump_clock):
    """Its sender and the one who ends the call are woken by the same window, in either order."""
    sent = []

    async def handler(stream):
        async def send():
            await stream.send_message(Message(data=bytes(100_000)))
            sent.append(True)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            await trio.sleep(1)
            await stream.send_trailing_metadata()

    async with serving(bidi=handler, client={"stream_window": WINDOW}) as (client, _):
        for n in range(1, 11):
            call = await client.call("bidi")
            await trio.sleep(2)
            assert len((await call.receive()).data) == 100_000
            assert await call.status() == (Status.OK, None)
            await trio.testing.wait_all_tasks_blocked()
            assert len(sent) == n
