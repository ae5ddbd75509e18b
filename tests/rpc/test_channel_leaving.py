"""Callers that go away: dropped iterators, abandoned calls, request iterators that fail. The others never notice."""

from __future__ import annotations

import gc
import threading
from contextlib import asynccontextmanager, suppress

import pytest
import trio
import trio.testing
from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError
from tests._pb.dk_trio.test.v1 import EchoBase, EchoStub, Message

from dk_trio import rpc
from dk_trio.wire import ErrorCode

from .channel_kit import call, channel_and_server, channel_to, request

PATH = "/dk_trio.test.v1.Echo/"


@pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning")  # Trio's advice, which this caller ignored
async def test_a_dropped_iterator_resets_its_call(autojump_clock):
    async with channel_to() as (channel, network):
        replies = EchoStub(channel).server_stream(Message())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(replies.__anext__)
            answer = await (await network.accept()).next_call()
            await answer.reply()
        del replies
        gc.collect()
        assert await answer.until_gone() == ErrorCode.CANCEL
        assert channel.statistics().calls == 0


async def test_leaving_a_loop_early_and_closing_the_generator(autojump_clock):
    async with channel_to() as (channel, network):

        async def serve() -> None:
            answer = await (await network.accept()).next_call()
            for n in range(3):
                await answer.reply(Message(n=n))
            codes.append(await answer.until_gone())

        codes: list[int] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            replies = EchoStub(channel).server_stream(Message())
            async for reply in replies:
                if reply.n == 1:
                    break
            await replies.aclose()
        assert codes == [ErrorCode.CANCEL]


@pytest.mark.parametrize("where", ["task", "thread"])
async def test_abandon_from_anywhere(autojump_clock, where):
    async with channel_to() as (channel, network):
        stream = request(channel, "x", Cardinality.UNARY_STREAM)
        await stream.__aenter__()
        await stream.send_message(Message())
        answer = await (await network.accept()).next_call()
        if where == "thread":
            thread = threading.Thread(target=stream.abandon)
            thread.start()
            thread.join()
        else:
            stream.abandon()
        stream.abandon()
        assert await answer.until_gone() == ErrorCode.CANCEL
        stream.abandon()
        with pytest.raises(GRPCError, match="the caller left"):
            await stream.recv_message()


@pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning")  # Trio's advice, which this caller ignored
async def test_abandoned_calls_leave_their_interceptors(autojump_clock):
    log = []

    @asynccontextmanager
    async def watch(info):
        try:
            yield
        except GRPCError as error:
            log.append(error.status)
            raise

    async with channel_to(interceptors=[watch]) as (channel, network):
        replies = EchoStub(channel).server_stream(Message())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(replies.__anext__)
            await (await (await network.accept()).next_call()).reply()
        del replies
        gc.collect()
        await trio.testing.wait_all_tasks_blocked()
        assert log == [Status.CANCELLED]


async def test_a_call_that_was_never_begun_is_abandoned_without_a_word(autojump_clock):
    log = []

    @asynccontextmanager
    async def watch(info):
        try:
            yield
        except GRPCError as error:
            log.append(error.status)
            raise

    async with channel_to(interceptors=[watch]) as (channel, network):
        begun = request(channel, "bidi", Cardinality.STREAM_STREAM)
        await begun.__aenter__()
        begun.abandon()
        await trio.testing.wait_all_tasks_blocked()
        assert log == [Status.CANCELLED]
        assert network.attempts == []


async def test_interceptors_of_a_call_that_is_abandoned_after_its_end_learn_of_its_end(autojump_clock):
    log = []

    @asynccontextmanager
    async def watch(info):
        try:
            yield
        except GRPCError as error:
            log.append(info.status_for(error))
            raise
        log.append(info.status_for(None))

    async def two(stream):
        await stream.recv_message()
        await stream.send_message(Message())
        if stream.metadata.get("fail"):
            raise GRPCError(Status.ABORTED)

    async with channel_and_server(interceptors=[watch], server_stream=two) as (channel, _):
        for metadata in ({}, {"fail": "1"}):
            call = request(channel, "server_stream", Cardinality.UNARY_STREAM, metadata=metadata)
            await call.__aenter__()
            await call.send_message(Message())
            await call.recv_message()
            with suppress(GRPCError):
                await call.recv_message()
            call.abandon()
            await trio.testing.wait_all_tasks_blocked()
    assert log == [Status.OK, Status.ABORTED]


