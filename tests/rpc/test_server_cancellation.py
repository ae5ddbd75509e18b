"""Every way in which a handler is cancelled (deadline, reset, lost connection, end of the server), and what it may do.

A handler sees `trio.Cancelled` and nothing else.
"""

from __future__ import annotations

import time
from contextlib import suppress

import pytest
import trio
import trio.testing
from grpclib.const import Status
from grpclib.exceptions import GRPCError, StreamTerminatedError
from tests._pb.dk_trio.test.v1 import Message

from dk_trio import rpc

from .wire_client import DAY, Reset, TestService, WireClient, connected, echo, serving


class Patient:
    """A handler that waits until it is cancelled, and records when and how that was."""

    def __init__(self) -> None:
        self.started = 0
        self.cancelled_at: list[float] = []
        self.begun = trio.Event()

    async def __call__(self, stream):
        self.started += 1
        self.begun.set()
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            self.cancelled_at.append(trio.current_time())
            raise


async def test_a_minute_passes_in_milliseconds(autojump_clock):
    handler = Patient()
    started = time.perf_counter()
    async with serving(unary=handler) as (client, server):
        begin = trio.current_time()
        call = await client.call("unary", Message(), timeout=60)
        assert await call.status() == (Status.DEADLINE_EXCEEDED, "the deadline of 60 s has passed")
        assert trio.current_time() - begin == pytest.approx(60)
        assert handler.cancelled_at == [pytest.approx(begin + 60)]
        assert server.statistics().rpcs == 0
    assert time.perf_counter() - started < 5


@pytest.mark.parametrize("timeout", [b"0S", b"0n", b"1n", b"1u", b"1m"])
async def test_tiny_deadlines(autojump_clock, timeout):
    handler = Patient()
    async with serving(unary=handler, unary_echo=echo) as (client, _):
        call = await client.call("unary", Message(), timeout=timeout)
        assert (await call.status())[0] is Status.DEADLINE_EXCEEDED
        assert handler.started == len(handler.cancelled_at) == 1
        assert await client.unary("unary_echo") == Message()


async def test_huge_deadline(autojump_clock):
    async with serving(unary=echo) as (client, _):
        call = await client.call("unary", Message(), timeout=b"99999999H")
        assert await call.answer() == Message()


async def test_deadline_while_sending(autojump_clock):
    """A handler that waits for the client's window is cancelled as any other."""
    cancelled = []

    async def handler(stream):
        try:
            while True:
                await stream.send_message(Message(data=bytes(10_000)))
        except trio.Cancelled:
            cancelled.append(trio.current_time())
            raise

    async with serving(bidi=handler) as (client, _):
        call = await client.call("bidi", timeout=60)
        assert (await call.status())[0] is Status.DEADLINE_EXCEEDED
    assert len(cancelled) == 1


async def test_reset_cancels_one_handler_only(autojump_clock):
    handler, other = Patient(), Patient()
    async with serving(unary=handler, unary_other=other) as (client, server):
        call = await client.call("unary", Message())
        await client.call("unary_other", Message())
        await trio.testing.wait_all_tasks_blocked()
        await call.reset_by_client()
        await trio.testing.wait_all_tasks_blocked()
        assert len(handler.cancelled_at) == 1
        assert other.cancelled_at == []
        assert server.statistics().rpcs == 1


async def test_reset_before_the_handler_ran(autojump_clock):
    """HEADERS and RST_STREAM in one read: the handler starts cancelled, and the counts are right."""
    handler = Patient()
    async with serving(unary=handler) as (client, server):
        call = await client.call("unary", end=False)
        call.reset(8)
        await client.flush()
        await trio.testing.wait_all_tasks_blocked()
        assert server.statistics().rpcs == 0
        assert handler.started == len(handler.cancelled_at)


async def lose_by_eof(client: WireClient) -> None:
    await client.stream.send_eof()


async def lose_abruptly(client: WireClient) -> None:
    await client.stream.aclose()


async def lose_by_protocol_error(client: WireClient) -> None:
    await client.stream.send_all(b"\0\0\0\x07\0\0\0\0\0")  # GOAWAY without its fields


