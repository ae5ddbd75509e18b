"""How a server stops: who may finish, who is cut and what they are told, and what cannot hold it up."""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import trio
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from tests.module.served import outputs_of
from tests.rpc.wire_client import WireClient

from dk_trio.pb.grpc.health.v1 import HealthCheckRequest, HealthCheckResponse, HealthStub
from dk_trio.server import READINESS

from .crowd import ROOMY, Caller, calling, connected, connection_to, start_unread, until_jobs_are
from .processes import ECHO, PATIENCE, Running, serving, started

UNRULY = str(Path(__file__).with_name("unruly_module.py"))
CROWD = [sys.executable, str(Path(__file__).with_name("grpcio_crowd.py"))]

WHOLE = ["module_start_info", "work", "end_of_stream"]
CUT = ["module_start_info", "work"]

# Longer than anybody waits here: whoever ends before has been told to.
FOR_EVER = "600"


def work(**root: Any) -> dict[str, Any]:
    return {"protocol": "work", **root}


def assert_stopped(server: Running, *, finished: int, cut: int) -> None:
    last = server.lines["stderr"][-1]
    assert last.endswith(f" INFO dk_trio.serve: stopped: {finished} jobs finished while draining, {cut} were cut")


def assert_cut(caller: Caller) -> None:
    assert caller.status is Status.UNAVAILABLE
    assert caller.failure is not None
    assert caller.failure["message"] == f"Job {caller.job_id} was stopped: the server is shutting down."


async def test_jobs_end_within_the_grace_or_are_cut(tmp_path: Path) -> None:
    release = tmp_path / "release"
    async with serving(UNRULY, "--grace", "5", **ROOMY) as server, connected(server.address) as client:
        async with calling(client, (100, work(until=str(release))), (100, work())) as callers:
            server.process.send_signal(signal.SIGTERM)
            await server.wait_for("SIGTERM: draining, 200 running and 0 waiting jobs get 5 s")
            release.touch()
        for caller in callers[:100]:
            assert (caller.protocols, caller.status, caller.failure) == (WHOLE, Status.OK, None)
        for caller in callers[100:]:
            assert caller.protocols == CUT
            assert_cut(caller)
        assert await server.wait() == 0
        assert_stopped(server, finished=100, cut=100)


async def test_jobs_of_a_foreign_client_end_within_the_grace_or_are_cut(tmp_path: Path) -> None:
    release = tmp_path / "release"
    jobs = json.dumps([(100, work(until=str(release))), (100, work())])
    async with (
        serving(UNRULY, "--grace", "5", **ROOMY) as server,
        started(server.address, jobs, program=CROWD) as crowd,
    ):
        await crowd.wait_for("begun 200", "stdout")
        server.process.send_signal(signal.SIGTERM)
        await server.wait_for("draining, 200 running")
        release.touch()
        assert await server.wait() == 0
        assert_stopped(server, finished=100, cut=100)
        assert await crowd.wait() == 0, crowd.lines
        _, *ends = crowd.lines["stdout"]
        assert len(ends) == 200
        for end in map(json.loads, ends[:100]):
            assert (end["protocols"], end["status"], end["failure"]) == (WHOLE, "OK", None)
        for end in map(json.loads, ends[100:]):
            assert (end["protocols"], end["status"]) == (CUT, "UNAVAILABLE")
            assert end["failure"]["message"].endswith("was stopped: the server is shutting down.")


async def test_nothing_new_is_taken_while_jobs_end(tmp_path: Path) -> None:
    release = tmp_path / "release"
    async with serving(UNRULY, "--grace", FOR_EVER, **ROOMY) as server, connected(server.address) as client:
        states = HealthStub(client.channel).watch(HealthCheckRequest(service=READINESS))
        assert await anext(states) == HealthCheckResponse(status=1)
        async with calling(client, (1, work(until=str(release)))) as (caller,):
            server.process.send_signal(signal.SIGTERM)
            with trio.fail_after(PATIENCE):
                assert await anext(states) == HealthCheckResponse(status=2)  # NOT_SERVING
                with pytest.raises(GRPCError) as watched:
                    await anext(states)
            assert watched.value.status is Status.UNAVAILABLE
            with pytest.raises(OSError, match="connect"):
                await connection_to(server.address)
            refused = Caller()
            with trio.fail_after(PATIENCE):
                await refused.call(client, work(until=str(release)))
            assert (refused.status, refused.roots) == (Status.UNAVAILABLE, [])
            assert caller.status is None
            release.touch()
        assert caller.protocols == WHOLE
        assert await server.wait() == 0
        assert_stopped(server, finished=1, cut=0)


