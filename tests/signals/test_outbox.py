"""Signals out: batches, order, retries, and what an outage does not do."""

import logging
from itertools import pairwise
from random import Random
from typing import Any

import pytest
import trio
from grpclib.const import Status

from dk_trio import rpc
from dk_trio.errors import TaskManagerServiceError
from dk_trio.settings import SignalSettings
from dk_trio.signals import RemoteSignals, Signal, SignalAction

from .fake import DAY, FakeProvider, ack, exchange_with, settled, start, stop

# --- batches -----------------------------------------------------------------------------------------------------


async def test_a_signal_waits_for_others_for_the_flush_interval(autojump_clock: Any) -> None:
    async with exchange_with(flush_interval=0.1) as (exchange, provider):
        began = trio.current_time()
        exchange.publish(start("a"))
        await trio.sleep(0.06)
        exchange.publish(start("b"))
        await settled(exchange)
        assert [sent.said for sent in provider.sent] == [[("a", "start"), ("b", "start")]]
        assert provider.sent[0].at - began == pytest.approx(0.1)
        exchange.publish(start("c"))
        await settled(exchange)
        assert len(provider.sent) == 2
        assert exchange.statistics().outbound.delivered == 3


async def test_a_job_that_says_something_new_does_not_wait_anew(autojump_clock: Any) -> None:
    async with exchange_with(flush_interval=1.0) as (exchange, provider):
        begun = trio.current_time()
        for action in (SignalAction.ACK_START, SignalAction.ACK_CANCEL, SignalAction.ACK_STOP):
            exchange.publish(ack("a", action))
            await trio.sleep(0.4)
        await settled(exchange)
        assert [sent.at - begun for sent in provider.sent] == [pytest.approx(1.0, abs=0.01)]
        assert provider.of("a") == ["ack_stop"]


async def test_a_full_batch_is_sent_at_once(autojump_clock: Any) -> None:
    async with exchange_with(max_batch_size=5, flush_interval=10) as (exchange, provider):
        began = trio.current_time()
        for number in range(12):
            exchange.publish(start(f"j{number}"))
        await trio.sleep(1)
        assert [len(sent.tasks) for sent in provider.sent] == [5, 5]
        assert all(sent.at - began < 0.01 for sent in provider.sent)
        await trio.sleep(10)
        assert [len(sent.tasks) for sent in provider.sent] == [5, 5, 2]


async def test_a_signal_that_comes_during_a_call_is_not_forgotten(autojump_clock: Any) -> None:
    """A queue that arms its timer only when it is idle would keep it until somebody else sends."""
    async with exchange_with(send_plan=[3.0]) as (exchange, provider):
        exchange.publish(start("a"))
        await trio.sleep(1)
        exchange.publish(start("b"))
        await settled(exchange)
        assert [sent.said for sent in provider.sent] == [[("a", "start")], [("b", "start")]]


async def test_one_call_at_a_time_and_all_in_order(autojump_clock: Any) -> None:
    async with exchange_with(send=0.05, max_batch_size=7, flush_interval=0.02) as (exchange, provider):

        async def job(number: int) -> None:
            for signal in (start(f"j{number}"), ack(f"j{number}"), stop(f"j{number}")):
                exchange.publish(signal)
                await trio.sleep(0.01 * (number % 5))

        async with trio.open_nursery() as nursery:
            for number in range(40):
                nursery.start_soon(job, number)
        await settled(exchange)
        assert provider.most_sending == 1
        assert all(provider.of(f"j{number}") == ["start", "ack_cancel", "stop"] for number in range(40))


async def test_what_a_signal_says_travels(autojump_clock: Any) -> None:
    async with exchange_with() as (exchange, provider):
        signal = Signal(
            task_id="a",
            mission_id="missions:m",
            setup_id="setups:s",
            setup_version_id="setup_versions:v",
            action=SignalAction.STOP,
            cancellation_reason="timeout",
            payload={"reason": "timeout", "error_message": "too long"},
        )
        await exchange.deliver(signal)
        (task,) = provider.taken
        said = (task.task_id, task.mission_id, task.setup_id, task.setup_version_id, task.action)
        assert said == ("a", "missions:m", "setups:s", "setup_versions:v", "stop")
        assert (task.cancellation_reason, task.payload.to_dict()) == ("timeout", signal.payload)
        assert task.created_at == signal.created_at