@pytest.mark.parametrize("lose", [lose_by_eof, lose_abruptly, lose_by_protocol_error])
async def test_lost_connection_cancels_all_of_its_handlers(autojump_clock, lose):
    lost, kept = Patient(), Patient()
    service = TestService(unary=lost, unary_other=kept)
    server = rpc.Server([service])
    async with connected(server) as bystander:
        await bystander.call("unary_other", Message())
        async with connected(server) as client:
            for _ in range(10):
                await client.call("unary", Message())
            await trio.testing.wait_all_tasks_blocked()
            assert server.statistics().rpcs == 11
            begin = trio.current_time()
            await lose(client)
            await trio.testing.wait_all_tasks_blocked()
            assert len(lost.cancelled_at) == 10
            assert server.statistics().rpcs == 1
            assert server.statistics().connections == 1
            assert trio.current_time() == begin
        assert kept.cancelled_at == []


async def test_stream_that_breaks_while_the_handler_sends(autojump_clock):
    """The writer finds out first: the transport's error ends the connection, not the server."""
    ended = []

    async def handler(stream):
        try:
            while True:
                await stream.send_message(Message())
                await trio.sleep(1)
        finally:
            ended.append(trio.current_time())

    async with serving(bidi=handler) as (client, server):
        await client.call("bidi")
        await trio.testing.wait_all_tasks_blocked()
        client.stream.receive_stream.close()  # our reading side: what the server writes now is an error
        await trio.sleep(2)
        assert len(ended) == 1
        assert server.statistics().connections == 0


async def test_cleanup_goes_on_after_the_connection_is_gone(autojump_clock):
    done = []

    async def handler(stream):
        try:
            await trio.sleep_forever()
        finally:
            with trio.move_on_after(10, shield=True):
                with pytest.raises(StreamTerminatedError, match="the client has gone"):
                    await stream.send_message(Message())
                with pytest.raises(StreamTerminatedError, match="the client has gone"):
                    await stream.recv_message()
                await trio.sleep(5)
                done.append(trio.current_time())

    async with serving(bidi=handler) as (client, server):
        await client.call("bidi", end=False)
        await trio.testing.wait_all_tasks_blocked()
        begin = trio.current_time()
        await client.stream.aclose()
        await trio.sleep(1)
        assert server.statistics().rpcs == 1  # it still costs, so it still counts
        await trio.sleep(5)
        assert server.statistics().rpcs == 0
        assert done == [pytest.approx(begin + 5)]


async def test_a_shielded_sender_does_not_wait_for_a_client_that_has_gone(autojump_clock):
    raised = []

    async def handler(stream):
        with trio.move_on_after(1000, shield=True):
            try:
                while True:
                    await stream.send_message(Message(data=bytes(10_000)))
            except StreamTerminatedError:
                raised.append(trio.current_time())

    async with serving(bidi=handler) as (client, _):
        await client.call("bidi")
        await trio.testing.wait_all_tasks_blocked()  # the window is full
        begin = trio.current_time()
        await client.stream.aclose()
        await trio.sleep(10)
        assert raised == [pytest.approx(begin)]


async def test_shielded_sender_behind_a_full_transport(autojump_clock):
    """The same when it is not the window but the transport that is full."""
    raised = []

    async def handler(stream):
        with trio.move_on_after(1000, shield=True):
            try:
                while True:
                    await stream.send_message(Message(data=bytes(10_000)))
            except StreamTerminatedError:
                raised.append(trio.current_time())

    server = rpc.Server([TestService(bidi=handler)])
    async with connected(server, pair=trio.testing.lockstep_stream_pair, read=False, stream_window=1 << 24) as client:
        client.wire.queue(b"\0\0\4\x08\0\0\0\0\0" + (1 << 24).to_bytes(4, "big"))  # the connection's window, too
        await client.call("bidi")
        await trio.testing.wait_all_tasks_blocked()
        begin = trio.current_time()
        await client.stream.aclose()
        await trio.sleep(10)
        assert raised == [pytest.approx(begin)]
        assert server.statistics().connections == 0


async def test_cancellation_swallowed_without_an_answer(autojump_clock):
    """The deadline was the reason, so the status says so."""

    async def handler(stream):
        with suppress(trio.Cancelled):  # what a handler should not do
            await trio.sleep_forever()

    async with serving(unary=handler, unary_echo=echo) as (client, _):
        call = await client.call("unary", Message(), timeout=1)
        assert (await call.status())[0] is Status.DEADLINE_EXCEEDED
        assert await client.unary("unary_echo") == Message()


