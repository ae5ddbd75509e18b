"""What is sent arrives, over real sockets; what becomes of a job whose caller stops reading, leaves or is killed."""

import json
import sys
from pathlib import Path
from typing import Any

import trio
from grpclib.const import Status
from tests.rpc.wire_client import WireClient

from dk_trio import ModuleClient

from .crowd import ROOMY, Caller, calling, connected, connection_to, start_unread, until_jobs_are
from .processes import ECHO, PATIENCE, peak_bytes, serving, started

CROWD = [sys.executable, str(Path(__file__).with_name("grpcio_crowd.py"))]

MIB = 1024 * 1024

SLOTS = ROOMY | {"DIGITALKIN_MAX_CONCURRENT_TASKS": "200"}


def message(**root: Any) -> dict[str, Any]:
    return {"protocol": "message", **root}


async def test_a_foreign_client_that_pauses_gets_everything_in_order() -> None:
    jobs = json.dumps([(64, message(n=100, size=1000)), (1, message(n=9_998))])
    async with serving(ECHO, **ROOMY) as server, started(server.address, jobs, "0.5", program=CROWD) as crowd:
        assert await crowd.wait() == 0, crowd.lines
        begun, *ends = crowd.lines["stdout"]
    assert begun == "begun 65"
    assert len(ends) == 65
    for outputs, end in zip([100] * 64 + [9_998], map(json.loads, ends), strict=True):
        assert (end["status"], end["failure"]) == ("OK", None)
        assert end["numbers"] == list(range(outputs))
        assert end["protocols"] == ["module_start_info", *["message"] * outputs, "end_of_stream"]


async def test_clients_that_stop_reading_cost_little_and_are_given_up() -> None:
    """Half of them leave their windows shut, half their sockets full."""
    flood = message(n=2500, size=10_000)
    async with (
        serving(ECHO, **ROOMY, DIGITALKIN_STREAM_DRAIN_TIMEOUT="1") as server,
        connected(server.address) as client,
        connected(server.address) as bystander,
        trio.open_nursery() as nursery,
    ):

        async def shut_window(*, task_status: Any) -> None:
            async with client.start({"root": flood}) as outputs:
                await anext(outputs)
                task_status.started()
                await trio.sleep_forever()

        async def full_socket(*, task_status: Any) -> None:
            async with await connection_to(server.address) as stream:
                # Only the socket is in its way.
                await start_unread(WireClient(stream, stream_window=1 << 30, connection_window=1 << 30), flood)
                task_status.started()
                await trio.sleep_forever()

        with trio.fail_after(PATIENCE):
            await Caller().call(bystander, message(n=100))
            peak = peak_bytes(server.process.pid)
            for _ in range(25):
                await nursery.start(shut_window)
                await nursery.start(full_socket)
        async with calling(bystander, (10, message(n=20, gap_s=0.05))) as callers:
            pass
        for caller in callers:
            assert (caller.numbers, caller.status) == (list(range(20)), Status.OK)
        await until_jobs_are(bystander, {"EXPIRED": 50, "SUCCESS": 11})
        # What they have asked for is 1.2 GB; a connection queues no more than about half a MiB.
        assert peak_bytes(server.process.pid) - peak < 64 * MIB
        nursery.cancel_scope.cancel()


async def assert_all_cancelled(client: ModuleClient, events: Path) -> None:
    """Every one of 200 modules has seen its cancel, and 200 slots are free."""
    await until_jobs_are(client, {"CANCELED": 200})
    recorded = [line.split()[1:] for line in events.read_text().splitlines()]
    assert [event for event, _ in recorded] == ["cancelled"] * 200
    assert len({job_id for _, job_id in recorded}) == 200
    async with calling(client, (200, message(tail_s=600)), end=True):
        await until_jobs_are(client, {"CANCELED": 200, "PROCESSING": 200})


async def test_callers_that_leave_cancel_their_jobs(tmp_path: Path) -> None:
    events = tmp_path / "events"
    async with (
        serving(ECHO, **SLOTS, BENCH_EVENT_LOG=str(events)) as server,
        connected(server.address) as client,
    ):
        async with calling(client, (200, message(sleep_s=600)), end=True):
            await until_jobs_are(client, {"PROCESSING": 200})
        await assert_all_cancelled(client, events)


async def test_a_killed_client_cancels_its_jobs(tmp_path: Path) -> None:
    events = tmp_path / "events"
    jobs = json.dumps([(200, message(sleep_s=600))])
    async with (
        serving(ECHO, **SLOTS, BENCH_EVENT_LOG=str(events)) as server,
        connected(server.address) as bystander,
    ):
        async with started(server.address, jobs, program=CROWD) as crowd:
            await crowd.wait_for("begun 200", "stdout")
            await until_jobs_are(bystander, {"PROCESSING": 200})
            crowd.process.kill()
        await assert_all_cancelled(bystander, events)
