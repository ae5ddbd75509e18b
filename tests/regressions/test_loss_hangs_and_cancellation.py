"""Defects 1 to 15 of the existing SDK: outputs that are lost, calls that hang, cancels that come late or never."""

from datetime import UTC, datetime, timedelta
from itertools import cycle
from typing import Any

import pytest
import trio
import trio.testing
from grpclib.const import Status
from tests.module.sample import Message
from tests.module.service_kit import Source, configure
from tests.regressions import defect
from tests.regressions.kit import Call, answer, begin, call, count_up, serving, tick, wait
from tests.signals.fake import exchange_with

from dk_trio.admission import Admission
from dk_trio.errors import SetupUnavailableError
from dk_trio.module import ModuleContext
from dk_trio.pb.agentic_mesh_protocol.module.v1 import ModuleStatus
from dk_trio.pb.agentic_mesh_protocol.task_manager.v1 import Task
from dk_trio.settings import TaskSettings
from dk_trio.signals import Signal, SignalAction
from dk_trio.testing.provider import FakeProvider

AT_ONCE = 0.05
"""Seconds of virtual time: messages between two ends in memory take none, batching of signals a little."""


@defect(1)
@pytest.mark.parametrize(("messages", "text"), [(300, ""), (900, "x" * 5000)], ids=["300", "900 of 5 kB"])
async def test_a_slow_reader_gets_the_whole_tail(autojump_clock: object, messages: int, text: str) -> None:
    """Of 300 messages 269 arrived when the client paused 2 s after the first, of 900 there were 568, with status OK."""
    async with serving(count_up) as memory:
        seen = await call(memory.client, pause=2, count=messages, text=text)
    assert seen.counts == list(range(messages))
    assert seen.whole


@defect(2)
@pytest.mark.parametrize(("shielded", "bound"), [(False, AT_ONCE), (True, 15 + AT_ONCE)])
async def test_a_job_that_is_stopped_by_force_has_a_status(
    autojump_clock: object, shielded: bool, bound: float
) -> None:
    """Also one whose code goes on although it was cancelled: its caller is told in due time."""

    async def handle(self: Any, data: Message, setup: Any, context: ModuleContext) -> None:
        await context.send(Message())
        with trio.CancelScope(shield=shielded):
            await trio.sleep(40)

    async with serving(handle) as memory, trio.open_nursery() as nursery:
        seen = await begin(nursery, memory.client)
        asked_at = trio.current_time()
        await memory.client.stop(seen.job_id)
        await seen.ended.wait()
    assert seen.status is Status.CANCELLED
    assert seen.ended_at - asked_at <= bound


@defect(3)
@pytest.mark.parametrize("leaver", [0, 1, 2], ids=["who asked first", "a waiter", "the last"])
async def test_a_caller_that_leaves_disturbs_nobody_who_waits_for_the_same_setup(
    autojump_clock: object, leaver: int
) -> None:
    source = Source(delay=1)
    async with serving(answer, setups=source) as memory, trio.open_nursery() as nursery:
        callers: list[Call] = []
        for _ in range(3):
            callers.append(seen := Call())
            nursery.start_soon(seen.run, memory.client, 0, {}, {})
            await trio.testing.wait_all_tasks_blocked()
        await trio.sleep(0.5)
        callers[leaver].caller.cancel()
        for seen in callers:
            await seen.ended.wait()
        assert trio.current_time() == pytest.approx(1, abs=AT_ONCE)
    assert len(source.asked) == 1
    assert callers.pop(leaver).status is None
    assert [seen.whole for seen in callers] == [True, True]


@defect(3)
async def test_a_setup_that_cannot_be_fetched_is_told_to_each_who_waits(autojump_clock: object) -> None:
    """Nothing is left of the fetch that somebody would have to look at: warnings are errors here."""
    source = Source(delay=1)
    source.failure = lambda: SetupUnavailableError("the platform is away")
    async with serving(answer, setups=source) as memory, trio.open_nursery() as nursery:
        callers = [Call() for _ in range(3)]
        for seen in callers:
            nursery.start_soon(seen.run, memory.client, 0, {}, {})
    assert [(seen.status, seen.message) for seen in callers] == [(Status.UNAVAILABLE, "the platform is away")] * 3