async def test_an_answer_under_a_shield_after_the_deadline(autojump_clock):
    """Late, but whole: the client decides what it is worth."""

    async def handler(stream):
        with trio.move_on_after(5):
            await trio.sleep_forever()
        with trio.CancelScope(shield=True):
            try:
                await trio.sleep(1)
            finally:
                await stream.send_message(Message(text="late"))

    async with serving(unary=handler) as (client, _):
        call = await client.call("unary", Message(), timeout=5.5)
        assert (await call.receive()).text == "late"
        assert (await call.status())[0] is Status.OK


async def test_failure_during_cancellation(autojump_clock, caplog):
    """Even out of a nursery, where it comes together with `Cancelled`, it neither ends the connection nor is lost."""

    async def handler(stream):
        async def fail():
            try:
                await trio.sleep_forever()
            finally:
                raise ValueError("cleanup failed")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail)
            nursery.start_soon(trio.sleep_forever)

    async with serving(unary=handler, unary_echo=echo) as (client, _):
        call = await client.call("unary", Message(), timeout=1)
        assert (await call.status())[0] is Status.DEADLINE_EXCEEDED
        call = await client.call("unary", Message())
        await trio.testing.wait_all_tasks_blocked()
        await call.reset_by_client()
        assert await client.unary("unary_echo") == Message()
    assert caplog.text.count("ValueError: cleanup failed") == 2


async def test_cancelled_server_ends_all_handlers(autojump_clock):
    """Whoever runs the server cancels: handlers are cancelled, the clients are told, the stream is closed."""
    handler = Patient()
    ours, theirs = trio.testing.memory_stream_pair()
    server = rpc.Server([TestService(unary=handler)])
    with trio.fail_after(DAY):
        async with trio.open_nursery() as outside:
            scope = trio.CancelScope()

            async def serve():
                with scope:
                    await server.serve_stream(theirs)

            outside.start_soon(serve)
            client = WireClient(ours)
            outside.start_soon(client.read)
            calls = [await client.call("unary", Message()) for _ in range(5)]
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
            await client.lost.wait()
            await trio.testing.wait_all_tasks_blocked()
            assert len(handler.cancelled_at) == 5
            assert server.statistics().rpcs == server.statistics().connections == 0
            for call in calls:
                assert await call.status() == (Status.UNAVAILABLE, "the server is shutting down")


async def test_a_call_after_reset_of_another_uses_a_fresh_scope(autojump_clock):
    """Tasks are reused, cancelled scopes are not."""
    handler = Patient()
    async with serving(unary=handler, unary_echo=echo) as (client, _):
        for _ in range(20):
            call = await client.call("unary", Message())
            await trio.testing.wait_all_tasks_blocked()
            await call.reset_by_client()
            assert await client.unary("unary_echo") == Message()
    assert len(handler.cancelled_at) == 20


async def test_reset_after_the_answer_does_not_reach_the_next_call(autojump_clock):
    """A reset that crosses the trailers finds no handler, least of all the one that its task runs now."""

    async def slow(stream):
        await stream.recv_message()
        await trio.sleep(1)
        await stream.send_message(Message(text="done"))

    async with serving(unary_echo=echo, unary_slow=slow) as (client, _):
        first = await client.call("unary_echo", Message())
        await trio.testing.wait_all_tasks_blocked()
        second = await client.call("unary_slow", Message())
        client.wire.queue(b"\0\0\4\x03\0" + first.id.to_bytes(4, "big") + b"\0\0\0\x08")
        await client.flush()
        assert (await second.answer()).text == "done"


async def test_grpc_error_while_the_client_is_gone(autojump_clock):
    async def handler(stream):
        try:
            await trio.sleep_forever()
        finally:
            raise GRPCError(Status.ABORTED, "too late to tell")

    async with serving(unary=handler, unary_echo=echo) as (client, _):
        call = await client.call("unary", Message())
        await trio.testing.wait_all_tasks_blocked()
        await call.reset_by_client()
        assert await client.unary("unary_echo") == Message()
        with pytest.raises(Reset):
            await call.status()
