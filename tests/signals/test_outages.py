"""What an outage does not do, and a signal that is refused."""

from random import Random
from typing import Any

import pytest
import trio
from grpclib.const import Status

from dk_trio import rpc
from dk_trio.signals import Signal, SignalAction

from .fake import ack, exchange_with, request_for, settled, start, stop

# --- outages -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [5, 60, 600])
@pytest.mark.parametrize("how", ["gone", "unavailable", "hangs", "internal"])
async def test_an_outage_loses_nothing(autojump_clock: Any, seconds: int, how: str, caplog: Any) -> None:
    jobs = [f"j{number}" for number in range(200)]
    async with exchange_with(send_timeout=10) as (exchange, provider):

        async def job(number: int) -> None:
            await trio.sleep(number * seconds / 250)
            exchange.publish(start(jobs[number]))
            await trio.sleep(seconds * (number % 7) / 10)
            exchange.publish(stop(jobs[number]))

        async with trio.open_nursery() as nursery:
            for number in range(200):
                nursery.start_soon(job, number)
            await trio.sleep(1)
            provider.send = {"gone": None, "unavailable": Status.UNAVAILABLE, "hangs": "hang"}.get(how, Status.INTERNAL)
            if how == "gone":
                await provider.down()
            await trio.sleep(seconds)
            provider.up, provider.send = True, None
            back = trio.current_time()
        await settled(exchange)
        assert all(provider.of(job) == ["start", "stop"] for job in jobs)
        statistics = exchange.statistics().outbound
        assert (statistics.lost, statistics.refused, statistics.pending) == (0, 0, 0)
        assert provider.most_sending == 1
        first = next(sent.at for sent in provider.sent if sent.at >= back)
        # A new connection takes up to 12 s (DIGITALKIN_GRPC_MAX_RECONNECT_MS), a call that hangs its deadline.
        assert first - back < {"gone": 12.1, "hangs": 15.1}.get(how, 5.1)
        assert exchange.health().outbound.ok
    takes = [record.levelname for record in caplog.records if record.name == "dk_trio.signals"]
    assert takes == (["WARNING", "INFO"] if (how, seconds) != ("hangs", 5) else [])  # the retries were enough for that
    assert len(provider.sent) < 30 + seconds  # it is not run over when it is down, nor when it is back


async def test_an_outage_is_told_with_number_and_remedy(autojump_clock: Any, caplog: Any) -> None:
    async with exchange_with(up=False) as (exchange, provider):
        exchange.publish(start("a"))
        exchange.publish(start("b"))
        await trio.sleep(4)
        health = exchange.health()
        assert not health.outbound.ok
        assert health.outbound.reason.startswith("UNAVAILABLE: cannot connect to fake")
        assert (health.pending, exchange.statistics().outbound.pending_tasks) == (2, 2)
        assert health.outbound.since < trio.current_time()
        provider.up = True
    (warning,) = [record.message for record in caplog.records if "takes no signals" in record.message]
    assert "2 are kept" in warning
    assert "DIGITALKIN_PROVIDER" in warning


async def test_a_new_connection_ends_an_outage_at_once(autojump_clock: Any) -> None:

    quick = {"reconnect": rpc.BackoffPolicy(initial=0.2, maximum=0.2, minimum=0.1)}
    async with exchange_with(up=False, channel=quick) as (exchange, provider):
        exchange.publish(start("a"))
        await trio.sleep(60)
        provider.up = True
        began = trio.current_time()
        await settled(exchange)
        assert trio.current_time() - began < 0.8  # pauses are 2.5 to 5 s long by now