@defect(4)
async def test_a_configuration_does_not_disturb_jobs_that_run(autojump_clock: object) -> None:
    """A job of 31 messages stopped at 12. It can still be cancelled afterwards, by a signal."""
    async with FakeProvider() as provider, serving(tick, provider=provider) as memory, trio.open_nursery() as nursery:
        seen = await begin(nursery, memory.client, count=31)
        other = await begin(nursery, memory.client, count=1000)
        await trio.sleep(1.15)
        await configure(memory.client)
        await seen.ended.wait()
        assert seen.counts == list(range(31))
        assert seen.whole
        asked_at = trio.current_time()
        await provider.signal(other.job_id, "cancel")
        await other.ended.wait()
        assert other.status is Status.CANCELLED
        assert other.ended_at - asked_at < AT_ONCE


@defect(5)
@pytest.mark.parametrize("after", [0, 0.001, 0.01, 0.3, 0.9, 1.1])
async def test_a_job_that_begins_when_the_last_one_ends_can_be_cancelled(autojump_clock: object, after: float) -> None:
    """Whatever the poller is doing then: it is asking, or it has just found that nobody is left to ask for."""
    async with FakeProvider() as provider, serving(tick, provider=provider) as memory, trio.open_nursery() as nursery:
        last = await begin(nursery, memory.client, count=20)
        await last.ended.wait()
        await trio.sleep(after)
        seen = await begin(nursery, memory.client, count=1000)
        asked_at = trio.current_time()
        await provider.signal(seen.job_id, "cancel")
        await seen.ended.wait()
        assert seen.status is Status.CANCELLED
        assert seen.ended_at - asked_at < AT_ONCE


@defect(6)
async def test_a_signal_that_comes_while_another_is_sent_follows_it(autojump_clock: object) -> None:
    """START hangs on its way; the STOP behind it needs nobody to push it, and the job can be cancelled meanwhile."""
    async with FakeProvider() as provider, serving(wait, provider=provider) as memory, trio.open_nursery() as nursery:
        provider.delay("SendSignals", 3)
        seen = await begin(nursery, memory.client)
        await trio.sleep(1)  # START is under way
        await memory.client.stop(seen.job_id)
        await seen.ended.wait()
        assert seen.ended_at == pytest.approx(1, abs=AT_ONCE)
        await trio.sleep(6)
        assert [task.action for task in provider.signals] == ["start", "ack_stop", "stop"]


@defect(7)
async def test_a_sender_that_is_cancelled_strands_neither_its_batch_nor_those_who_wait(autojump_clock: object) -> None:
    """50 signals are being sent and 30 wait behind them, each with one who waits for it; some of either leave."""
    async with FakeProvider() as provider, serving(wait, provider=provider) as memory, trio.open_nursery() as nursery:
        seen = await begin(nursery, memory.client)
        await trio.sleep(1)
        provider.delay("SendSignals", 2)
        settled: list[int] = []
        scopes = [trio.CancelScope() for _ in range(80)]
        leavers = {0, 20, 49, 50, 60, 79}

        async def deliver(number: int) -> None:
            with scopes[number]:
                await memory.server.signals.deliver(Signal(task_id=f"t{number}", action=SignalAction.START))
                settled.append(number)

        for number in range(80):
            nursery.start_soon(deliver, number)
        await trio.sleep(1)
        for leaver in leavers:
            scopes[leaver].cancel()
        await trio.sleep(5)
        assert sorted(settled) == sorted(set(range(80)) - leavers)
        assert {task.task_id for task in provider.signals} >= {f"t{number}" for number in range(80)}
        await memory.client.stop(seen.job_id)


@defect(8)
async def test_a_client_that_leaves_ends_the_work_at_once(autojump_clock: object) -> None:
    """The handler ran 5 s to its end, and up to 300 s."""
    ends: list[tuple[str, float]] = []

    async def handle(self: Any, data: Message, setup: Any, context: ModuleContext) -> None:
        await context.send(Message())
        try:
            await trio.sleep(5)
        except trio.Cancelled:
            ends.append(("cancelled", trio.current_time()))
            raise

    async def cleanup(self: Any) -> None:
        ends.append(("cleanup", trio.current_time()))

    async with serving(handle, cleanup=cleanup) as memory, trio.open_nursery() as nursery:
        seen = await begin(nursery, memory.client)
        await trio.sleep(1)
        seen.caller.cancel()
        await trio.sleep(AT_ONCE)
        assert ends == [("cancelled", 1), ("cleanup", 1)]
        assert await memory.client.status(seen.job_id) is ModuleStatus.CANCELED


