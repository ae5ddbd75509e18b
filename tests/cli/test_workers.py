"""`dk-trio serve --workers`: processes that share an address, one that dies, one that hangs, and how they stop."""

import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from grpclib.const import Status

from dk_trio import ModuleClient
from dk_trio.cli import serve
from dk_trio.cli._exits import Exit
from dk_trio.cli._workers import exit_of_workers, given, with_own_log
from dk_trio.pb.agentic_mesh_protocol.module.v1 import (
    GetModuleJobsRequest,
    GetModuleStatusRequest,
    ModuleServiceStub,
    StopModuleRequest,
)
from dk_trio.settings import Settings
from dk_trio.workers import GroupReport, Post

from .crowd import Caller, connected
from .processes import ECHO, PATIENCE, Running, here, serving, started

CREW = Path(__file__).with_name("crew_module.py")
FOR_EVER = "/nowhere/at/all"


def who(until: str = "") -> dict[str, str]:
    return {"protocol": "who", "until": until}


async def asked(client: ModuleClient) -> tuple[int, int]:
    """Process and edition that answer a client."""
    caller = Caller()
    with trio.fail_after(PATIENCE):
        await caller.call(client, who())
    assert caller.status is Status.OK, caller
    _, me, _ = caller.roots
    return int(me["pid"]), int(me["edition"])


@asynccontextmanager
async def clients(address: str, count: int) -> AsyncIterator[list[ModuleClient]]:
    """So many clients, each with a channel of its own."""

    async def client(*, task_status: trio.TaskStatus[ModuleClient]) -> None:
        async with connected(address) as one:
            task_status.started(one)
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        yield [await nursery.start(client) for _ in range(count)]
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def staying(all_clients: Sequence[ModuleClient], until: str = FOR_EVER) -> AsyncIterator[list[Caller]]:
    """A job of each client, which stays; they have ended at the end of the block."""
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            callers = [Caller() for _ in all_clients]
            for caller, client in zip(callers, all_clients, strict=True):
                await nursery.start(caller.call, client, who(until))
            yield callers


def pid_of(caller: Caller) -> int:
    """Process that a job is with, once it has told."""
    return next(int(root["pid"]) for root in caller.roots if root["protocol"] == "me")


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(PATIENCE):
        while not condition():  # noqa: ASYNC110 - a condition of many tasks, or of other processes
            await trio.sleep(0.02)


async def told(*callers: Caller) -> None:
    """Wait until jobs have told where they are."""
    await until(lambda: all("me" in caller.protocols for caller in callers))


def runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def gone(*pids: int) -> None:
    await until(lambda: not any(map(runs, pids)))


def last_of(server: Running) -> str:
    return [line for line in server.lines["stderr"] if "dk_trio.serve" in line][-1]


def test_a_worker_gets_the_arguments_of_its_parent_and_nothing_that_came_from_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DIGITALKIN_GRACE", "3")
    arguments = ["a.py:A", "b.py", "--setup", "a=1.json", "--setup", "b=2.json", "--no-inspector", "--port", "0"]
    arguments += ["--workers", "2", "--strict-setup", "--tls-cert", "c.pem"]
    context = serve.command.make_context("serve", list(arguments))
    assert sorted(given(context)) == sorted([*arguments, "--"])
    again = serve.command.make_context("serve", given(context))
    assert again.params == context.params


@pytest.mark.parametrize(
    ("codes", "killed", "code"),
    [([0, 0], 0, Exit.OK), ([0, 6], 0, Exit.STUCK), ([0, -9], 1, Exit.STUCK), ([0, -9], 0, Exit.DEFECT)],
)
def test_the_worst_end_of_a_worker_is_that_of_the_command(codes: list[int], killed: int, code: Exit) -> None:
    assert exit_of_workers(GroupReport(finished=0, cut=0, exit_codes=codes, killed=killed)) is code


def test_a_worker_has_its_own_log_file() -> None:
    post = Post(number=3, control=0, handover=0, host="h", port=1)
    settings = Settings.from_environment({"DIGITALKIN_LOG_FILE": "/logs/module.log"})
    assert with_own_log(settings, post).observe.log_file == Path("/logs/module.worker-3.log")
    assert with_own_log(Settings(), post) == Settings()