@pytest.mark.parametrize("how", ["gone", "unavailable"])
async def test_a_long_outage_costs_few_calls_and_its_end_is_noticed_soon(autojump_clock: Any, how: str) -> None:
    """Without a connection both directions wait for one; with one they ask now and then."""
    async with exchange_with() as (exchange, provider):
        heard: list[float] = []
        with exchange.listen("a", lambda _: heard.append(trio.current_time())):
            await trio.sleep(1)
            if how == "gone":
                await provider.down()
            provider.send = provider.poll = Status.UNAVAILABLE
            exchange.publish(start("a"))
            await trio.sleep(60)
            calls, polls = exchange.statistics().outbound.calls, exchange.statistics().inbound.polls
            await trio.sleep(1200)
            calls, polls = exchange.statistics().outbound.calls - calls, exchange.statistics().inbound.polls - polls
            assert max(calls, polls) < (30 if how == "gone" else 400)
            provider.up, provider.send, provider.poll = True, None, None
            back = trio.current_time()
            provider.ask(request_for("a"))
            await settled(exchange)
            assert trio.current_time() - back < (12.1 if how == "gone" else 5.1)  # the first: of the channel
            await trio.sleep(5)
            assert heard
            assert heard[0] - back < (12.1 if how == "gone" else 5.1)
            polls = len(provider.polls)
            await trio.sleep(20)
            assert len(provider.polls) - polls > 12  # in its interval again


async def test_a_provider_that_dies_of_each_call_is_not_called_without_a_pause(autojump_clock: Any) -> None:
    async with exchange_with() as (exchange, provider):
        provider.send = "drop"
        provider._keys = Everything()
        exchange.publish(start("a"))
        await trio.sleep(60)
        assert len(provider.sent) < 200  # a tenth of a pause is always waited for
        provider.send = None


class Everything(dict):
    """A provider that takes nothing, and dies."""

    def __contains__(self, key: object) -> bool:
        return True

    def __missing__(self, key: str) -> Any:
        return Anything()


class Anything:
    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None


async def test_a_provider_that_is_too_slow_for_a_whole_batch_gets_smaller_ones(autojump_clock: Any) -> None:
    """And is not asked to do the same work again for ever, each time in vain."""
    async with exchange_with(send_timeout=10, send_retries=1) as (exchange, provider):

        async def slow(_: Any) -> bool:
            await trio.sleep(len(provider.sent[-1].tasks))
            return False

        provider._behave = slow
        for number in range(200):
            exchange.publish(start(f"j{number}"))
        await trio.sleep(900)
        assert [task.task_id for task in provider.taken] == [f"j{number}" for number in range(200)]
        provider._behave = type(provider)._behave.__get__(provider)
        for number in range(500):
            exchange.publish(start(f"k{number}"))
        await settled(exchange)
        assert len(provider.sent[-2].tasks) == 50  # as many as before, when it is fast again


async def test_states_that_are_over_collapse(autojump_clock: Any) -> None:
    async with exchange_with(up=False) as (exchange, provider):
        exchange.publish(start("a"))
        await trio.sleep(5)  # that one is in a batch
        for _ in range(100):
            exchange.publish(start("b"))
            exchange.publish(ack("b"))
            exchange.publish(ack("b", SignalAction.ACK_STOP))
        exchange.publish(stop("b"))
        assert exchange.health().pending == 4
        provider.up = True
        await settled(exchange)
        assert provider.of("b") == ["start", "ack_stop", "stop"]
        assert exchange.statistics().outbound.collapsed == 297 + 1


async def test_too_many_jobs_lose_the_signals_of_those_that_ended_first(autojump_clock: Any, caplog: Any) -> None:
    async with exchange_with(up=False, max_tasks=10) as (exchange, provider):
        exchange.publish(start("first"))
        await trio.sleep(5)
        exchange.publish(start("running"))
        for number in range(20):
            exchange.publish(start(f"j{number}"))
            exchange.publish(stop(f"j{number}"))
        exchange.publish(start("last"))
        provider.up = True
        await settled(exchange)
        assert [f"j{number}" for number in range(20) if provider.of(f"j{number}")] == [f"j{n}" for n in range(12, 20)]
        assert all(provider.of(f"j{number}") == ["start", "stop"] for number in range(12, 20))
        assert (provider.of("running"), provider.of("last"), provider.of("first")) == (["start"], ["start"], ["start"])
        assert exchange.statistics().outbound.lost == 24
    errors = [record.message for record in caplog.records if record.levelname == "ERROR"]
    assert len(errors) == 1
    assert "more than 10 jobs" in errors[0]
    assert "24 were lost" in next(
        record.message for record in caplog.records if "answers signals again" in record.message
    )