async def test_calls_that_come_all_the_time_are_whole_or_refused() -> None:
    callers: list[Caller] = []

    async def calls(address: str) -> None:
        async with connected(address) as client:
            caller = Caller(status=Status.OK)
            while caller.status is Status.OK:
                caller = Caller()
                callers.append(caller)
                await caller.call(client, {"protocol": "message", "n": 20, "gap_s": 0.002})

    async with serving(ECHO, "--grace", FOR_EVER, **ROOMY) as server:
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                for _ in range(50):
                    nursery.start_soon(calls, server.address)
                while not any(caller.status is Status.OK for caller in callers):  # noqa: ASYNC110 - a condition of many tasks
                    await trio.sleep(0.01)
                server.process.send_signal(signal.SIGTERM)
        assert await server.wait() == 0
    whole = [caller for caller in callers if caller.status is Status.OK]
    refused = [caller for caller in callers if caller.status is Status.UNAVAILABLE]
    assert len(callers) == len(whole) + len(refused)
    assert len(refused) == 50
    for caller in whole:
        assert (caller.protocols[-1], caller.numbers) == ("end_of_stream", list(range(20)))
    for caller in refused:
        assert caller.roots == []


async def test_jobs_that_wait_for_a_slot_get_it_within_the_grace(tmp_path: Path) -> None:
    release = tmp_path / "release"
    limits = {"DIGITALKIN_MAX_CONCURRENT_TASKS": "2", "DIGITALKIN_MAX_QUEUED_TASKS": "50"}
    may_end, never = work(until=str(release)), work()
    async with serving(UNRULY, "--grace", "3", **limits) as server, connected(server.address) as client:
        waiting = [Caller() for _ in range(20)]
        async with calling(client, (2, may_end)) as running, trio.open_nursery() as nursery:
            for number, caller in enumerate(waiting, 1):
                nursery.start_soon(caller.call, client, may_end if number <= 10 else never)
                await until_jobs_are(client, {"PROCESSING": 2, "STARTING": number})
            server.process.send_signal(signal.SIGTERM)
            await server.wait_for("draining, 2 running and 20 waiting jobs")
            release.touch()
        for caller in [*running, *waiting[:10]]:
            assert (caller.protocols, caller.status) == (WHOLE, Status.OK)
        for caller in waiting[10:12]:  # those which got the slots then
            assert caller.protocols == CUT
            assert_cut(caller)
        for caller in waiting[12:]:
            assert (caller.protocols, caller.status) == ([], Status.UNAVAILABLE)
            assert caller.failure is not None
        assert await server.wait() == 0
        assert_stopped(server, finished=12, cut=10)


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
async def test_a_second_signal_cuts_at_once(first: signal.Signals, second: signal.Signals) -> None:
    async with serving(UNRULY, "--grace", FOR_EVER, **ROOMY) as server, connected(server.address) as client:
        async with calling(client, (10, work())) as callers:
            server.process.send_signal(first)
            await server.wait_for(f"{first.name}: draining")
            server.process.send_signal(second)
            await server.wait_for(f"{second.name} again: cancelling")
        for caller in callers:
            assert_cut(caller)
        assert await server.wait() == 0
        assert_stopped(server, finished=0, cut=10)


