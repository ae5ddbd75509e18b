"""The parent with workers that are no processes: who gets what, who is replaced and when, how everything ends."""

import errno
import logging
import os
from itertools import pairwise
from signal import SIGHUP, SIGINT, SIGTERM, SIGUSR1

import pytest
import trio
from trio.testing import MockClock

from dk_trio.workers._group import KILL_AFTER
from dk_trio.workers._places import SLOW_START, STEADY_AFTER
from dk_trio.workers._share import SILENT_AFTER, UNTAKEN

from .kit import DRAIN_WITHIN, MOMENT, FakeWorker, running


def names(count: int) -> list[str]:
    return [f"connection {number}" for number in range(count)]


# --- the share of each ------------------------------------------------------------------------------------------------


async def test_connections_are_spread_evenly(autojump_clock: MockClock) -> None:
    async with running(3) as run:
        await run.ready.wait()
        run.source.comes(*names(9))
        await trio.sleep(MOMENT)
        assert [len(worker.given) for worker in run.workers] == [3, 3, 3]
        assert run.served() == names(9)
        assert sorted(run.closed) == names(9)  # the parent's own ends, once they were taken


async def test_nothing_is_accepted_before_all_are_ready(autojump_clock: MockClock) -> None:
    async with running(2, arranged=lambda worker: 5.0 * (worker.number + 1)) as run:
        run.source.comes("early")
        await trio.sleep(9)
        assert (run.source.attempts, run.ready.is_set()) == (0, False)
        await trio.sleep(1.1)
        assert run.ready.is_set()
        assert sum(len(worker.given) for worker in run.workers) == 1


async def test_the_share_of_one_that_is_missing_goes_to_the_others(autojump_clock: MockClock) -> None:
    async with running(2, arranged=lambda worker: 0.0 if worker.pid < 103 else 20.0) as run:
        await run.ready.wait()
        run.source.comes(*names(4))
        await trio.sleep(MOMENT)
        run.latest(0).end(-9)
        await trio.sleep(MOMENT)
        run.source.comes(*names(4))
        await trio.sleep(MOMENT)
        assert len(run.latest(1).given) == 6
        await trio.sleep(30)
        run.source.comes(*names(6))  # the new one has none yet
        await trio.sleep(MOMENT)
        assert len(run.latest(0).given) == 6


async def test_what_a_worker_has_not_taken_goes_to_another_when_it_dies(autojump_clock: MockClock) -> None:
    async with running(2) as run:
        await run.ready.wait()
        dying, other = run.workers
        dying.taking = False
        run.source.comes(*names(6))
        await trio.sleep(MOMENT)
        dying.take()
        assert (len(dying.given), len(other.given)) == (3, 3)
        await trio.sleep(MOMENT)
        dying.end(-11)
        await trio.sleep(1)
        assert run.served() == names(6)
        assert sorted(run.closed) == names(6)


async def test_a_worker_without_descriptors_loses_nothing(autojump_clock: MockClock) -> None:
    async with running(2) as run:
        await run.ready.wait()
        full, other = run.workers
        full.taking = False
        run.source.comes("one", "two")
        await trio.sleep(MOMENT)
        full.lose()
        await trio.sleep(MOMENT)
        assert sorted(other.connections) == ["one", "two"]
        assert len(full.given) == 1


async def test_connections_wait_while_nobody_can_serve_them(autojump_clock: MockClock) -> None:
    async with running(1, arranged=lambda worker: 0.0 if worker.pid == 101 else 10.0) as run:
        await run.ready.wait()
        await trio.sleep(STEADY_AFTER)
        run.latest(0).end(1)
        await trio.sleep(MOMENT)
        attempts = run.source.attempts
        run.source.comes(*names(3))
        await trio.sleep(5)
        assert run.source.attempts <= attempts + 1  # one was waiting to accept already
        await trio.sleep(10)
        assert run.latest(0).given == names(3)


async def test_a_stopped_worker_is_given_no_more_than_it_may_have_before_it(autojump_clock: MockClock) -> None:
    async with running(1) as run:
        await run.ready.wait()
        (worker,) = run.workers
        worker.taking = worker.beating = False
        run.source.comes(*names(UNTAKEN + 10))
        await trio.sleep(1)
        assert len(worker.given) == UNTAKEN


async def test_a_full_system_is_told_once_and_asked_again_after_pauses(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "dk_trio.workers")
    async with running(1) as run:
        await run.ready.wait()
        run.source.comes(*[OSError(errno.EMFILE, os.strerror(errno.EMFILE))] * 20, "after all")
        began = trio.current_time()
        await run.until(lambda: run.latest(0).given)
        assert trio.current_time() - began > 15
        await trio.sleep(MOMENT)
    assert [record.message for record in caplog.records if "accepted" in record.message] == [
        "no connection can be accepted: Too many open files; raise ulimit -n",
        "connections are accepted again",
    ]