@defect(9)
@pytest.mark.parametrize(
    "variables",
    [{"BACKPRESSURE_TIMEOUT": 6}, {"COMPLETION_TIMEOUT": 3, "BACKPRESSURE_TIMEOUT": 20}, {}],
    ids=["11.6 s", "23 s", "600 s"],
)
async def test_a_client_that_leaves_while_its_outputs_wait_frees_the_slot_at_once(
    autojump_clock: object, variables: dict[str, int]
) -> None:
    """The author is held in `send`, because nobody reads; the id of the case is for how long the slot was held."""
    variables = {"MAX_CONCURRENT_TASKS": 1, **variables}
    async with serving(count_up, variables=variables) as memory, trio.open_nursery() as nursery:
        seen = await begin(nursery, memory.client, pause=1000, count=10_000, text="x" * 10_000)
        await trio.sleep(2)
        assert memory.server.statistics().admission.running == 1
        seen.caller.cancel()
        await trio.sleep(AT_ONCE)
        assert memory.server.statistics().admission.running == 0
        assert (await call(memory.client, count=1)).whole


@defect(10)
@pytest.mark.parametrize("how", ["StopModule", "signal"])
async def test_a_cancel_waits_for_no_round_trip(autojump_clock: object, how: str) -> None:
    """The provider takes a minute for every signal that it is told; the job has ended before it answers the first."""
    async with FakeProvider() as provider, serving(wait, provider=provider) as memory, trio.open_nursery() as nursery:
        seen = await begin(nursery, memory.client)
        await trio.sleep(2)
        asked_at = trio.current_time()
        if how == "signal":
            await provider.signal(seen.job_id, "cancel")
            provider.delay("SendSignals", 60)
        else:
            provider.delay("SendSignals", 60)
            await memory.client.stop(seen.job_id)
        await seen.ended.wait()
        assert seen.status is Status.CANCELLED
        assert seen.ended_at - asked_at < AT_ONCE


@defect(11)
async def test_stopping_jobs_needs_no_provider_and_stops_do_not_wait_for_each_other(autojump_clock: object) -> None:
    """Ten stops with a provider that takes connections and never answers: each took 300 s, one after the other."""
    async with FakeProvider() as provider, serving(wait, provider=provider) as memory, trio.open_nursery() as nursery:
        jobs = [await begin(nursery, memory.client) for _ in range(10)]
        async with provider.outage(hang=True):
            asked_at = trio.current_time()
            async with trio.open_nursery() as stops:
                for seen in jobs:
                    stops.start_soon(memory.client.stop, seen.job_id)
            for seen in jobs:
                await seen.ended.wait()
            assert trio.current_time() - asked_at < AT_ONCE
    assert {seen.status for seen in jobs} == {Status.CANCELLED}


@defect(12)
@pytest.mark.parametrize("hang", [False, True])
async def test_an_outage_of_the_provider_fails_no_job_and_is_told(
    autojump_clock: object, caplog: pytest.LogCaptureFixture, hang: bool
) -> None:
    """A job of 150 messages got 135 of them to its caller, without an error and with status OK."""
    async with FakeProvider() as provider, serving(tick, provider=provider) as memory:
        async with provider.outage(hang=hang), trio.open_nursery() as nursery:
            seen = await begin(nursery, memory.client, count=150)
            await seen.ended.wait()
            await trio.sleep(60)
            health = memory.server.signals.health()
            assert (health.outbound.ok, health.pending) == (False, 2)
        assert seen.counts == list(range(150))
        assert seen.whole
        await trio.sleep(30)
        assert [(task.action, task.cancellation_reason) for task in provider.signals] == [
            ("start", "none"),
            ("stop", "completed"),
        ]
    told = [record.message for record in caplog.records if "takes no signals" in record.message]
    assert len(told) == 1


@defect(12)
async def test_that_no_signals_come_in_is_told(autojump_clock: object, caplog: pytest.LogCaptureFixture) -> None:
    async with FakeProvider() as provider, serving(wait, provider=provider) as memory, trio.open_nursery() as nursery:
        seen = await begin(nursery, memory.client)
        async with provider.outage():
            await trio.sleep(30)
            assert not memory.server.signals.health().inbound.ok
        await trio.sleep(30)
        assert memory.server.signals.health().inbound.ok
        await provider.signal(seen.job_id, "cancel")
        await seen.ended.wait()
    assert len([record for record in caplog.records if "no signals come in" in record.message]) == 1