async def test_a_job_whose_start_has_arrived_keeps_its_stop(autojump_clock: Any) -> None:
    """Without it the provider would take the job for running for ever; of the others it has never heard."""
    async with exchange_with(max_tasks=10) as (exchange, provider):
        for number in range(5):
            exchange.publish(start(f"known{number}"))
        await settled(exchange)
        provider.up = False
        exchange.publish(start("running"))
        await trio.sleep(5)  # a batch is under way, and stays so
        for number in range(5):
            exchange.publish(stop(f"known{number}"))
        for number in range(20):
            exchange.publish(start(f"j{number}"))
            exchange.publish(stop(f"j{number}"))
        assert exchange.statistics().outbound.lost == 30
        for number in range(20, 27):  # they run, and take the places of two of those that are known
            exchange.publish(start(f"j{number}"))
        assert exchange.statistics().outbound.lost == 42
        provider.up = True
        await settled(exchange)
        assert [provider.of(f"known{number}") for number in range(5)] == [["start"]] * 2 + [["start", "stop"]] * 3
        assert [f"j{number}" for number in range(27) if provider.of(f"j{number}")] == [f"j{n}" for n in range(20, 27)]


async def test_the_bound_holds_for_what_is_put_back(autojump_clock: Any) -> None:
    """A batch that is being sent does not count; it does when it comes back."""
    async with exchange_with(max_tasks=10, max_batch_size=20, send_retries=0) as (exchange, provider):
        provider.send_plan = [1.0]
        provider.send = Status.INTERNAL
        provider.refuses = lambda _: Status.INTERNAL
        for number in range(20):
            if number == 10:
                await trio.sleep(0.5)  # the first ten are under way
            exchange.publish(start(f"j{number}"))
            exchange.publish(stop(f"j{number}"))
        assert exchange.statistics().outbound.pending_tasks == 20
        await trio.sleep(60)
        assert exchange.statistics().outbound.pending_tasks == 10
        assert exchange.statistics().outbound.lost == 20
        provider.send, provider.refuses = None, lambda _: None
        await settled(exchange)
        assert sorted({task.task_id for task in provider.taken}) == sorted(f"j{n}" for n in range(10, 20))


async def test_signals_of_running_jobs_are_not_dropped(autojump_clock: Any) -> None:
    async with exchange_with(up=False, max_tasks=3) as (exchange, provider):
        for number in range(10):
            exchange.publish(start(f"j{number}"))
        assert exchange.health().pending == 10
        provider.up = True
        await settled(exchange)
        assert len(provider.taken) == 10


# --- refusals ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("refusal", [Status.INVALID_ARGUMENT, Status.FAILED_PRECONDITION])
async def test_a_poison_signal_is_found_and_dropped(autojump_clock: Any, refusal: Any, caplog: Any) -> None:
    async with exchange_with() as (exchange, provider):
        provider.refuses = lambda task: refusal if task.task_id == "j33" else None
        for number in range(50):
            exchange.publish(start(f"j{number}"))
            exchange.publish(stop(f"j{number}"))
        await settled(exchange)
        assert [f"j{number}" for number in range(50) if provider.of(f"j{number}") != ["start", "stop"]] == ["j33"]
        assert exchange.statistics().outbound.refused == 2
        assert exchange.health().outbound.ok
        assert len(provider.sent) < 50
        assert trio.current_time() < 2  # no pauses
        provider.refuses = lambda _: None
        await exchange.deliver(start("after"))
    errors = [record.message for record in caplog.records if record.levelname == "ERROR"]
    assert [("start signal of job j33" in errors[0]), ("stop signal of job j33" in errors[1])] == [True, True]
    assert refusal.name in errors[0]


@pytest.mark.parametrize("refusal", [Status.PERMISSION_DENIED, Status.INTERNAL, Status.RESOURCE_EXHAUSTED, "no"])
async def test_a_signal_that_is_always_refused_is_dropped_in_the_end(
    autojump_clock: Any, refusal: Any, caplog: Any
) -> None:
    async with exchange_with() as (exchange, provider):
        provider.refuses = lambda task: refusal if task.task_id == "bad" else None
        exchange.publish(start("bad"))
        for number in range(100):
            exchange.publish(start(f"j{number}"))
            await trio.sleep(1)
        await settled(exchange)
        assert len(provider.taken) == 100
        assert exchange.statistics().outbound.refused == 1
        assert exchange.health().outbound.ok
    (error,) = [record.message for record in caplog.records if record.levelname == "ERROR"]
    assert "the start signal of job bad is dropped" in error
    assert ("success=false" if refusal == "no" else refusal.name) in error