# --- restarts ---------------------------------------------------------------------------------------------------------


async def test_a_worker_that_dies_is_replaced_at_once_and_then_after_growing_pauses(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(1) as run:
        await run.ready.wait()
        for _ in range(10):
            dying = run.latest(0)
            dying.end(-9)
            await run.until(lambda dying=dying: run.latest(0) is not dying)
            await trio.sleep(MOMENT)  # it is ready, and dies at once again
        starts = [worker.started_at for worker in run.workers]
        pauses = [later - earlier for earlier, later in pairwise(starts)]
        for index, pause in enumerate(pauses):
            assert min(0.5 * 2**index, 30) * 0.79 < pause < min(0.5 * 2**index, 30) * 1.21 + 2 * MOMENT
        assert "was ended by SIGKILL, for the 10. time in a row; another one starts in" in caplog.text


async def test_one_that_has_served_for_long_is_replaced_at_once(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(1) as run:
        await run.ready.wait()
        for generation in range(2, 8):
            await trio.sleep(STEADY_AFTER + 1)
            run.latest(0).end(3)
            await trio.sleep(MOMENT)
            assert len(run.workers) == generation
    assert "has ended with exit code 3; another one starts now" in caplog.text
    assert "in a row" not in caplog.text


async def test_why_a_successor_cannot_start_is_told_each_time(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    def arranged(worker: FakeWorker) -> float | None:
        if worker.pid == 101 or worker.pid > 103:
            return 0.0
        worker.say(do="failed", text="module.py cannot be imported")
        worker.end(4)
        return None

    async with running(1, arranged=arranged) as run:
        await run.ready.wait()
        run.latest(0).end(-9)
        await trio.sleep(10)
        assert run.latest(0).pid == 104
    told = "has ended with exit code 4 before it was ready (module.py cannot be imported)"
    assert caplog.text.count(told) == 2
    assert "for the 3. time in a row" in caplog.text


async def test_one_that_does_not_get_ready_is_told_of(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "dk_trio.workers")
    async with running(1, arranged=lambda worker: 0.0 if worker.pid == 101 else SLOW_START + 5) as run:
        await run.ready.wait()
        assert "is not ready" not in caplog.text
        run.latest(0).end(-9)
        await trio.sleep(SLOW_START + 1)
        assert "is not ready after 30 s: look what its module does when it is loaded" in caplog.text
        await trio.sleep(10)
        assert caplog.messages[-1].endswith("serves")


async def test_a_system_without_room_for_a_process_is_asked_again(autojump_clock: MockClock) -> None:
    def arranged(worker: FakeWorker) -> float | OSError:
        return OSError(errno.EAGAIN, "no") if worker.pid == 102 else 0.0

    async with running(1, arranged=arranged) as run:
        await run.ready.wait()
        run.latest(0).end(-9)
        await trio.sleep(5)
        assert [worker.pid for worker in run.workers] == [101, 103]


# --- the first start --------------------------------------------------------------------------------------------------


async def test_a_first_start_that_fails_ends_all_with_the_words_of_the_first(autojump_clock: MockClock) -> None:
    def arranged(worker: FakeWorker) -> float | None:
        if worker.number == 1:
            worker.say(do="failed", text="The setting X has no value Y.")
            worker.end(3)
            return None
        return 5.0

    async with running(3, arranged=arranged) as run:
        await run.ended.wait()
    assert run.error is not None
    assert (run.error.text, run.error.exit_code) == ("The setting X has no value Y.", 3)
    assert [worker.exit_code for worker in run.workers] == [-9, 3, -9]
    assert run.source.closed
    assert not run.ready.is_set()


async def test_a_first_start_that_is_killed_has_the_exit_code_of_shells(autojump_clock: MockClock) -> None:
    async with running(1, arranged=lambda worker: worker.end(-9)) as run:
        await run.ended.wait()
    assert run.error is not None
    assert run.error.text == "No server was started: worker 0 (pid 101) was ended by SIGKILL before it was ready."
    assert run.error.exit_code == 137


async def test_an_order_to_stop_reaches_workers_that_are_still_starting(autojump_clock: MockClock) -> None:
    async with running(2, arranged=lambda worker: None if worker.number else 0.0) as run:
        await trio.sleep(1)
        report = await run.stop()
        assert not run.ready.is_set()
        assert [worker.exit_code for worker in run.workers] == [0, -9]
        assert (report.exit_codes, report.killed) == ([0], 0)


# --- silence ----------------------------------------------------------------------------------------------------------


async def test_a_silent_worker_gets_nothing_until_it_speaks_again(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "dk_trio.workers")
    async with running(2) as run:
        await run.ready.wait()
        silent, other = run.workers
        silent.beating = False
        await trio.sleep(SILENT_AFTER + 1)
        run.source.comes(*names(4))
        await trio.sleep(MOMENT)
        assert (len(silent.given), len(other.given)) == (0, 4)
        silent.beating = True
        await trio.sleep(1)
        run.source.comes(*names(4))
        await trio.sleep(MOMENT)
        assert (len(silent.given), len(other.given)) == (4, 4)
    assert caplog.text.count("has said nothing for 3 s") == 1
    assert caplog.text.count("answers again") == 1


async def test_a_worker_that_stays_silent_is_killed_and_replaced(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(2) as run:
        await run.ready.wait()
        run.latest(0).beating = False
        await trio.sleep(KILL_AFTER - 1)
        assert len(run.workers) == 2
        await trio.sleep(3)
        assert run.workers[0].exit_code == -9
        assert run.latest(0).pid == 103
    assert caplog.text.count("it is killed") == 2  # announced, and done


async def test_a_worker_that_sends_nonsense_is_killed_and_replaced(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(1) as run:
        await run.ready.wait()
        run.latest(0).line._out += b"[1, 2]\n"
        run.latest(0).tell_load()
        await trio.sleep(1)
        assert (run.workers[0].exit_code, len(run.workers)) == (-9, 2)
    assert "has sent what cannot be understood" in caplog.text


# --- the end ----------------------------------------------------------------------------------------------------------


async def test_a_drain_closes_the_source_first_and_reaches_all_at_the_same_time(autojump_clock: MockClock) -> None:
    async with running(3) as run:
        await run.ready.wait()
        for worker in run.workers:
            worker.drain_takes = 5.0
        began = trio.current_time()
        run.orders.send_nowait(SIGTERM)
        await trio.sleep(1)
        assert run.source.closed
        assert all({"do": "drain", "all": True} in worker.heard for worker in run.workers)
        await run.ended.wait()
        assert trio.current_time() - began < 6
        assert run.report is not None
        assert (run.report.finished, run.report.cut) == (3, 6)
        assert (run.report.exit_codes, run.report.killed) == ([0, 0, 0], 0)


@pytest.mark.parametrize("second", [SIGTERM, SIGINT])
async def test_a_second_signal_hastens_all(autojump_clock: MockClock, second: int) -> None:
    async with running(2) as run:
        await run.ready.wait()
        for worker in run.workers:
            worker.drain_takes = 30.0
        began = trio.current_time()
        run.orders.send_nowait(SIGINT)
        await trio.sleep(2)
        run.orders.send_nowait(second)
        run.orders.send_nowait(second)
        await run.ended.wait()
        assert trio.current_time() - began < 3


async def test_a_worker_that_does_not_drain_is_killed(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(2) as run:
        await run.ready.wait()
        run.latest(1).drain_takes = None
        began = trio.current_time()
        report = await run.stop()
        assert DRAIN_WITHIN <= trio.current_time() - began < DRAIN_WITHIN + 1
        assert (report.exit_codes, report.killed) == ([0, -9], 1)
        assert (report.finished, report.cut) == (1, 2)
    assert "did not end in time: it is killed" in caplog.text


async def test_nobody_is_replaced_during_a_drain(autojump_clock: MockClock) -> None:
    async with running(2) as run:
        await run.ready.wait()
        run.latest(0).drain_takes = None
        run.orders.send_nowait(SIGTERM)
        await trio.sleep(1)
        run.latest(0).end(-9)
        await run.ended.wait()
        assert len(run.workers) == 2
        assert run.report is not None
        assert sorted(run.report.exit_codes) == [-9, 0]


# --- what is for the workers ------------------------------------------------------------------------------------------


async def test_the_word_for_a_dump_goes_to_every_worker_that_is_ready(autojump_clock: MockClock) -> None:
    async with running(2, arranged=lambda worker: 0.0 if worker.pid < 103 else None) as run:
        await run.ready.wait()
        run.workers[0].end(1)
        await trio.sleep(MOMENT)
        run.orders.send_nowait(SIGUSR1)
        await trio.sleep(MOMENT)
        assert [worker.signals for worker in run.workers[:2]] == [[], [SIGUSR1]]
        assert all(worker.signals == [] for worker in run.workers[2:]), "it would end what has no handler yet"


# --- replacing all ----------------------------------------------------------------------------------------------------


async def test_workers_are_replaced_one_after_the_other_without_a_gap(autojump_clock: MockClock) -> None:
    def arranged(worker: FakeWorker) -> float:
        worker.drain_takes = 7.0
        return 3.0

    async with running(2, arranged=arranged) as run:
        await run.ready.wait()
        run.orders.send_nowait(SIGHUP)
        serving = []
        for number in range(24):
            run.source.comes(str(number))
            await trio.sleep(1)
            serving.append(len([worker for worker in run.workers if worker.exit_code is None]))
        assert [(worker.number, worker.pid) for worker in run.workers] == [(0, 101), (1, 102), (0, 103), (1, 104)]
        assert [worker.exit_code for worker in run.workers] == [0, 0, None, None]
        assert set(serving) == {2, 3}
        assert run.served() == sorted(str(number) for number in range(24))
        assert {"do": "drain", "all": False} in run.workers[0].heard
        assert [worker.beside for worker in run.workers] == [False, False, True, True]
        assert {"do": "alone"} in run.workers[2].heard  # its predecessor's other ports are free


async def test_a_successor_that_fails_leaves_everything_as_it_was(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    def arranged(worker: FakeWorker) -> float | None:
        if worker.pid != 103:
            return 0.0
        worker.say(do="failed", text="a line with an error")
        worker.end(4)
        return None

    async with running(2, arranged=arranged) as run:
        await run.ready.wait()
        run.orders.send_nowait(SIGHUP)
        await trio.sleep(5)
        assert [worker.exit_code for worker in run.workers] == [None, None, 4]
        run.orders.send_nowait(SIGHUP)  # it was mended
        await trio.sleep(5)
        assert [worker.exit_code for worker in run.workers] == [0, 0, 4, None, None]
    assert "a line with an error" in caplog.text
    assert "the workers from 0 on were not replaced" in caplog.text


async def test_a_drain_in_the_middle_of_replacing_ends_old_and_new(autojump_clock: MockClock) -> None:
    def arranged(worker: FakeWorker) -> float:
        worker.drain_takes = 2.0
        return 3.0

    async with running(2, arranged=arranged) as run:
        await run.ready.wait()
        run.orders.send_nowait(SIGHUP)
        await trio.sleep(4)  # one has its successor and drains
        await run.stop()
        assert [worker.exit_code for worker in run.workers] == [0, 0, 0]
        assert all(worker.closed for worker in run.workers)


# --- questions --------------------------------------------------------------------------------------------------------


async def test_a_question_reaches_all_others_and_their_answers_come_back(autojump_clock: MockClock) -> None:
    async with running(3) as run:
        await run.ready.wait()
        asker, *others = run.workers
        for worker in others:
            worker.answer = {"pid": worker.pid}
        asker.say(do="ask", id=7, question={"do": "status", "job": "j"})
        await trio.sleep(MOMENT)
        for worker in others:
            assert [message["question"] for message in worker.heard] == [{"do": "status", "job": "j"}]
        *answers, end = asker.heard
        assert sorted(answer["answer"]["pid"] for answer in answers) == [102, 103]
        assert {answer["id"] for answer in answers} == {7}
        assert end == {"do": "end", "id": 7, "silent": 0}


async def test_those_that_do_not_answer_are_counted_within_a_second(autojump_clock: MockClock) -> None:
    async with running(4) as run:
        await run.ready.wait()
        asker, mute, silent, _ = run.workers
        mute.answer = None
        silent.beating = False
        await trio.sleep(SILENT_AFTER + 1)
        asker.say(do="ask", id=1, question={})
        await trio.sleep(0.9)
        assert [message["do"] for message in asker.heard] == ["answer"]
        await trio.sleep(0.2)
        assert asker.heard[-1] == {"do": "end", "id": 1, "silent": 2}
        assert not silent.heard  # it is not even asked


async def test_a_worker_that_asks_too_much_is_answered_that_nobody_has(autojump_clock: MockClock) -> None:
    async with running(2) as run:
        await run.ready.wait()
        asker, other = run.workers
        other.answer = None
        for number in range(150):
            asker.say(do="ask", id=number, question={})
        await trio.sleep(MOMENT)
        assert len(other.heard) == 100
        assert len(asker.heard) == 50
        await trio.sleep(2)
        assert len(asker.heard) == 150
        asker.say(do="ask", id=1000, question={})
        await trio.sleep(2)
        assert asker.heard[-1]["id"] == 1000
        assert len(other.heard) == 101
