"""The watch over the loop: how late it is, and the stack that blocked it, taken while it did."""

import linecache
import logging
import threading
import time
from collections.abc import Callable
from functools import partial

import pytest
import trio
import trio.testing

from dk_trio import stalls
from dk_trio.frames import authors_frame
from dk_trio.log_context import bound
from dk_trio.stalls import StallWatch

PATIENCE = 60  # seconds, for what takes a few hundredths of one


def watch_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "dk-trio stall watch"]


def blocks_until(condition: Callable[[], object]) -> None:
    """A module's code that waits without an await."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


async def blocked_job(watch: StallWatch, condition: Callable[[], object]) -> None:
    """The loop runs, is blocked by a job's task until the condition holds, and runs again."""

    async def job() -> None:
        with bound(job="j1", mission="m1"):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(handler, name="job j1")

    async def handler() -> None:
        blocks_until(condition)

    with trio.fail_after(PATIENCE):
        async with watch.opened():
            await job()
            for _ in range(1000):
                if watch.statistics().stalls:
                    break
                await trio.sleep(stalls.EVERY)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stalls, "EVERY", 0.01)


def test_the_stack_that_blocks_the_loop_is_taken_while_it_does(caplog: pytest.LogCaptureFixture) -> None:
    watch = StallWatch(0.05, jobs=lambda: ["<Session 1>", "<Session 2>"])
    trio.run(partial(blocked_job, watch, lambda: watch._caught is not None))
    (stall,) = watch.statistics().last_stalls
    assert stall.task == "job j1"
    assert stall.ids == {"job": "j1", "mission": "m1"}
    assert " in blocks_until" in stall.where or ".<lambda>" in stall.where  # whichever of the two it was in
    assert __file__ in stall.where
    assert any(line.endswith(": blocks_until(condition)") for line in stall.stack), stall.stack
    assert not any("trio/_core" in line for line in stall.stack)
    assert stall.duration > 0.05
    (record,) = caplog.records
    text = record.getMessage()
    assert text.startswith("the event loop was blocked for at least 0.")
    assert "Jobs running: 2, ['<Session 1>', '<Session 2>']\n  It stood at " in text
    assert "in job j1 (job j1, mission m1); the stack, innermost first:" in text
    assert watch_threads() == []


def test_a_stack_with_a_frame_that_has_no_line() -> None:
    watch = StallWatch(0.05)

    def between_lines(condition: Callable[[], object]) -> object:
        return blocks_until(condition)

    between_lines.__code__ = between_lines.__code__.replace(co_linetable=b"")
    trio.run(partial(blocked_job, watch, lambda: between_lines(lambda: watch._caught is not None) or True))
    (stall,) = watch.statistics().last_stalls
    assert any("between_lines" in line for line in stall.stack), stall.stack


def test_source_lines_that_another_thread_has_just_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    def forgotten() -> None:
        raise KeyError(__file__)

    watch = StallWatch(0.05)
    monkeypatch.setattr(linecache, "checkcache", forgotten)
    trio.run(partial(blocked_job, watch, lambda: watch._caught is not None))
    assert watch.statistics().last_stalls


def test_a_stall_without_an_end_is_told_while_it_goes_on(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stalls, "ENDLESS", 0.06)
    monkeypatch.setattr(stalls, "_LOOK_AGAIN", 0.01)
    watch = StallWatch(0.05)

    def told() -> bool:
        return any("by now, and serves nobody" in record.getMessage() for record in caplog.records)

    trio.run(partial(blocked_job, watch, told))
    levels = [record.levelno for record in caplog.records]
    assert levels == [logging.ERROR, logging.WARNING], "once while it goes on, once at its end"
    assert "blocks_until" in caplog.records[0].getMessage()


async def test_without_a_threshold_nobody_watches(mock_clock: trio.testing.MockClock) -> None:
    watch = StallWatch(0)
    tasks = trio.lowlevel.current_statistics().tasks_living
    async with watch.opened():
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(50)
        await trio.testing.wait_all_tasks_blocked()
        assert trio.lowlevel.current_statistics().tasks_living == tasks
        assert watch_threads() == []
    assert watch.statistics() == stalls.LoopStatistics()


async def test_lags_of_ten_seconds_are_recent(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stalls, "EVERY", 0.25)
    watch = StallWatch(1.0)
    assert watch.statistics() == stalls.LoopStatistics()
    async with watch.opened():
        assert watch_threads() == [], "virtual time knows no threads"
        await trio.sleep(1.1)
        autojump_clock.jump(0.65)
        await trio.sleep(0.01)
        assert watch.statistics().recent == pytest.approx(0.5)
        await trio.sleep(9)
        assert watch.statistics().recent == pytest.approx(0.5)
        await trio.sleep(2)
        assert watch.statistics().recent == pytest.approx(0)
        assert watch.statistics().longest == pytest.approx(0.5)
        assert watch.statistics().stalls == 0


async def test_the_last_stalls_are_kept(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stalls, "EVERY", 0.25)
    watch = StallWatch(1.0)
    async with watch.opened():
        for number in range(stalls.KEPT + 5):
            await trio.sleep(1)
            autojump_clock.jump(10 + number)
            await trio.sleep(1)
    statistics = watch.statistics()
    assert statistics.stalls == stalls.KEPT + 5
    assert len(statistics.last_stalls) == stalls.KEPT
    assert statistics.last_stalls[-1].duration == pytest.approx(10 + stalls.KEPT + 4, abs=0.3)
    assert statistics.last_stalls[-1].stack == ()
    assert repr(watch).endswith(f"{stalls.KEPT + 5} stalls>")


@pytest.mark.parametrize(
    ("files", "told"),
    [
        (["/home/me/module.py", "/home/me/inner.py"], "/home/me/inner.py"),
        (["/home/me/module.py", "{stdlib}/ssl.py"], "/home/me/module.py"),
        (["/home/me/module.py", "/env/site-packages/requests/api.py"], "/home/me/module.py"),
        (["{ours}/session.py", "/env/site-packages/their_module/a.py", "{stdlib}/ssl.py"], "their_module/a.py"),
        (["{ours}/session.py", "/env/site-packages/trio/_core/_run.py", "<frozen importlib._bootstrap>"], None),
        (["{ours}/_examples/courier.py", "/env/site-packages/trio/_sync.py"], "_examples/courier.py"),
    ],
)
def test_whose_line_it_is(files: list[str], told: str | None) -> None:
    places = {"stdlib": str(threading.__file__).rpartition("/")[0], "ours": str(stalls.__file__).rpartition("/")[0]}
    frames = []
    for file in files:
        scope: dict[str, object] = {}
        exec(compile("import sys\nframe = sys._getframe()", file.format(**places), "exec"), scope)
        frames.append((scope["frame"], 2))
    found = authors_frame(frames)
    assert (found is None) == (told is None)
    if found is not None:
        assert found[0].f_code.co_filename.endswith(told)
