"""The samples of the pages on metrics and traces do what the pages say."""

import os
import re
import signal

import own_program
import pytest
import thinker
import trio
import trio.testing
from tests.module.served import outputs_of, served
from tests.observe.recorded import Recorded
from tests.observe.test_metrics import http_get

from dk_trio.observe import Observed


async def test_own_program(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("DIGITALKIN_METRICS_PORT", "0")
    caplog.set_level("INFO", "dk_trio.metrics")
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(own_program.main, 0)
            await trio.testing.wait_all_tasks_blocked(0.05)
            (address,) = re.findall(r"metrics are at http://(\S+)/metrics", caplog.text)
            assert b"\ndk_trio_draining 0.0\n" in (await http_get(address)).replace(b"\r\n", b"\n")
            os.kill(os.getpid(), signal.SIGTERM)


async def test_thinker(autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = Recorded()
    async with (
        served(thinker.Thinker, **recorded.arguments) as (server, client),
        recorded.traces.opened(Observed(modules=lambda: [server])),
    ):
        monkeypatch.setattr(thinker, "tracer", recorded.traces._tracing.tracer)
        outputs = await outputs_of(client, {"text": "why?"}, protocol="question")
    assert outputs[1]["root"]["text"] == "why"
    assert recorded.tree()["thinking"] == "job thinker"