@pytest.mark.parametrize("what", [Status.INTERNAL, Status.RESOURCE_EXHAUSTED, Status.PERMISSION_DENIED, "no"])
@pytest.mark.parametrize("share", [0.5, 0.8])
async def test_a_provider_that_fails_now_and_then_loses_nothing(autojump_clock: Any, what: Any, share: float) -> None:
    """However often a signal is refused alone while others are taken: it is not because of the signal."""
    random = Random(1)
    async with exchange_with() as (exchange, provider):
        provider.send_plan = random.choices([what, None], [share, 1 - share], k=2000)
        for number in range(150):
            exchange.publish(start(f"j{number}"))
            await trio.sleep(1)
            exchange.publish(stop(f"j{number}"))
        await trio.sleep(300)
        provider.send_plan = []
        await settled(exchange)
        assert exchange.statistics().outbound.refused == 0
        assert all(provider.of(f"j{number}") == ["start", "stop"] for number in range(150))


async def test_a_provider_that_says_no_to_everybody_loses_nothing(autojump_clock: Any) -> None:
    """`success=false`, because its database is away, say."""
    async with exchange_with(send="no") as (exchange, provider):
        for number in range(100):
            exchange.publish(start(f"j{number}"))
        await trio.sleep(60)
        assert not exchange.health().outbound.ok
        assert len(provider.sent) < 40
        provider.send = None
        await settled(exchange)
        assert (exchange.statistics().outbound.refused, len(provider.taken)) == (0, 100)


@pytest.mark.parametrize("status", [Status.RESOURCE_EXHAUSTED, Status.INTERNAL, Status.INVALID_ARGUMENT])
async def test_a_server_that_says_when_is_not_asked_for_halves_before(autojump_clock: Any, status: Status) -> None:
    plan = [status] * 3
    async with exchange_with(send_plan=plan, send_retries=0, trailers={"grpc-retry-pushback-ms": "7000"}) as (
        exchange,
        provider,
    ):
        for number in range(50):
            exchange.publish(start(f"j{number}"))
        await settled(exchange)
        assert [sent.at for sent in provider.sent[:4]] == pytest.approx([0, 7, 14, 21])
        assert len(provider.taken) == 50


async def test_a_provider_without_room_is_not_asked_for_halves_at_once(autojump_clock: Any) -> None:
    async with exchange_with(send=Status.RESOURCE_EXHAUSTED) as (exchange, provider):
        for number in range(50):
            exchange.publish(start(f"j{number}"))
        await trio.sleep(0.5)
        assert len(provider.sent) < 5
        provider.send = None
        await settled(exchange)
        assert len(provider.taken) == 50


@pytest.mark.parametrize("status", [Status.UNIMPLEMENTED, Status.UNAUTHENTICATED, Status.PERMISSION_DENIED])
async def test_a_provider_that_refuses_everybody_is_an_outage(autojump_clock: Any, status: Status, caplog: Any) -> None:
    async with exchange_with(send=status) as (exchange, provider):
        for number in range(120):
            exchange.publish(start(f"j{number}"))
        await trio.sleep(600)
        assert exchange.health().pending == 120
        assert exchange.health().outbound.reason.startswith(status.name)
        assert len(provider.sent) < 300
        provider.send = None
        await settled(exchange)
        assert sorted(task.task_id for task in provider.taken) == sorted(f"j{number}" for number in range(120))
    warnings = [record.message for record in caplog.records if "takes no signals" in record.message]
    assert len(warnings) == 1
    assert status.name in warnings[0]


async def test_a_payload_that_cannot_be_sent_harms_nobody_else(autojump_clock: Any, caplog: Any) -> None:
    async with exchange_with() as (exchange, provider):
        exchange.publish(start("a"))
        exchange.publish(Signal(task_id="bad", action=SignalAction.STOP, payload={"x": object()}))
        exchange.publish(start("b"))
        await settled(exchange)
        assert [task.task_id for task in provider.taken] == ["a", "b"]
    assert "job bad is dropped" in caplog.text
