"""The circuit breaker: when it opens, what callers get meanwhile, and how it finds out that the server is back."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial
from random import Random

import pytest
import trio
import trio.testing
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from tests.services.query_kit import Steady, read, scripted, status_of, write

from dk_trio.services.breaker import BreakerOptions, BreakerState, CircuitBreaker

DOWN = Status.UNAVAILABLE
THREE = BreakerOptions(failures=3)


def breaker(**arguments: object) -> CircuitBreaker:
    return CircuitBreaker("provider:1", options=THREE, random=Steady(), **arguments)


def open_it(subject: CircuitBreaker) -> None:
    for _ in range(3):
        subject.ended(DOWN, "connection refused")


async def admit(subject: CircuitBreaker, seconds: float = 30) -> bool:
    return await subject.admit(trio.current_time() + seconds)


async def test_opens_after_failures_in_a_row(autojump_clock: trio.abc.Clock) -> None:
    subject = breaker()
    for status in (DOWN, DOWN, Status.OK, DOWN, DOWN, Status.NOT_FOUND, DOWN, DOWN):
        subject.ended(status)
        assert subject.closed
    subject.ended(DOWN)
    assert subject.state is BreakerState.OPEN


@pytest.mark.parametrize("status", sorted(set(Status) - {DOWN}, key=lambda status: status.value))
async def test_no_other_status_counts(autojump_clock: trio.abc.Clock, status: Status) -> None:
    subject = breaker()
    for _ in range(100):
        subject.ended(status)
    assert subject.closed
    assert subject.statistics().failures == 0


async def test_a_deadline_or_a_cancel_proves_nothing(autojump_clock: trio.abc.Clock) -> None:
    subject = breaker()
    for status in (DOWN, Status.DEADLINE_EXCEEDED, DOWN, Status.CANCELLED, DOWN):
        subject.ended(status)
    assert not subject.closed


async def test_open_it_fails_at_once_and_says_why(autojump_clock: trio.abc.Clock) -> None:
    subject = breaker()
    subject.ended(DOWN, "connection refused")
    await trio.sleep(2)
    subject.ended(DOWN, "connection refused")
    subject.ended(DOWN, "connection refused")
    await trio.sleep(0.25)
    with pytest.raises(GRPCError) as caught:
        await admit(subject)
    assert caught.value.status is DOWN
    assert caught.value.message == (
        "provider:1 has not been reached for 2.2 s (connection refused); the next call is tried in 0.8 s"
    )
    assert trio.current_time() == 2.25
    assert subject.statistics().refused == 1
    assert "open, 3 failures in a row, next probe in 0.8 s" in repr(subject)


async def test_probes_come_later_and_later(autojump_clock: trio.abc.Clock) -> None:
    subject = breaker()
    open_it(subject)
    times = []
    for _ in range(6):
        await trio.sleep(subject.statistics().next_probe)
        assert await admit(subject)
        times.append(trio.current_time())
        subject.ended(DOWN, probe=True)
    assert times == [1, 3, 7, 15, 25, 35]
    assert subject.statistics().probes == 6
    assert subject.statistics().opened == 1


async def test_probes_of_many_clients_are_spread(autojump_clock: trio.abc.Clock) -> None:
    due = set()
    for seed in range(50):
        subject = CircuitBreaker("provider:1", options=THREE, random=Random(seed))
        open_it(subject)
        due.add(subject.statistics().next_probe)
    assert len(due) > 40
    assert all(0.8 <= each <= 1.2 for each in due)


async def test_one_probe_at_a_time_and_the_others_wait_for_it(autojump_clock: trio.abc.Clock) -> None:
    subject = breaker()
    open_it(subject)
    await trio.sleep(1)
    admitted = []

    async def caller() -> None:
        admitted.append(await admit(subject))

    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(caller)
        await trio.sleep(0.5)
        assert admitted == [True]
        assert subject.state is BreakerState.HALF_OPEN
        subject.ended(Status.NOT_FOUND, probe=True)
    assert admitted == [True] + [False] * 9
    assert subject.closed


async def test_those_who_wait_fail_with_the_probe(autojump_clock: trio.abc.Clock) -> None:
    subject = breaker()
    open_it(subject)
    await trio.sleep(1)
    assert await admit(subject)

    async def caller() -> None:
        with pytest.raises(GRPCError, match=r"the next call is tried in 2\.0 s"):
            await admit(subject)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(caller)
        await trio.testing.wait_all_tasks_blocked()
        subject.ended(DOWN, probe=True)


@pytest.mark.parametrize(("deadline", "waited"), [(1, 1), (30, 5)])
async def test_nobody_waits_past_patience_or_deadline(
    autojump_clock: trio.abc.Clock, deadline: float, waited: float
) -> None:
    subject = breaker()
    open_it(subject)
    await trio.sleep(1)
    assert await admit(subject)
    with pytest.raises(GRPCError, match="its answer is being waited for"):
        await admit(subject, deadline)
    assert trio.current_time() == 1 + waited


async def test_a_probe_that_is_cancelled_is_made_by_the_next(autojump_clock: trio.abc.Clock) -> None:
    subject = breaker()
    open_it(subject)
    await trio.sleep(1)
    assert await admit(subject)
    admitted = []

    async def caller() -> None:
        admitted.append(await admit(subject))
        subject.ended(Status.OK, probe=True)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(caller)
        nursery.start_soon(caller)
        await trio.testing.wait_all_tasks_blocked()
        subject.abandoned()
    assert admitted == [True, False]


async def test_a_probe_whose_deadline_passes_has_failed(autojump_clock: trio.abc.Clock) -> None:
    subject = breaker()
    open_it(subject)
    await trio.sleep(1)
    assert await admit(subject)
    subject.ended(Status.DEADLINE_EXCEEDED, probe=True)
    assert subject.state is BreakerState.OPEN


async def test_late_failures_of_other_calls_do_not_disturb_a_probe(autojump_clock: trio.abc.Clock) -> None:
    subject = breaker()
    open_it(subject)
    subject.ended(DOWN)
    assert subject.statistics().next_probe == 1
    await trio.sleep(1)
    assert await admit(subject)
    subject.ended(DOWN)
    assert subject.state is BreakerState.HALF_OPEN
    subject.ended(Status.OK)  # one that was under way before
    assert subject.closed


async def test_a_new_connection_makes_a_probe_due_once(autojump_clock: trio.abc.Clock) -> None:
    connects = 1
    subject = breaker(connects=lambda: connects)
    open_it(subject)
    with pytest.raises(GRPCError):
        await admit(subject)
    connects = 2
    assert await admit(subject)
    subject.ended(DOWN, probe=True)
    with pytest.raises(GRPCError):
        await admit(subject)


async def test_each_opening_and_closing_is_logged_once(
    autojump_clock: trio.abc.Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "dk_trio.services.breaker")
    subject = breaker()
    open_it(subject)
    for _ in range(3):
        await trio.sleep(subject.statistics().next_probe)
        await admit(subject)
        subject.ended(DOWN, probe=True)
    await trio.sleep(subject.statistics().next_probe)
    await admit(subject)
    for _ in range(5):
        subject.ended(Status.OK, probe=True)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "provider:1 is not reached: 3 calls in a row have failed in 0.0 s" in caplog.text
    assert "connection refused" in caplog.text
    assert "provider:1 answers again after 15.0 s" in caplog.text


# -- with queries -----------------------------------------------------------------------------------------------------


async def test_queries_fail_at_once_while_it_is_open(autojump_clock: trio.abc.Clock) -> None:
    async with scripted(DOWN, breaker=THREE) as (query, provider):
        for _ in range(3):
            assert await status_of(read(query)) is DOWN
        made, now = len(provider.calls), trio.current_time()
        for _ in range(100):
            assert await status_of(write(query)) is DOWN
        assert len(provider.calls) == made
        assert trio.current_time() == now
        assert "open" in repr(query)
        assert query.statistics().failed == 103


async def test_a_probe_is_made_once_and_everybody_goes_on_when_it_succeeds(autojump_clock: trio.abc.Clock) -> None:
    async with scripted(DOWN, breaker=THREE) as (query, provider):
        for _ in range(3):
            await status_of(read(query))
        made = len(provider.calls)
        await trio.sleep(1)
        assert await status_of(read(query)) is DOWN
        assert len(provider.calls) == made + 1
        await trio.sleep(2)
        provider.script[:] = [0.5, None]
        outcomes: list[Status] = []

        async def caller() -> None:
            outcomes.append(await status_of(write(query)))

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(caller)
            await trio.sleep(0.4)
            assert len(provider.calls) == made + 2
        assert outcomes == [Status.OK] * 20
        assert query.breaker.closed


async def test_a_cancelled_query_hands_its_probe_on(autojump_clock: trio.abc.Clock) -> None:
    async with scripted(DOWN, breaker=THREE) as (query, provider):
        for _ in range(3):
            await status_of(read(query))
        await trio.sleep(1)
        provider.script[:] = ["hang", None]
        with trio.move_on_after(0.1):
            await read(query)
        await read(query)
        assert query.breaker.closed


async def test_a_probe_that_cannot_be_written_is_made_by_the_next(autojump_clock: trio.abc.Clock) -> None:
    class Broken:
        def SerializeToString(self) -> bytes:
            raise TypeError("not a message")

    async with scripted(DOWN, breaker=THREE) as (query, provider):
        for _ in range(3):
            await status_of(read(query))
        await trio.sleep(1)
        provider.script[:] = [None]
        with pytest.raises(TypeError, match="not a message"):
            await query.write("/test.Test/Write", Broken(), object)
        await read(query)
        assert query.breaker.closed


async def test_a_probe_that_is_too_large_to_be_sent_is_no_answer(autojump_clock: trio.abc.Clock) -> None:
    change = partial(replace, max_send_message_bytes=100)
    async with scripted(DOWN, breaker=THREE, change=change) as (query, provider):
        for _ in range(2):
            await status_of(read(query))
        assert await status_of(write(query, "x" * 101)) is Status.RESOURCE_EXHAUSTED
        await status_of(read(query))
        assert not query.breaker.closed
        await trio.sleep(1.2)
        made = len(provider.calls)
        assert await status_of(write(query, "x" * 101)) is Status.RESOURCE_EXHAUSTED
        assert not query.breaker.closed
        provider.script[:] = [None]
        await read(query)
        assert query.breaker.closed
        assert len(provider.calls) == made + 1


async def test_a_provider_that_is_back_is_used_as_soon_as_it_is_connected(autojump_clock: trio.abc.Clock) -> None:
    async with scripted() as (query, provider):
        provider.down = True
        await provider.cut()
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(40):
            assert await status_of(read(query)) is DOWN
            await trio.sleep(1)
        assert not query.breaker.closed
        assert query.statistics().breaker.probes < 8
        provider.down = False
        await query._channel.ready()
        assert await status_of(read(query)) is Status.OK


async def test_a_lost_connection_alone_does_not_shut_anybody_out(autojump_clock: trio.abc.Clock) -> None:
    """Ten writes that must not be repeated are lost with their connection: the next call makes another connection."""
    async with scripted("hang", honours=False) as (query, provider):
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(status_of, write(query))
            await trio.sleep(1)
            provider.script.clear()
            await provider.cut()
        assert not query.breaker.closed
        assert await status_of(write(query)) is Status.OK
        assert query.breaker.closed
