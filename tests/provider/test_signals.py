"""TaskManagerService: what is kept, what is pending, and polls that are held."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from math import inf
from typing import Any

import pytest
import trio
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from trio.testing import wait_all_tasks_blocked

from dk_trio import extensions
from dk_trio.pb.agentic_mesh_protocol.task_manager.v1 import (
    GetSignalsRequest,
    ListHeartbeatsRequest,
    SendSignalsRequest,
    Task,
    TaskManagerServiceStub,
)
from dk_trio.pb.google.protobuf import Struct
from dk_trio.provider._polls import Polls
from dk_trio.provider.task_manager import HOLD, MARGIN, PURGE_EVERY, TaskManagerStatistics, _hold_until
from dk_trio.services.stores import signals as stored
from dk_trio.services.stores.signals import SIGNALS_MAX

from .kit import Provided, provided

DAWN = datetime(2026, 1, 1, tzinfo=UTC)


def signal(job: str, action: str, reason: str = "none", *, at: float = 0, **fields: Any) -> Task:
    ids: dict[str, Any] = {"mission_id": "missions:m", "setup_id": "setups:s", "setup_version_id": "setup_versions:v"}
    created = DAWN + timedelta(seconds=at)
    return Task(task_id=job, action=action, cancellation_reason=reason, created_at=created, **ids, **fields)


def stub(peer: Provided) -> TaskManagerServiceStub:
    return TaskManagerServiceStub(peer.channel)


async def send(peer: Provided, *signals: Task, key: str = "") -> list[Task]:
    metadata = {extensions.IDEMPOTENCY_KEY: key} if key else {}
    reply = await stub(peer).send_signals(SendSignalsRequest(tasks=list(signals)), metadata=metadata)
    assert reply.success
    return reply.tasks


async def poll(peer: Provided, *jobs: str, timeout: float | None = 1.0) -> list[tuple[str, str]]:
    reply = await stub(peer).get_signals(GetSignalsRequest(task_ids=list(jobs)), timeout=timeout)
    return [(task.task_id, task.action) for task in reply.tasks]


async def poll_after(peer: Provided, after: str, *jobs: str) -> tuple[list[str], str]:
    async with stub(peer).channel.request(
        "/agentic_mesh_protocol.task_manager.v1.TaskManagerService/GetSignals",
        *_get_signals(),
        timeout=1.0,
        metadata={extensions.SIGNALS_AFTER: after} if after else {},
    ) as stream:
        await stream.send_message(GetSignalsRequest(task_ids=list(jobs)), end=True)
        await stream.recv_initial_metadata()
        reply = await stream.recv_message()
        return [task.action for task in reply.tasks], stream.initial_metadata[extensions.SIGNALS_UPTO]


def _get_signals() -> tuple[Any, ...]:
    from grpclib.const import Cardinality

    from dk_trio.pb.agentic_mesh_protocol.task_manager.v1 import GetSignalsResponse

    return Cardinality.UNARY_UNARY, GetSignalsRequest, GetSignalsResponse


def statistics(peer: Provided) -> TaskManagerStatistics:
    found = peer.provider.statistics().services["TaskManagerServicer"]
    assert isinstance(found, TaskManagerStatistics)
    return found


@asynccontextmanager
async def held(peer: Provided, *jobs: str, timeout: float | None = 10.0) -> AsyncIterator[list[tuple[float, Any]]]:
    """A poll in the background; in the list is what it returned, and when."""
    ends: list[tuple[float, Any]] = []

    async def run() -> None:
        found = await poll(peer, *jobs, timeout=timeout)
        ends.append((trio.current_time(), found))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await wait_all_tasks_blocked()
        yield ends


# --- what is pending ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reports", "request_", "pending"),
    [
        ([], ("cancel", "none"), True),
        ([], ("stop", "none"), True),
        ([], ("stop", ""), True),
        ([], ("stop", "signal_service_stop"), True),  # somebody says why
        ([("start", "none")], ("cancel", "none"), True),
        ([("ack_cancel", "signal_service_cancel")], ("cancel", "none"), False),
        ([("ack_stop", "signal_service_stop")], ("stop", "none"), False),
        ([("ack_stop", "signal_service_stop")], ("stop", "signal_service_stop"), False),  # its own
        ([("stop", "completed")], ("cancel", "none"), False),
        ([("stop", "timeout")], ("stop", "signal_service_stop"), False),
        ([], ("start", "none"), False),
        ([], ("ack_start", "none"), False),
        ([], ("stop", "completed"), False),
        ([], ("stop", "failure_cleanup"), False),
        ([], ("pause", "none"), False),
    ],
)
@pytest.mark.parametrize("later", [False, True])
async def test_a_request_is_pending_until_its_job_reports_an_end(
    autojump_clock: Any, reports: list[tuple[str, str]], request_: tuple[str, str], pending: bool, later: bool
) -> None:
    async with provided() as peer:
        if reports and not later:
            await send(peer, *(signal("j", *report) for report in reports))
        await send(peer, signal("j", *request_, at=1))
        if reports and later:
            if "signal_service_stop" in request_:
                return  # of such a stop it counts what came before
            await send(peer, *(signal("j", *report) for report in reports))
        assert await poll(peer, "j") == ([("j", request_[0])] if pending else [])


async def test_a_batch_is_kept_in_its_order_and_its_reply_tells_it_again(autojump_clock: Any) -> None:
    async with provided() as peer:
        payload = Struct.from_dict({"reason": "user", "n": 7})
        batch = [signal("a", "stop"), signal("b", "cancel", payload=payload), signal("a", "cancel", at=1)]
        assert await send(peer, *batch) == batch
        reply = await stub(peer).get_signals(GetSignalsRequest(task_ids=["b", "a"]))
        assert reply.tasks == batch


@pytest.mark.parametrize("key", ["", "k"])
async def test_a_batch_that_comes_twice_is_stored_once(autojump_clock: Any, key: str) -> None:
    async with provided() as peer:
        batch = [signal("a", "start"), signal("a", "cancel", at=1), signal("a", "stop", at=1)]
        for _ in range(3):
            assert await send(peer, *batch, key=key) == batch
        assert await poll(peer, "a") == [("a", "cancel"), ("a", "stop")]


async def test_a_signal_that_comes_again_does_not_wake_the_dead(autojump_clock: Any) -> None:
    async with provided() as peer:
        await send(peer, signal("a", "cancel"))
        await send(peer, signal("a", "ack_cancel", "signal_service_cancel", at=1))
        await send(peer, signal("a", "cancel"))
        await send(peer, signal("a", "start"))
        await send(peer, signal("a", "cancel", at=2))  # a second one that has crossed the acknowledgement
        assert await poll(peer, "a") == []


async def test_nothing_of_a_batch_with_a_bad_signal_is_kept(autojump_clock: Any) -> None:
    async with provided() as peer:
        with pytest.raises(GRPCError) as caught:
            await send(peer, signal("a", "cancel"), signal("", "cancel"))
        assert caught.value.status is Status.INVALID_ARGUMENT
        assert "tasks[1].task_id" in str(caught.value.message)
        assert await poll(peer, "a") == []


async def test_a_batch_that_is_too_large_is_refused_whole(autojump_clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dk_trio.provider.task_manager.SIGNALS_MAX", 2)
    async with provided() as peer:
        with pytest.raises(GRPCError, match="has 3 signals, 2 at most") as caught:
            await send(peer, *[signal("a", "cancel") for _ in range(3)])
        assert caught.value.status is Status.INVALID_ARGUMENT
        assert await poll(peer, "a") == []


async def test_a_signal_without_a_date_gets_one(autojump_clock: Any) -> None:
    async with provided(now=DAWN.timestamp) as peer:
        for _ in range(2):
            await send(peer, Task(task_id="a", action="cancel"))
        reply = await stub(peer).get_signals(GetSignalsRequest(task_ids=["a"]))
        assert [task.created_at for task in reply.tasks] == [DAWN]


async def test_a_batch_without_dates_that_is_sent_again_with_its_key_is_the_same(autojump_clock: Any) -> None:
    async with provided(now=lambda: DAWN.timestamp() + trio.current_time()) as peer:
        begun = trio.current_time()
        replies = []
        for _ in range(3):
            replies.append(await send(peer, Task(task_id="a", action="cancel"), signal("b", "start"), key="k"))
            await trio.sleep(60)
        first = replies[0][0].created_at
        assert first is not None
        assert (first - DAWN).total_seconds() == pytest.approx(begun, abs=1)
        assert replies == [replies[0]] * 3
        reply = await stub(peer).get_signals(GetSignalsRequest(task_ids=["a"]))
        assert [task.created_at for task in reply.tasks] == [first]


async def test_of_one_job_so_many_signals_are_kept_and_no_more(autojump_clock: Any) -> None:
    async with provided() as peer:
        await send(peer, *(signal("a", "cancel", at=number) for number in range(3 * SIGNALS_MAX)))
        await send(peer, *(signal("a", "start", at=number) for number in range(3 * SIGNALS_MAX)))
        reply = await stub(peer).get_signals(GetSignalsRequest(task_ids=["a"]))
        dates = [task.created_at for task in reply.tasks]
        assert dates == [DAWN + timedelta(seconds=number) for number in range(2 * SIGNALS_MAX, 3 * SIGNALS_MAX)]


# --- polls that are held ---------------------------------------------------------------------------------------------


async def test_a_poll_wakes_at_once_when_a_request_comes(autojump_clock: Any) -> None:
    async with provided() as peer, held(peer, "a", "b") as ends:
        await trio.sleep(3)
        await send(peer, signal("x", "cancel"), signal("b", "start"))
        await trio.sleep(2)
        assert ends == []
        await send(peer, signal("b", "cancel", at=1))
        await wait_all_tasks_blocked()
        assert ends == [(trio.current_time(), [("b", "cancel")])]


@pytest.mark.parametrize("timeout", [0.05, 0.5, 1.0, 1.0000001, 9.999, 10.0000001, 60.0, 100.0000001, 333.3])
async def test_a_poll_ends_shortly_before_its_deadline(autojump_clock: Any, timeout: float) -> None:
    """Before the client's own deadline: what the client tells of it is rounded up."""
    async with provided() as peer:
        start = trio.current_time()
        assert await poll(peer, "nobody", timeout=timeout) == []
        assert 0.85 * timeout < trio.current_time() - start <= timeout - min(MARGIN, timeout / 10) + 1e-6


