"""What was left behind is named: tasks with their place, descriptors with their target, threads."""

import os
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from tests.module.sample import module_with, send_one

from dk_trio.testing import LeakError, LeakWatch, leaks, run, run_job, serve_in_memory
from dk_trio.testing import assert_no_leaks as no_leaks


def test_nothing_is_left_by_nothing() -> None:
    with no_leaks():
        pass


def test_a_descriptor_is_told_with_its_target(tmp_path: Path) -> None:
    path = tmp_path / "open.txt"
    with pytest.raises(LeakError, match=r"1 left behind:\n  file descriptor \d+: .*open\.txt") as caught, no_leaks():
        descriptor = os.open(path, os.O_CREAT)
    os.close(descriptor)
    assert len(caught.value.left) == 1


def test_a_descriptor_that_was_there_before_may_be_closed_or_replaced(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path / "a", os.O_CREAT)
    with no_leaks():
        os.close(descriptor)
    descriptor = os.open(tmp_path / "a", os.O_CREAT)
    with pytest.raises(LeakError), no_leaks():  # the same number, another file
        os.close(descriptor)
        descriptor = os.open(tmp_path / "b", os.O_CREAT)
    os.close(descriptor)


def test_what_only_the_collector_holds_is_not_left() -> None:
    with no_leaks():
        near, far = socket.socketpair()
        cycle: list[Any] = [near.detach(), far.detach()]
        files = [os.fdopen(number, "rb", buffering=0) for number in cycle]
        files.append(files)  # type: ignore[arg-type]
        for file in files[:2]:
            file.close()
        del files


def test_where_the_system_does_not_say_what_a_descriptor_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaks, "_DESCRIPTORS", tmp_path)
    with pytest.raises(LeakError) as caught, no_leaks():
        for number in (0, 1, 99_999):  # the last is closed again when it is looked at
            (tmp_path / str(number)).touch()
    assert caught.value.left == ["file descriptor 0: ", "file descriptor 1: "]


def test_a_thread_is_told_by_name() -> None:
    go = threading.Event()
    with pytest.raises(LeakError, match="thread the worker"), no_leaks(grace=0):
        thread = threading.Thread(target=go.wait, name="the worker")
        thread.start()
    go.set()
    thread.join()


def test_a_thread_that_ends_is_waited_for() -> None:
    go = threading.Event()
    thread = threading.Thread(target=go.wait)
    with no_leaks(grace=60):
        thread.start()
        threading.Timer(0.02, go.set).start()


def test_threads_that_trio_keeps_are_not_left() -> None:
    with no_leaks():
        trio.run(trio.to_thread.run_sync, bool)


def test_a_task_is_told_with_its_place() -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            with pytest.raises(LeakError) as caught, no_leaks():
                nursery.start_soon(wait_for_nothing, name="the waiter")
                await trio.testing.wait_all_tasks_blocked()
            (left,) = caught.value.left
            assert left.startswith("task the waiter, at ")
            assert "test_leaks.py" in left
            assert left.endswith("in wait_for_nothing: await trio.sleep_forever()")
            nursery.cancel_scope.cancel()

    run(main)


async def wait_for_nothing() -> None:
    await trio.sleep_forever()


def test_tasks_that_have_ended_are_not_left() -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep, 3)
            with no_leaks():
                nursery.start_soon(trio.sleep, 1)
                await trio.sleep(2)

    run(main)


def test_what_the_block_raises_goes_before() -> None:
    descriptor = -1
    with pytest.raises(LookupError), no_leaks():
        descriptor = os.open(os.devnull, os.O_RDONLY)
        raise LookupError
    os.close(descriptor)


def test_a_system_task_that_outlives_a_run_is_told() -> None:
    async def main() -> None:
        trio.lowlevel.spawn_system_task(wait_for_nothing, name="the daemon")
        await trio.testing.wait_all_tasks_blocked()

    watch = LeakWatch()
    trio.run(main, instruments=[watch])
    (left,) = watch.left()
    assert left.startswith("task the daemon, at ")
    watch = LeakWatch()
    trio.run(trio.sleep, 0, instruments=[watch])
    assert watch.left() == []


async def test_a_server_leaves_nothing(virtual_clock: trio.testing.MockClock, assert_no_leaks: LeakWatch) -> None:
    module = module_with(send_one)
    await run_job(module, {"text": "what is imported at first use is"}, protocol="message")
    with no_leaks():
        async with serve_in_memory(module) as served:
            for _ in range(3):
                assert (await served.run_job({"text": "hi"}, protocol="message")).ok
                served.cut()
    assert "tasks" in repr(assert_no_leaks)
