"""`dk-trio demo`: it tells the same whatever the environment says, and nothing of it outlives it."""

import os
import signal
from pathlib import Path

import pytest
import trio
import trio.testing
from tests.cli.processes import PATIENCE, dk_trio, started

from dk_trio.cli.demo import _processes


def in_session(number: int) -> list[int]:
    """The processes of a session that run."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, _, _, session, *_ = (folder / "stat").read_text().rpartition(") ")[2].split()
        except OSError:  # it has ended meanwhile
            continue
        if int(session) == number and state != "Z":
            found.append(int(folder.name))
    return found


async def test_the_demo() -> None:
    done = await dk_trio(
        "demo",
        DIGITALKIN_ACCESS_LOG="true",
        DIGITALKIN_LOG_FORMAT="auto",
        DIGITALKIN_LOG_LEVEL="error",
        DIGITALKIN_MODULE_ID="modules:another",
        SERVICE_MODE="remote",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    text = done.stdout.decode()
    assert '"message"' not in text, "a person reads it"
    for expected in (
        *("READY 127.0.0.1:", "module_start_info", "end_of_stream", "handler cancelled", "cleanup ran"),
        *("the registry has modules:courier at ", "modules:text-transform is at ", "a cancel signal came"),
    ):
        assert expected in text
    assert text.rstrip().endswith("Everything worked.")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
async def test_a_signal_ends_the_demo_and_its_processes(number: signal.Signals) -> None:
    async with started("demo", own_group=True) as demo:
        await demo.wait_for("READY ", "stdout")
        session = demo.process.pid
        assert len(in_session(session)) == 2
        os.kill(session, number)
        assert await demo.wait() == 128 + number
        assert in_session(session) == []
        assert demo.lines["stderr"] == []


async def test_who_reads_no_further_gets_no_traceback() -> None:
    read, write = os.pipe()
    async with started("demo", stdout=write, own_group=True) as demo:
        os.close(write)
        with trio.fail_after(PATIENCE):
            async with trio.lowlevel.FdStream(read) as stream:
                text = b""
                while b"READY " not in text:
                    text += await stream.receive_some()
            assert await demo.process.wait() == 141
        assert in_session(demo.process.pid) == []
        assert demo.lines["stderr"] == []


async def test_a_process_that_does_not_mind_is_killed_at_once() -> None:
    with trio.fail_after(PATIENCE), trio.CancelScope() as scope:
        async with _processes.served("provider", "--db", ":memory:", "--port", "0") as provider:
            provider._process.send_signal(signal.SIGSTOP)  # a module waits for its provider as long
            scope.cancel()
    assert provider._process.returncode == -signal.SIGKILL


async def test_what_does_not_happen_is_told_by_its_name(autojump_clock: trio.testing.MockClock) -> None:
    with pytest.raises(_processes.DemoError, match=r"took longer than 30 s: a log that says 'cleanup ran'"):
        await _processes.Log().wait_for("cleanup ran")