async def test_the_observers_see_what_is_published(autojump_clock: Any) -> None:
    async with exchange_with() as (exchange, _):
        seen: list[Signal] = []
        assert exchange.observed
        with exchange.observe(seen.append):
            exchange.publish(start("a"))
        assert [(signal.task_id, signal.action.value) for signal in seen] == [("a", "start")]


# --- retries -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [Status.UNAVAILABLE, Status.DEADLINE_EXCEEDED, Status.INTERNAL])
async def test_layer_c_retries_with_one_key_and_doubled_delays(
    autojump_clock: Any, status: Status, caplog: Any
) -> None:
    async with exchange_with(send_plan=[status] * 3) as (exchange, provider):
        await exchange.deliver(start("a"))
        assert len({sent.key for sent in provider.sent}) == 1
        assert len(provider.sent) == 4
        delays = [after.at - before.at for before, after in pairwise(provider.sent)]
        for delay, base in zip(delays, (0.1, 0.2, 0.4), strict=True):
            assert base <= delay <= base * 1.5 + 1e-6
        assert exchange.health().outbound.ok
        assert exchange.statistics().outbound.calls == 4
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_the_channels_own_retries_do_not_multiply(autojump_clock: Any) -> None:
    """The channel of the test has the default policy: five attempts."""
    async with exchange_with(send=Status.UNAVAILABLE, send_retries=3) as (exchange, provider):
        exchange.publish(start("a"))
        while exchange.health().outbound.ok:  # noqa: ASYNC110
            await trio.sleep(0.01)
        assert len(provider.sent) == 4
        provider.send = None


async def test_without_retries_there_is_one_call_and_then_an_outage(autojump_clock: Any) -> None:
    async with exchange_with(send_plan=[Status.UNAVAILABLE], send_retries=0) as (exchange, provider):
        await exchange.deliver(start("a"))
        assert exchange.statistics().outbound.outages == 1
        assert len(provider.sent) == 2


async def test_a_server_that_says_when_is_asked_then(autojump_clock: Any) -> None:
    plan = [Status.UNAVAILABLE]
    async with exchange_with(send_plan=plan, trailers={"grpc-retry-pushback-ms": "7000"}) as (exchange, provider):
        await exchange.deliver(start("a"))
        assert provider.sent[1].at - provider.sent[0].at == pytest.approx(7)


async def test_a_reply_that_was_lost_does_not_apply_a_batch_twice(autojump_clock: Any) -> None:
    async with exchange_with(send_plan=["drop"]) as (exchange, provider):
        await exchange.deliver(start("a"))
        assert len(provider.sent) == 2
        assert provider.sent[0].key == provider.sent[1].key
        assert len(provider.taken) == 1


async def test_a_retry_says_the_same_although_the_payload_has_changed(autojump_clock: Any) -> None:
    payload = {"n": 1}
    async with exchange_with(send_plan=[Status.UNAVAILABLE]) as (exchange, provider):
        exchange.publish(Signal(task_id="a", action=SignalAction.START, payload=payload))
        await trio.sleep(0.15)
        payload["n"] = 2
        await settled(exchange)
        assert [sent.tasks[0].payload.to_dict() for sent in provider.sent] == [{"n": 1}, {"n": 1}]


async def test_a_call_has_a_deadline(autojump_clock: Any) -> None:
    async with exchange_with(send_plan=["hang"], send_timeout=2) as (exchange, _):
        began = trio.current_time()
        await exchange.deliver(start("a"))
        assert 2.1 < trio.current_time() - began < 2.4


# --- those who wait ----------------------------------------------------------------------------------------------


