"""SIGUSR1: the tree of tasks in the log, and of a blocked loop the stacks of its threads."""

import logging
import os
import queue
import signal
import threading
import time

import pytest
import trio
import trio.testing

from dk_trio.observe import Observed, dumps
from dk_trio.observe.dumps import TaskDumps

PATIENCE = 60  # seconds

pytestmark = pytest.mark.skipif(
    threading.current_thread() is not threading.main_thread(), reason="handlers of signals belong to the main thread"
)


class Lines(logging.Handler):
    """What is logged, for whichever thread waits for it."""

    def __init__(self) -> None:
        super().__init__()
        self.queue: queue.SimpleQueue[str] = queue.SimpleQueue()

    def emit(self, record: logging.LogRecord) -> None:
        self.queue.put(record.getMessage())


@pytest.fixture
def logged() -> "queue.SimpleQueue[str]":
    handler = Lines()
    logger = logging.getLogger("dk_trio.tasks")
    logger.addHandler(handler)
    yield handler.queue
    logger.removeHandler(handler)


async def next_line(logged: "queue.SimpleQueue[str]") -> str:
    return await trio.to_thread.run_sync(lambda: logged.get(timeout=PATIENCE))


def test_the_tree_is_written_and_a_second_time_with_how_long(logged: "queue.SimpleQueue[str]") -> None:
    async def main() -> None:
        async with TaskDumps().opened(Observed()), trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever, name="one that waits")
            os.kill(os.getpid(), signal.SIGUSR1)
            first = await next_line(logged)
            assert first.startswith("SIGUSR1: ")
            assert "one that waits - " in first
            os.kill(os.getpid(), signal.SIGUSR1)
            assert "one that waits - " in await next_line(logged)
            nursery.cancel_scope.cancel()

    before = signal.getsignal(signal.SIGUSR1)
    trio.run(main)
    assert signal.getsignal(signal.SIGUSR1) is before
    assert not [thread for thread in threading.enumerate() if thread.name == "dk-trio task dumps"]


def test_a_blocked_loop_is_told_from_outside(logged: "queue.SimpleQueue[str]", monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dumps, "PATIENCE", 0.01)

    def authors_code_that_blocks() -> str:
        return logged.get(timeout=PATIENCE)

    async def main() -> None:
        async with TaskDumps().opened(Observed()):
            os.kill(os.getpid(), signal.SIGUSR1)
            text = authors_code_that_blocks()
            assert text.startswith("SIGUSR1: the event loop does not answer within 0.01 s\nThread ")
            assert "in authors_code_that_blocks" in text
            assert "<init> - the end of its nursery" in text
            assert "tasks\n" in await next_line(logged), "the loop answers once it runs again"

    trio.run(main)


def test_a_tree_that_cannot_be_told_does_not_end_the_server(
    logged: "queue.SimpleQueue[str]", monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: object) -> str:
        raise LookupError("a defect")

    monkeypatch.setattr(dumps, "_text", fails)

    async def main() -> None:
        async with TaskDumps().opened(Observed()):
            os.kill(os.getpid(), signal.SIGUSR1)
            assert await next_line(logged) == "SIGUSR1: the tasks could not be told"

    trio.run(main)


def test_outside_of_the_main_thread_there_is_no_handler() -> None:
    async def main() -> None:
        before = signal.getsignal(signal.SIGUSR1)
        async with TaskDumps().opened(Observed()):
            assert signal.getsignal(signal.SIGUSR1) is before

    thread = threading.Thread(target=trio.run, args=(main,))
    thread.start()
    thread.join(PATIENCE)
    assert not thread.is_alive()


def test_a_signal_at_the_end_neither_ends_the_process_nor_holds_it_up() -> None:
    async def main() -> None:
        async with TaskDumps().opened(Observed()):
            os.kill(os.getpid(), signal.SIGUSR1)
        began = time.perf_counter()
        await trio.testing.wait_all_tasks_blocked()  # what the thread has asked for is asked of the loop now
        assert time.perf_counter() - began < dumps.PATIENCE

    for _ in range(20):  # the thread may have heard of the signal before the end or not
        trio.run(main)


def test_a_storm_of_signals_is_answered_by_a_few_dumps(
    logged: "queue.SimpleQueue[str]", monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()
    surveys = 0

    async def survey(_: object) -> str:
        nonlocal surveys
        surveys += 1
        await trio.to_thread.run_sync(release.wait)
        return ""

    monkeypatch.setattr("dk_trio.observe.task_tree.Surveyor.survey", survey)
    monkeypatch.setattr(dumps, "_text", str)
    monkeypatch.setattr(dumps, "PATIENCE", PATIENCE)

    async def main() -> None:
        async with TaskDumps().opened(Observed()):
            os.kill(os.getpid(), signal.SIGUSR1)
            while not surveys:
                await trio.lowlevel.checkpoint()
            for _ in range(1000):
                os.kill(os.getpid(), signal.SIGUSR1)
                await trio.lowlevel.checkpoint()
            release.set()
            while surveys < 2:
                await next_line(logged)

    trio.run(main)
    assert surveys == 2, "one that was under way, and one for all that came meanwhile"