def test_abandon_after_the_end_of_trio_does_nothing():
    kept = []

    async def main() -> None:
        async with rpc.open_channel("test", connect=trio.sleep_forever) as channel:
            kept.append(request(channel, "x", Cardinality.UNARY_STREAM))

    trio.run(main)
    kept[0].abandon()


class Summing(EchoBase):
    async def client_stream(self, messages):
        total = 0
        async for message in messages:
            total += message.n
        return Message(n=total)

    async def bidi(self, messages):
        async for message in messages:
            yield message


async def test_an_iterator_that_fails_fails_its_call_with_that_exception(autojump_clock):
    async def broken():
        yield Message(n=1)
        raise KeyError("mine")

    def broken_too():
        yield Message(n=1)
        raise KeyError("mine")

    async with channel_to(rpc.Server([Summing()])) as (channel, _):
        stub = EchoStub(channel)
        for messages in (broken(), broken_too()):
            with pytest.raises(KeyError, match="mine"):
                await stub.client_stream(messages)
        with pytest.raises(KeyError, match="mine"):
            async for _ in stub.bidi(broken()):
                pass
        assert (await stub.client_stream([Message(n=2)] * 3)).n == 6


async def test_the_feeding_task_ends_with_its_call(autojump_clock):
    closed = []

    async def endless():
        try:
            while True:
                yield Message()
                await trio.sleep(1)
        finally:
            closed.append(trio.current_time())

    async with channel_to() as (channel, network):
        before = len(channel.nursery.child_tasks)
        async with trio.open_nursery() as nursery:

            async def serve() -> None:
                answer = await (await network.accept()).next_call()
                await trio.sleep(5.5)
                await answer.answer(Message(n=5))

            nursery.start_soon(serve)
            assert (await EchoStub(channel).client_stream(endless())).n == 5
        await trio.testing.wait_all_tasks_blocked()
        assert closed == [5.5]
        assert len(channel.nursery.child_tasks) == before + 1  # the connection


async def test_a_waiting_iterator_does_not_keep_the_caller_from_its_answer(autojump_clock):
    async def never():
        yield Message(n=1)
        await trio.sleep_forever()

    async with channel_to() as (channel, network), trio.open_nursery() as nursery:

        async def serve() -> None:
            answer = await (await network.accept()).next_call()
            await answer.receive()
            await answer.finish(Status.ALREADY_EXISTS, "known")

        nursery.start_soon(serve)
        with pytest.raises(GRPCError, match="known"):
            await EchoStub(channel).client_stream(never())


async def test_leavers_never_disturb_the_others(autojump_clock):
    """Half of a hundred callers are cancelled at every moment of their calls; each of the others gets its own reply."""
    async with channel_to(rpc.Server([Summing()])) as (channel, _):
        stub = EchoStub(channel)
        replies = {}

        async def stayer(n: int) -> None:
            async def numbers():
                for k in range(5):
                    yield Message(n=n * 10 + k)
                    await trio.sleep(0.01)

            replies[n] = [reply.n async for reply in stub.bidi(numbers())]

        async def leaver(n: int) -> None:
            async def numbers():
                while True:
                    yield Message(n=-n)
                    await trio.sleep(0.001 * (1 + n % 7))

            with trio.move_on_after(0.0005 * n):
                async for _ in stub.bidi(numbers()):
                    pass

        async with trio.open_nursery() as nursery:
            for n in range(100):
                nursery.start_soon(stayer if n % 2 else leaver, n)
        assert replies == {n: [n * 10 + k for k in range(5)] for n in range(1, 100, 2)}
        statistics = channel.statistics()
        assert (statistics.calls, statistics.succeeded, statistics.connects) == (0, 50, 1)


async def test_grpclibs_own_way_of_calling(autojump_clock):
    """A call made and never entered, or entered and never sent, costs nothing."""
    async with channel_to() as (channel, network):
        request(channel, "x", Cardinality.UNARY_UNARY)
        async with request(channel, "x", Cardinality.UNARY_UNARY):
            pass
        assert network.attempts == []
        with pytest.raises(ZeroDivisionError):
            async with request(channel, "x", Cardinality.UNARY_UNARY):
                raise ZeroDivisionError
        assert channel.statistics().started == 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call, channel)
            await (await (await network.accept()).next_call()).answer()