async def test_who_waits_learns_what_became_of_the_signal(autojump_clock: Any) -> None:
    async with exchange_with() as (exchange, provider):
        provider.refuses = lambda task: Status.INVALID_ARGUMENT if task.task_id == "bad" else None
        errors: list[str] = []

        async def deliver(task_id: str) -> None:
            try:
                await exchange.deliver(start(task_id))
            except TaskManagerServiceError as error:
                assert error.status is Status.INVALID_ARGUMENT
                errors.append(error.message)

        async with trio.open_nursery() as nursery:
            for task_id in ("a", "bad", "b"):
                nursery.start_soon(deliver, task_id)
        assert errors == ["The start signal of job bad was refused: INVALID_ARGUMENT: poison."]


async def test_who_leaves_does_not_disturb_the_batch(autojump_clock: Any) -> None:
    async with exchange_with(send_plan=[2.0]) as (exchange, provider):
        with trio.move_on_after(1) as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(exchange.deliver, start("a"))
                nursery.start_soon(exchange.deliver, start("b"))
        assert scope.cancelled_caught
        await exchange.deliver(start("c"))
        assert sorted(task.task_id for task in provider.taken) == ["a", "b", "c"]
        assert len(provider.sent) == 2


async def test_who_waits_for_a_state_that_is_over_learns_of_the_newer(autojump_clock: Any) -> None:
    async with exchange_with() as (exchange, provider):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(exchange.deliver, ack("a"))
            nursery.start_soon(exchange.deliver, ack("a", SignalAction.ACK_STOP))
        assert provider.of("a") in (["ack_stop"], ["ack_cancel"])


async def test_who_waits_is_told_of_a_refusal_of_everybody(autojump_clock: Any) -> None:
    async with exchange_with(send=Status.UNIMPLEMENTED) as (exchange, provider):
        with pytest.raises(TaskManagerServiceError, match="UNIMPLEMENTED") as caught:
            await exchange.deliver(start("a"))
        assert "DIGITALKIN_PROVIDER" in caught.value.hint
        provider.send = None
        await settled(exchange)
        assert provider.of("a") == ["start"]


# --- the end -----------------------------------------------------------------------------------------------------


async def test_the_end_sends_what_waits_at_once(autojump_clock: Any) -> None:
    with trio.fail_after(DAY):
        async with exchange_with(flush_interval=60) as (exchange, provider):
            for number in range(120):
                exchange.publish(start(f"j{number}"))
        assert len(provider.taken) == 120
        assert trio.current_time() < 1


@pytest.mark.parametrize("how", ["hang", Status.UNAVAILABLE, "down"])
async def test_the_end_is_bounded_and_what_is_left_is_told(autojump_clock: Any, how: Any, caplog: Any) -> None:
    began = trio.current_time()
    async with exchange_with(send=how, up=how != "down", close_timeout=3) as (exchange, _):
        for number in range(60):
            exchange.publish(start(f"j{number}"))
            exchange.publish(stop(f"j{number}"))
        await trio.sleep(1)
    assert trio.current_time() - began < 4.5
    assert exchange.statistics().outbound.lost == 120
    (told,) = [record.message for record in caplog.records if "lost" in record.message]
    assert "120 signals of 60 jobs (j0, j1, " in told
    assert "and 40 more" in told
    exchange.publish(start("late"))
    assert exchange.statistics().outbound.lost == 121
    with pytest.raises(TaskManagerServiceError, match="closed"):
        await exchange.deliver(start("later"))


async def test_who_waits_learns_of_the_end(autojump_clock: Any) -> None:
    errors = []
    async with trio.open_nursery() as nursery, exchange_with(up=False, close_timeout=1) as (exchange, _):

        async def deliver() -> None:
            try:
                await exchange.deliver(start("a"))
            except TaskManagerServiceError as error:
                errors.append((error.status, trio.current_time()))

        nursery.start_soon(deliver)
        await trio.sleep(1)
    assert errors == [(Status.UNAVAILABLE, pytest.approx(2, abs=0.1))]