async def test_a_signal_while_the_last_spans_are_sent_is_no_failure() -> None:
    """A collector that takes nothing keeps the process for 5 s, unless somebody has no time for that."""
    (collector,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    endpoint = f"http://127.0.0.1:{collector.socket.getsockname()[1]}"
    async with collector, serving(ECHO, DIGITALKIN_TRACES_ENDPOINT=endpoint) as server:
        async with connected(server.address) as client:
            assert await outputs_of(client, {"protocol": "message", "text": "x"})
        server.process.send_signal(signal.SIGTERM)
        await server.wait_for("SIGTERM: draining")
        while server.process.returncode is None:  # the drain may go on for some of them
            server.process.send_signal(signal.SIGTERM)
            with trio.move_on_after(0.05):
                await server.wait()
        assert server.process.returncode == 0
        assert "SIGTERM again: traces and profiles that wait" in server.lines["stderr"][-1]


async def test_ctrl_c_twice_at_a_terminal() -> None:
    """A terminal sends its signal to the whole process group."""
    async with (
        serving(UNRULY, "--grace", FOR_EVER, own_group=True) as server,
        connected(server.address) as client,
    ):
        async with calling(client, (1, work(cleanup_s=0.1))) as (caller,):
            os.killpg(server.process.pid, signal.SIGINT)
            await server.wait_for("SIGINT: draining")
            os.killpg(server.process.pid, signal.SIGINT)
        assert_cut(caller)
        assert await server.wait() == 0
        assert "a cleanup of 0.1 s has ended" in server.lines["stderr"]
        assert "Traceback" not in "".join(server.lines["stderr"])
        assert_stopped(server, finished=0, cut=1)


async def test_signals_that_come_on_top_change_nothing() -> None:
    async with serving(UNRULY, "--grace", FOR_EVER) as server, connected(server.address) as client:
        async with calling(client, (1, work(cleanup_s=3))) as (caller,):
            server.process.send_signal(signal.SIGTERM)
            await server.wait_for("SIGTERM: draining")
            for number in [signal.SIGTERM, signal.SIGINT, signal.SIGTERM]:
                server.process.send_signal(number)
                await server.wait_for(f"{number.name} again: cancelling")
        assert_cut(caller)
        assert await server.wait() == 0
        assert "a cleanup of 3 s has ended" in server.lines["stderr"]
        assert_stopped(server, finished=0, cut=1)


async def test_a_cleanup_gets_its_time() -> None:
    async with serving(UNRULY, "--grace", "0") as server, connected(server.address) as client:
        async with calling(client, (1, work(cleanup_s=3)), (1, work())) as (slow, quick):
            server.process.send_signal(signal.SIGTERM)
        assert_cut(slow)
        assert_cut(quick)
        assert await server.wait() == 0
        assert "a cleanup of 3 s has ended" in server.lines["stderr"]
        assert_stopped(server, finished=0, cut=2)


async def test_clients_that_do_not_read_do_not_hold_it_up() -> None:
    """One leaves its window shut, one its socket full."""
    flood = {"protocol": "message", "n": 2500, "size": 10_000}
    async with serving(ECHO, "--grace", "0.5") as server, connected(server.address) as client:
        with trio.fail_after(PATIENCE):
            async with client.start({"root": flood}) as outputs, await connection_to(server.address) as stream:
                await anext(outputs)
                await start_unread(WireClient(stream), flood)
                await until_jobs_are(client, {"PROCESSING": 2})
                server.process.send_signal(signal.SIGTERM)
                assert await server.wait() == 0
                with pytest.raises(GRPCError) as caught:
                    async for _ in outputs:
                        pass
        assert caught.value.status is Status.UNAVAILABLE
        assert_stopped(server, finished=0, cut=2)


async def test_idle_connections_do_not_hold_it_up() -> None:
    async with (
        serving(ECHO, "--grace", FOR_EVER) as server,
        connected(server.address) as unused,
        connected(server.address) as used,
    ):
        await unused.channel.ready()
        await Caller().call(used, {"protocol": "message"})
        async with (
            await connection_to(server.address),  # says nothing
            await connection_to(server.address) as stream,
        ):
            await WireClient(stream).flush()  # says what it must, and never reads
            server.process.send_signal(signal.SIGTERM)
            assert await server.wait() == 0
    assert_stopped(server, finished=0, cut=0)


async def test_nothing_to_wait_for() -> None:
    async with serving(ECHO, "--grace", FOR_EVER) as server:
        server.process.send_signal(signal.SIGTERM)
        assert await server.wait() == 0
    assert_stopped(server, finished=0, cut=0)


async def test_code_that_does_not_end_is_left_behind() -> None:
    """About 6 s are waited before anybody is called stuck."""
    jobs = [(1, work(swallow=True)), (1, work(thread_s=600)), (1, work())]
    async with (
        serving(UNRULY, "--grace", "0", DIGITALKIN_CLEANUP_GRACE="0") as server,
        connected(server.address) as client,
    ):
        async with calling(client, *jobs) as callers:
            server.process.send_signal(signal.SIGTERM)
        assert [caller.status for caller in callers] == [Status.UNAVAILABLE] * 3
        assert await server.wait() == 6
        last = server.lines["stderr"][-1]
        assert last.endswith("stopped around 2 jobs that do not end: 0 jobs finished while draining, 1 were cut")
        assert len([line for line in server.lines["stderr"] if "its code goes on" in line]) == 2


async def test_a_module_that_blocks_the_loop_is_reported() -> None:
    async with serving(UNRULY, "--grace", "0") as server, connected(server.address) as client:
        async with calling(client, (1, work(block_s=2))):
            line = await server.wait_for("the event loop was blocked for at least")
            assert "[<Session" in line
            server.process.send_signal(signal.SIGTERM)
        assert await server.wait() == 0
        assert_stopped(server, finished=0, cut=1)