def test_a_poll_without_a_deadline_ends_all_the_same() -> None:
    assert _hold_until(100.0, inf) == 100 + HOLD


async def test_two_polls_for_one_job_both_get_its_request(autojump_clock: Any) -> None:
    async with provided() as peer, held(peer, "a") as first, held(peer, "b", "a") as second:
        await send(peer, signal("a", "cancel"))
        await wait_all_tasks_blocked()
        assert [found for _, found in first + second] == [[("a", "cancel")]] * 2


async def test_a_request_is_told_again_until_it_is_answered(autojump_clock: Any) -> None:
    async with provided() as peer:
        await send(peer, signal("a", "cancel"))
        for _ in range(3):
            assert await poll(peer, "a") == [("a", "cancel")]
        await send(peer, signal("a", "ack_cancel", "signal_service_cancel"))
        assert await poll(peer, "a") == []


async def test_who_tells_what_it_has_taken_gets_it_once(autojump_clock: Any) -> None:
    async with provided() as peer:
        await send(peer, signal("a", "stop"))
        told, upto = await poll_after(peer, "", "a")
        assert told == ["stop"]
        start = trio.current_time()
        assert await poll_after(peer, upto, "a") == ([], upto)
        assert trio.current_time() > start  # it was held, although something is pending
        await send(peer, signal("a", "cancel", at=1))
        told, upto = await poll_after(peer, upto, "a")
        assert told == ["cancel"]
        assert await poll_after(peer, "", "a") == (["stop", "cancel"], upto)