async def test_nobody_waits_for_ever_when_there_is_a_defect(autojump_clock: Any) -> None:
    async with trio.open_nursery() as nursery:
        provider = FakeProvider(nursery)
        async with rpc.open_channel("fake", connect=provider.connect) as channel:
            exchange = RemoteSignals(channel, SignalSettings())
            told = trio.Event()

            async def broken(*_: Any, **__: Any) -> Any:
                raise RuntimeError("a defect")

            async def waits() -> None:
                with pytest.raises(TaskManagerServiceError, match="closed"):
                    await exchange.deliver(start("a"))
                told.set()

            exchange._outbox._calls.send = broken
            nursery.start_soon(waits)
            with pytest.raises(RuntimeError, match="a defect"):
                async with exchange.opened():
                    await trio.sleep(1)
            with trio.fail_after(1):
                await told.wait()
        nursery.cancel_scope.cancel()


async def test_what_is_published_before_the_beginning_is_kept(autojump_clock: Any) -> None:

    async with trio.open_nursery() as nursery:
        provider = FakeProvider(nursery)
        async with rpc.open_channel("fake", connect=provider.connect) as channel:
            exchange = RemoteSignals(channel, SignalSettings())
            exchange.publish(start("a"))
            assert repr(exchange) == "<RemoteSignals <Outbox 1 pending, <Path ok>> <Inbox 0 jobs, <Path ok>>>"
            async with exchange.opened():
                pass
        assert provider.of("a") == ["start"]
        nursery.cancel_scope.cancel()


async def test_the_callers_exception_goes_on_as_it_is(autojump_clock: Any) -> None:

    async with trio.open_nursery() as nursery:
        provider = FakeProvider(nursery)
        async with rpc.open_channel("fake", connect=provider.connect) as channel:
            with pytest.raises(KeyError, match="mine"):
                async with RemoteSignals(channel, SignalSettings()).opened() as exchange:
                    exchange.publish(start("a"))
                    raise KeyError("mine")
        assert provider.of("a") == ["start"]
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("seed", range(8))
async def test_whenever_somebody_leaves_the_others_are_served(autojump_clock: Any, seed: int) -> None:
    """Callers are cancelled at points all over a run of batches, retries, outages and refusals."""
    random = Random(seed)
    async with exchange_with(seed=seed, max_batch_size=5, send_timeout=1) as (exchange, provider):
        provider.send_plan = random.choices([None, 0.05, "drop", "hang", Status.UNAVAILABLE, Status.INTERNAL], k=60)
        provider.refuses = lambda task: Status.INVALID_ARGUMENT if task.task_id.endswith("7") else None
        done: list[str] = []
        told: dict[int, list[str]] = {}

        async def job(number: int) -> None:
            await trio.sleep(random.random() * 5)
            with trio.move_on_after(random.choice([0, 0.05, 0.2, 1, 5, 100])):
                for signal in (start(f"j{number}"), stop(f"j{number}")):
                    told.setdefault(number, []).append(signal.action)
                    try:
                        await exchange.deliver(signal)
                        done.append(f"j{number}")
                    except TaskManagerServiceError:
                        assert str(number).endswith("7")

        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(job, number)
        await settled(exchange)
        for number in range(100):
            said = provider.of(f"j{number}")
            if number % 10 == 7:
                assert not said
            else:
                assert said == told[number]  # also of those who did not wait for it
                assert done.count(f"j{number}") <= len(said)
        assert done
        assert len(provider.sent) < 400


async def test_the_last_words_of_a_block_that_is_cancelled_are_sent(autojump_clock: Any) -> None:
    """At whatever time it is cancelled, and whatever the provider does then."""
    for step in range(30):
        async with trio.open_nursery() as nursery:
            provider = FakeProvider(nursery, send_plan=[Status.UNAVAILABLE, 0.2])
            async with rpc.open_channel("fake", connect=provider.connect) as channel:
                with trio.move_on_after(step * 0.03):
                    async with RemoteSignals(channel, SignalSettings()).opened() as exchange:
                        exchange.publish(start("a"))
                        try:
                            await trio.sleep_forever()
                        finally:
                            exchange.publish(stop("a"))
            assert provider.of("a") == ["start", "stop"]
            nursery.cancel_scope.cancel()
