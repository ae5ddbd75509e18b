"""A caller that goes away, in whatever way: its job is cancelled, its cleanup runs, and nobody else notices."""

from typing import Any

import pytest
import trio
import trio.testing
from grpclib.exceptions import GRPCError

from dk_trio import ModuleClient, ModuleServer, rpc
from dk_trio.errors import SessionEndedError

from .sample import Message, module_with
from .served import DAY, outputs_of, served


async def sleeps(self: Any, input_data: Any, setup_data: Any, context: Any) -> None:
    await context.send(Message(text=input_data.text))
    if input_data.text == "wait":
        await trio.sleep_forever()


async def test_a_lost_connection_cancels_its_jobs_only(autojump_clock: object) -> None:
    cleaned: list[str] = []

    async def cleanup(self: Any, context: Any) -> None:
        await trio.sleep(1)
        cleaned.append(context.session.mission_id)

    server = ModuleServer(module_with(sleeps, cleanup=cleanup))
    streams: list[trio.abc.Stream] = []
    with trio.fail_after(DAY):
        async with server.opened(), trio.open_nursery() as nursery:

            async def connect() -> trio.abc.Stream:
                ours, theirs = trio.testing.memory_stream_pair()
                nursery.start_soon(server.serve_stream, theirs)
                streams.append(ours)
                return ours

            async def wait_on(channel: rpc.Channel, mission: str, *, task_status: Any) -> None:
                client = ModuleClient(channel)
                async with client.start({"protocol": "message", "text": "wait"}, mission_id=mission) as outputs:
                    await anext(outputs)
                    task_status.started()
                    with pytest.raises(GRPCError):
                        async for _ in outputs:
                            pass

            options = rpc.ChannelOptions(retry=None)
            async with (
                rpc.open_channel("lost", connect=connect, options=options) as lost,
                rpc.open_channel("bystander", connect=connect, options=options) as bystander,
            ):
                for number in range(3):
                    await nursery.start(wait_on, lost, f"lost {number}")
                await outputs_of(ModuleClient(bystander), {"protocol": "message", "text": "go"}, mission_id="before")
                assert server.statistics().jobs.running == 3
                await trio.aclose_forcefully(streams[0])
                await outputs_of(ModuleClient(bystander), {"protocol": "message", "text": "go"}, mission_id="after")
                await trio.sleep(5)
                assert server.statistics().jobs.running == 0
                assert server.statistics().jobs.cancelled == 3
                assert sorted(cleaned) == ["after", "before", "lost 0", "lost 1", "lost 2"]
            nursery.cancel_scope.cancel()


async def test_a_cleanup_cannot_send_to_a_caller_that_has_gone(
    autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    raised: list[str] = []

    async def cleanup(self: Any, context: Any) -> None:
        with pytest.raises(SessionEndedError, match="has no caller any more") as caught:
            await context.send(Message(text="goodbye"))
        raised.append(caught.value.code)
        raise caught.value

    async with served(module_with(sleeps, cleanup=cleanup)) as (server, client):
        async with client.start({"protocol": "message", "text": "wait"}) as outputs:
            await anext(outputs)
        await trio.sleep(5)
        assert server.statistics().jobs.cancelled == 1
    assert raised == ["SESSION_ENDED"]
    assert caplog.text == ""  # nothing here is anybody's fault


async def test_many_callers_that_leave_at_once(autojump_clock: object) -> None:
    cleaned = 0

    async def cleanup(self: Any) -> None:
        nonlocal cleaned
        await trio.sleep(1)
        cleaned += 1

    async with served(module_with(sleeps, cleanup=cleanup)) as (server, client):

        async def visit() -> None:
            async with client.start({"protocol": "message", "text": "wait"}) as outputs:
                await anext(outputs)
                await trio.sleep(10)

        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(visit)
        await trio.sleep(5)
        assert cleaned == 100
        assert server.statistics().jobs.cancelled == 100
        assert server.statistics().jobs.running == 0