def test_nobody_but_a_parent_starts_a_worker() -> None:
    done = here("serve", ECHO, "--worker", "{}")
    assert done.returncode == 2
    assert b"only `dk-trio serve --workers` gives it" in done.stderr


async def test_channels_are_spread_jobs_are_found_anywhere_and_a_killed_worker_takes_only_its_own_along() -> None:
    """One server for all of it: a worker takes a second to start."""
    async with (
        serving(str(CREW), "--workers", "2", "--grace", "0") as server,
        clients(server.address, 8) as eight,
        staying(eight) as callers,
    ):
        await told(*callers)
        assert sorted(Counter(map(pid_of, callers)).values()) == [4, 4]

        mine, there = callers[0], next(caller for caller in callers if pid_of(caller) != pid_of(callers[0]))
        stub = ModuleServiceStub(eight[0].channel)
        jobs = (await stub.get_module_jobs(GetModuleJobsRequest())).jobs
        assert sorted(job.job_id for job in jobs) == sorted(caller.job_id for caller in callers)
        status = await stub.get_module_status(GetModuleStatusRequest(job_id=there.job_id))
        assert status.status.name == "PROCESSING"
        assert (await stub.stop_module(StopModuleRequest(job_id=there.job_id))).success
        await until(lambda: there.status is not None)
        assert there.status is Status.CANCELLED
        assert [caller.status for caller in callers].count(None) == 7

        os.kill(pid_of(mine), signal.SIGKILL)
        await server.wait_for("was ended by SIGKILL; another one starts")
        successor = int((await server.wait_for(" serves")).partition("(pid ")[2].partition(")")[0])
        for caller in callers:
            if caller is not there:
                assert caller.status is (Status.UNAVAILABLE if pid_of(caller) == pid_of(mine) else None)
        async with clients(server.address, 2) as two:  # it has no connection yet, the other one four
            assert {(await asked(client))[0] for client in two} == {successor}

        server.process.send_signal(signal.SIGTERM)
        assert await server.wait() == 0
        assert "stopped: 0 jobs finished while draining, 3 were cut" in last_of(server)
        await gone(successor, *map(pid_of, callers))


async def test_workers_are_replaced_by_new_code_while_calls_end_on_the_old(tmp_path: Path) -> None:
    module, release = tmp_path / "crew_module.py", tmp_path / "release"
    module.write_text(CREW.read_text())
    async with serving(str(module), "--workers", "2", "--grace", "600") as server, clients(server.address, 2) as two:
        async with staying(two, str(release)) as callers:
            await told(*callers)
            module.write_text(CREW.read_text().replace("EDITION = 1", "EDITION = 2"))
            server.process.send_signal(signal.SIGHUP)
            await server.wait_for("in place of 0")
            release.touch()
        assert [caller.status for caller in callers] == [Status.OK, Status.OK]
        await server.wait_for("all workers were replaced")
        for client in two:
            pid, edition = await asked(client)
            assert edition == 2
            assert pid not in map(pid_of, callers)
        server.process.send_signal(signal.SIGTERM)
        assert await server.wait() == 0


async def test_a_stopped_worker_gets_no_connections_and_nothing_outlives_the_parent() -> None:
    async with serving(str(CREW), "--workers", "2", "--grace", "0") as server, clients(server.address, 2) as two:
        stopped, other = [(await asked(client))[0] for client in two]
        os.kill(stopped, signal.SIGSTOP)
        await server.wait_for("has said nothing for 3 s")
        async with clients(server.address, 4) as four:
            assert {(await asked(client))[0] for client in four} == {other}
        os.kill(stopped, signal.SIGCONT)
        await server.wait_for("answers again")
        async with staying(two) as callers:
            server.process.kill()
            await gone(stopped, other)
        assert [caller.status for caller in callers] == [Status.UNAVAILABLE, Status.UNAVAILABLE]


async def test_why_no_worker_can_start_is_told_once(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text("import nothing_of_the_kind\n")
    async with started("serve", str(module), "--workers", "2", "--port", "0") as server:
        assert await server.wait() == Exit.MODULE
    assert server.lines["stdout"] == []
    assert ["No module named 'nothing_of_the_kind'" in line for line in server.lines["stderr"]].count(True) == 1
    assert "Traceback" not in "".join(server.lines["stderr"])