@defect(13)
@pytest.mark.parametrize("behind", [0, 1, 3600])
async def test_a_cancel_from_a_clock_that_is_behind_is_a_cancel(autojump_clock: object, behind: float) -> None:
    """Earlier than what came before, such as an echo of the job's own START, or at the same moment."""
    heard: list[str] = []
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    async with exchange_with() as (exchange, platform):
        with exchange.listen("a", lambda signal: heard.append(signal.action)):
            for action, at in (("start", moment), ("cancel", moment - timedelta(seconds=behind))):
                platform.ask(Task(task_id="a", action=action, cancellation_reason="none", created_at=at))
                await trio.sleep(3)
    assert heard == ["start", "cancel"]


@defect(14)
async def test_a_cleanup_that_hangs_is_bounded_and_the_job_was_cancelled(autojump_clock: object) -> None:
    """Not stopped, as if nothing had been: who asks is told so."""
    cleanups: list[float] = []

    async def cleanup(self: Any) -> None:
        try:
            await trio.sleep(2000)
        finally:
            cleanups.append(trio.current_time())

    async with serving(wait, cleanup=cleanup) as memory, trio.open_nursery() as nursery:
        seen = await begin(nursery, memory.client)
        seen.caller.cancel()
        await trio.sleep(9.9)
        assert await memory.client.status(seen.job_id) is ModuleStatus.PROCESSING
        await trio.sleep(0.2)
        assert cleanups == [10]
        assert await memory.client.status(seen.job_id) is ModuleStatus.CANCELED


@defect(14)
async def test_a_handler_that_is_cancelled_inside_of_send_does_not_go_on(autojump_clock: object) -> None:
    """Nobody reads, so it is held there."""
    sent: list[int] = []

    async def handle(self: Any, data: Message, setup: Any, context: ModuleContext) -> None:
        for number in range(10_000):
            await context.send(Message(count=number, text="x" * 10_000))
            sent.append(number)

    async with serving(handle) as memory, trio.open_nursery() as nursery:
        seen = await begin(nursery, memory.client, pause=100)
        await trio.sleep(1)
        before = len(sent)
        await memory.client.stop(seen.job_id)
        await seen.ended.wait()
        assert 0 < len(sent) == before < 10_000
        assert seen.status is Status.CANCELLED


@defect(15)
@pytest.mark.parametrize("waiter_first", [False, True])
@pytest.mark.parametrize("queue", [0, 5])
async def test_a_slot_that_is_granted_as_its_waiter_is_cancelled_is_not_lost(
    autojump_clock: object, queue: int, waiter_first: bool
) -> None:
    """Who holds the only slot leaves, and the first who waits is cancelled in the same step: the second gets it."""
    admission = Admission(TaskSettings(max_concurrent_tasks=1, max_queued_tasks=queue))
    running: list[int] = []

    async def hold(number: int, scope: trio.CancelScope) -> None:
        with scope:
            async with admission.admit():
                running.append(number)
                await trio.sleep_forever()

    for _ in range(30):  # each wakes its tasks in another order
        running.clear()
        holder, first, second = scopes = [trio.CancelScope() for _ in range(3)]
        async with trio.open_nursery() as nursery:
            for number, scope in enumerate(scopes):
                nursery.start_soon(hold, number, scope)
                await trio.testing.wait_all_tasks_blocked()
            for scope in (first, holder) if waiter_first else (holder, first):
                scope.cancel()
            await trio.testing.wait_all_tasks_blocked()
            assert running == [0, 2]
            second.cancel()
        now = admission.statistics()
        assert (now.running, now.admitted, now.queued, now.at_gate) == (0, 0, 0, 0)


@defect(15)
async def test_an_output_that_comes_as_its_reader_is_cancelled_is_not_lost(autojump_clock: object) -> None:
    """The reader is cancelled again and again, each time after some more steps of the scheduler."""
    async with (
        serving(count_up) as memory,
        memory.client.start({"protocol": "message", "count": 200}) as outputs,
        trio.open_nursery() as nursery,
    ):
        counts: list[int] = []
        reading = trio.CancelScope()

        async def disturb() -> None:
            for steps in cycle((1, 3, 2, 5, 1, 4, 8)):
                for _ in range(steps):
                    await trio.lowlevel.checkpoint()
                reading.cancel()

        nursery.start_soon(disturb)
        while not outputs.ended:
            with reading:
                async for output in outputs:
                    if output["root"]["protocol"] == "message":
                        counts.append(output["root"]["count"])  # noqa: PERF401  what came before a cancel is kept
            reading = trio.CancelScope()
        nursery.cancel_scope.cancel()
    assert counts == list(range(200))
