"""The log of a real process: whole until its last line, and no reason to stand still when nobody reads it."""

import fcntl
import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import trio

from dk_trio import ModuleClient

from .crowd import connected
from .processes import DK_TRIO, ECHO, PATIENCE, environment, serving

ACCESS = "dk_trio.access"


async def say(client: ModuleClient, text: str = "x") -> None:
    async with client.start({"protocol": "message", "text": text}, setup_id="setups:s", mission_id="missions:m") as out:
        assert len([output async for output in out]) == 3


def records(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


async def test_stderr_and_the_file_are_whole_when_the_process_has_ended(tmp_path: Path) -> None:
    async with serving(
        ECHO, DIGITALKIN_LOG_FORMAT="json", DIGITALKIN_ACCESS_LOG="true", DIGITALKIN_LOG_DIR=str(tmp_path)
    ) as server:
        async with connected(server.address) as client:
            for _ in range(3):
                await say(client)
        server.process.send_signal(signal.SIGTERM)
        assert await server.wait() == 0
    shown = records("\n".join(server.lines["stderr"]))
    kept = records((tmp_path / "dk-trio.log").read_text(encoding="ascii"))
    assert [each for each in kept if each["level"] != "debug"] == shown
    assert kept[0]["message"].startswith("settings:\n")
    assert shown[-1]["message"] == "stopped: 0 jobs finished while draining, 0 were cut"
    calls = [each for each in shown if each["logger"] == ACCESS]
    assert [(each["message"], each["mission"], each["setup"]) for each in calls] == [
        ("StartModule OK", "missions:m", "setups:s")
    ] * 3
    assert len({each["job"] for each in calls} | {each["request"] for each in calls}) == 6


async def test_a_stderr_that_nobody_reads_stops_no_job_and_no_end() -> None:
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
    env = environment(DIGITALKIN_LOG_FORMAT="json", DIGITALKIN_ACCESS_LOG="true")
    command = [*DK_TRIO, "serve", ECHO, "--port", "0"]
    with trio.fail_after(PATIENCE):
        process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE, stderr=write, env=env)
        os.close(write)
        try:
            assert process.stdout is not None
            ready = bytes(await process.stdout.receive_some()).decode()
            async with connected(ready.removeprefix("READY ").strip()) as client:
                for _ in range(30):  # a pipe of one page has room for ten lines
                    await say(client)
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0
        finally:
            process.kill()
    with open(read, encoding="ascii") as pipe:  # noqa: PTH123, ASYNC230  its writer has ended
        shown = records(pipe.read())
    assert 1 < len([each for each in shown if each["logger"] == ACCESS]) < 30
