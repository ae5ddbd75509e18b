"""The drain of a module server, in virtual time: what it waits for, how long, and what it leaves behind."""

from typing import Any

import pytest
import trio
import trio.testing
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from dk_trio.lifecycle import Reason, SessionOptions
from dk_trio.services.setup import SetupVersion
from dk_trio.session import ABANDON_AFTER

from .sample import Message, module_with
from .served import served

GRACE = 5
CLEANUP = SessionOptions().cleanup_grace

# What rpc's drain may add after the last call: last words, a client that does not close, a socket that takes nothing.
SHORT = 3.5


async def misbehaves(self: Any, input_data: Message, setup_data: Any, context: Any) -> None:
    """Goes on for so many seconds, whatever happens, or waits as it should."""
    with trio.CancelScope(shield=bool(input_data.count)):
        await trio.sleep(input_data.count or 86_400)


async def status_of(client: Any, count: int, into: list[Status], *, task_status: Any) -> None:
    with pytest.raises(GRPCError) as caught:
        async with client.start({"protocol": "message", "count": count}) as outputs:
            await anext(outputs)
            task_status.started()
            await anext(outputs)
    into.append(caught.value.status)


async def test_what_does_not_end_is_named(autojump_clock: object) -> None:
    async with served(module_with(misbehaves)) as (server, client), trio.open_nursery() as nursery:
        statuses: list[Status] = []
        for count in (0, 1000, 0):
            await nursery.start(status_of, client, count, statuses)
        begun = trio.current_time()
        (stuck,) = await server.drain(GRACE)
        took = trio.current_time() - begun
        assert GRACE + CLEANUP + ABANDON_AFTER < took < GRACE + CLEANUP + ABANDON_AFTER + SHORT
        assert repr(stuck).endswith("running: shutdown>")
        assert server.statistics().jobs.ended == {Reason.SHUTDOWN: 2}
        await trio.sleep(1000)  # what was stuck has come to its end after all
        assert await server.drain(0) == []
        assert statuses == [Status.UNAVAILABLE] * 3
        assert server.statistics().jobs.ended == {Reason.SHUTDOWN: 3}
        assert server.statistics().rpc.connections == 0


async def test_a_job_that_comes_while_others_are_cleaned_up_after_is_cut(autojump_clock: object) -> None:
    """Its request came in time, its setup did not."""
    came = trio.Event()

    class SlowSetups:
        async def get_setup(self, setup_id: str, mission_id: str) -> SetupVersion:
            if setup_id == "setups:slow":
                came.set()
                await trio.sleep(GRACE + 1)
            return SetupVersion(id="v", setup_id=setup_id, content={})

    async def cleanup(self: Any) -> None:
        await trio.sleep(4)

    async with (
        served(module_with(misbehaves, cleanup=cleanup), setups=SlowSetups()) as (server, client),
        trio.open_nursery() as nursery,
    ):
        statuses: list[Status] = []
        await nursery.start(status_of, client, 0, statuses)

        async def late() -> None:
            with pytest.raises(GRPCError) as caught:
                async with client.start({"protocol": "message"}, setup_id="setups:slow") as outputs:
                    await anext(outputs)
            statuses.append(caught.value.status)

        nursery.start_soon(late)
        await came.wait()
        begun = trio.current_time()
        assert await server.drain(GRACE) == []
        assert trio.current_time() - begun < GRACE + 4 + SHORT
        assert statuses == [Status.UNAVAILABLE] * 2
        assert server.statistics().jobs.ended == {Reason.SHUTDOWN: 2}


async def test_a_setup_that_never_comes_does_not_hold_it_up(autojump_clock: object) -> None:
    class NoSetups:
        async def get_setup(self, setup_id: str, mission_id: str) -> SetupVersion:
            await trio.sleep_forever()
            raise AssertionError

    async with served(module_with(misbehaves), setups=NoSetups()) as (server, client), trio.open_nursery() as nursery:

        async def asks() -> None:
            with pytest.raises(GRPCError) as caught:
                async with client.start({"protocol": "message"}) as outputs:
                    await anext(outputs)
            assert caught.value.status is Status.UNAVAILABLE

        nursery.start_soon(asks)
        await trio.sleep(1)
        begun = trio.current_time()
        assert await server.drain(GRACE) == []
        assert trio.current_time() - begun < GRACE + SHORT


async def test_a_drain_that_is_cancelled_may_be_called_again(autojump_clock: object) -> None:
    """As after a second signal."""
    async with served(module_with(misbehaves)) as (server, client), trio.open_nursery() as nursery:
        statuses: list[Status] = []
        await nursery.start(status_of, client, 0, statuses)
        with trio.move_on_after(10) as scope:
            await server.drain(1000)
        assert scope.cancelled_caught
        assert statuses == []
        begun = trio.current_time()
        assert await server.drain(0) == []
        assert trio.current_time() - begun < SHORT
        assert statuses == [Status.UNAVAILABLE]


async def test_there_is_nothing_to_wait_for(autojump_clock: object) -> None:
    async with served(module_with(misbehaves)) as (server, client):
        await client.channel.ready()
        begun = trio.current_time()
        assert await server.drain(1000) == []
        assert trio.current_time() - begun < SHORT