@pytest.mark.parametrize("after", ["-1", "one", "9" * 30, "1.0"])
async def test_a_cursor_that_is_none_is_refused(autojump_clock: Any, after: str) -> None:
    async with provided() as peer:
        with pytest.raises(GRPCError) as caught:
            await poll_after(peer, after, "a")
        assert caught.value.status is Status.INVALID_ARGUMENT


async def test_a_request_that_comes_while_nobody_polls_waits(autojump_clock: Any) -> None:
    async with provided() as peer:
        await poll(peer, "a")
        await send(peer, signal("a", "cancel"))
        await trio.sleep(5)
        start = trio.current_time()
        assert await poll(peer, "a") == [("a", "cancel")]
        assert trio.current_time() == start


async def test_polls_end_when_the_provider_drains(autojump_clock: Any) -> None:
    async with provided() as peer, held(peer, "a", timeout=None) as ends:
        start = trio.current_time()
        await peer.provider.drain(10)
        assert ends == [(start, [])]


@pytest.mark.parametrize("steps", range(12))
async def test_a_poll_that_is_cancelled_leaves_nothing(autojump_clock: Any, steps: int) -> None:
    """Wherever it is: after so many steps of the scheduler."""
    async with provided() as peer:
        await send(peer, signal("b", "start"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(poll, peer, "a", "b")
            for _ in range(steps):
                await trio.lowlevel.checkpoint()
            if steps % 2:
                nursery.start_soon(send, peer, signal("a", "cancel"))
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        await wait_all_tasks_blocked()
        now = statistics(peer)
        assert (now.polls, now.jobs_polled) == (0, 0)
        await send(peer, signal("a", "cancel"))  # where there was one: whether it was committed or not
        assert await poll(peer, "a") == [("a", "cancel")]


@pytest.mark.parametrize("steps", range(0, 24, 2))
async def test_signals_whose_sender_is_cancelled_are_told_if_they_are_kept(autojump_clock: Any, steps: int) -> None:
    async with provided() as peer, held(peer, "b") as ends:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, peer, signal("a", "cancel"), signal("b", "stop"))
            for _ in range(steps):
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        await wait_all_tasks_blocked()
        store = peer.provider._stores.signals
        kept = await store.database.read(partial(store.pending_work, ["a", "b"]))
        assert len(kept) in (0, 2)
        assert [found for _, found in ends] == ([[("b", "stop")]] if kept else [])
        assert await poll(peer, "a") == ([("a", "cancel")] if kept else [])


def test_a_note_that_comes_while_a_poll_looks_is_not_lost() -> None:
    polls = Polls()
    polls.asked(["a", "b"])
    looked = polls.may_have({"a": None, "b": None})
    polls.asked(["a"])
    polls.nothing_for(looked)
    assert set(polls.may_have({"a": None, "b": None})) == {"a"}


async def test_a_request_that_comes_while_its_job_is_forgotten_is_not_lost(autojump_clock: Any) -> None:
    async with provided(now=lambda: DAWN.timestamp() + trio.current_time()) as peer:
        await poll(peer, "b")  # from now on the provider knows what is pending without a look
        await send(peer, signal("a", "start"), signal("a", "cancel"), signal("a", "stop", "completed"))
        await trio.sleep(stored.ENDED_KEPT / 1_000_000 - PURGE_EVERY)
        database = peer.provider._stores.database
        write = database.write

        async def slow(work: Any) -> Any:
            result = await write(work)
            if result == ["a"]:  # purged, and who did it has not heard of that yet
                await send(peer, signal("a", "cancel", at=7))
            return result

        database.write = slow  # type: ignore[method-assign]
        await trio.sleep(2 * PURGE_EVERY)
        assert statistics(peer).purged == 1
        assert await poll(peer, "a") == [("a", "cancel")]


@pytest.mark.parametrize("jump", [-3600, 3600 - 120])
async def test_a_clock_that_is_set_changes_nothing_of_signals(autojump_clock: Any, jump: float) -> None:
    """Order is by place and waits are by Trio's clock. Only what is kept of ended jobs goes by the wall's."""
    shift = 0.0
    async with provided(now=lambda: DAWN.timestamp() + trio.current_time() + shift) as peer:
        batch = [Task(task_id="a", action="cancel"), signal("done", "stop", "completed")]
        first = await send(peer, *batch, key="k")
        _, cursor = await poll_after(peer, "", "a")
        shift = jump
        await trio.sleep(PURGE_EVERY + 1)
        assert await send(peer, *batch, key="k") == first
        await send(peer, signal("done", "cancel"), Task(task_id="a", action="cancel"), signal("a", "stop"))
        assert await poll(peer, "done") == []
        assert (await poll_after(peer, cursor, "a"))[0] == ["stop"]
        assert await poll(peer, "a") == [("a", "cancel"), ("a", "stop")]
        heard = await stub(peer).list_heartbeats(ListHeartbeatsRequest(task_ids=["a"]))
        assert [task.task_id for task in heard.tasks] == ["a"]


async def test_a_connection_that_breaks_ends_its_polls(autojump_clock: Any) -> None:
    async with provided() as peer, trio.open_nursery() as nursery:

        async def poll_in_vain() -> None:
            with pytest.raises(GRPCError) as caught:
                await poll(peer, "a")
            assert caught.value.status is Status.UNAVAILABLE

        nursery.start_soon(poll_in_vain)
        await wait_all_tasks_blocked()
        assert statistics(peer).polls == 1
        await peer.cut()
        await wait_all_tasks_blocked()
        assert statistics(peer).polls == 0
        nursery.cancel_scope.cancel()


async def test_many_jobs_and_many_polls(autojump_clock: Any) -> None:
    """Each of 200 jobs is asked for by one of 20 polls, and each request reaches its own poll and no other."""
    async with provided() as peer, trio.open_nursery() as nursery:
        told: dict[int, list[str]] = {number: [] for number in range(20)}

        async def serve(number: int) -> None:
            jobs = {f"{number}-{job}" for job in range(10)}
            while jobs:
                for job, action in await poll(peer, *sorted(jobs), *(f"idle-{number}-{n}" for n in range(100))):
                    told[number].append(job)
                    jobs.remove(job)
                    await send(peer, signal(job, f"ack_{action}", "signal_service_cancel"))

        for number in range(20):
            nursery.start_soon(serve, number)
        for job in range(10):
            await trio.sleep(0.3)
            batch = [signal(f"{number}-{job}", "start") for number in range(20)]
            asked = [signal(f"{number}-{job}", "cancel", at=1) for number in range(20)]
            await send(peer, *batch, *asked)
        nursery.cancel_scope.deadline = trio.current_time() + 60
    assert told == {number: [f"{number}-{job}" for job in range(10)] for number in range(20)}


async def test_a_reply_is_bounded_and_the_rest_comes_next(autojump_clock: Any) -> None:
    async with provided() as peer:
        large = Struct.from_dict({"text": "x" * 400_000})
        for job in range(6):
            await send(peer, signal(f"j{job}", "cancel", payload=large))
        jobs = [f"j{job}" for job in range(6)]
        first, upto = await poll_after(peer, "", *jobs)
        second, _ = await poll_after(peer, upto, *jobs)
        assert (len(first), len(second)) == (3, 3)


async def test_requests_with_too_much_are_refused(autojump_clock: Any) -> None:
    async with provided(validate="off") as peer:
        many = [str(number) for number in range(20_001)]
        with pytest.raises(GRPCError) as caught:
            await poll(peer, *many)
        assert caught.value.status is Status.INVALID_ARGUMENT


# --- kept for a time -------------------------------------------------------------------------------------------------


async def test_signals_of_ended_and_of_lost_jobs_are_removed_in_time(
    autojump_clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored, "ENDED_KEPT", 300 * 1_000_000)  # hours and days of health checks take long
    monkeypatch.setattr(stored, "IDLE_KEPT", 900 * 1_000_000)
    async with provided(now=trio.current_time) as peer:
        await send(peer, signal("ended", "start"), signal("ended", "stop", "completed", at=1), signal("lost", "cancel"))
        await trio.sleep(300 - PURGE_EVERY)
        assert statistics(peer).purged == 0
        await trio.sleep(2 * PURGE_EVERY)
        assert statistics(peer).purged == 1
        assert await poll(peer, "lost") == [("lost", "cancel")]
        await trio.sleep(600)
        assert (statistics(peer).purged, statistics(peer).jobs_asked) == (2, 0)
        assert await poll(peer, "lost") == []


# --- heartbeats ------------------------------------------------------------------------------------------------------


async def heartbeats(peer: Provided, *jobs: str) -> dict[str, float]:
    reply = await stub(peer).list_heartbeats(ListHeartbeatsRequest(task_ids=list(jobs)))
    assert reply.total_count == len(reply.tasks)
    return {task.task_id: task.heartbeat_at.timestamp() for task in reply.tasks if task.heartbeat_at}


async def test_polls_and_signals_with_a_heartbeat_are_heartbeats(autojump_clock: Any) -> None:
    async with provided(now=lambda: 1000 + trio.current_time()) as peer:
        jobs = ("polled", "told", "silent")
        await send(peer, *(signal(job, "start") for job in jobs))
        start = trio.current_time() + 1000
        assert await heartbeats(peer, *jobs) == {}
        await poll(peer, "polled", "unknown")
        await send(peer, signal("told", "start", heartbeat_at=DAWN))
        assert await heartbeats(peer, *jobs, "unknown") == pytest.approx({"polled": start + 0.89, "told": start + 0.89})
        await trio.sleep(59)
        assert set(await heartbeats(peer, *jobs)) == {"polled", "told"}
        async with held(peer, "polled"):
            await trio.sleep(5)
            assert await heartbeats(peer, *jobs) == pytest.approx({"polled": 1000 + trio.current_time()})


async def test_the_heartbeat_of_a_job_that_has_ended_is_over(autojump_clock: Any) -> None:
    async with provided() as peer:
        await send(peer, signal("a", "start", heartbeat_at=DAWN))
        assert set(await heartbeats(peer, "a")) == {"a"}
        await send(peer, signal("a", "stop", "completed", heartbeat_at=DAWN))
        assert await heartbeats(peer, "a") == {}
