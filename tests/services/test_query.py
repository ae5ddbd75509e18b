"""Queries to a provider: what is repeated, what never is, and how long it may take."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise

import pytest
import trio
import trio.testing
from grpclib.const import Status
from tests._pb.dk_trio.test.v1 import Message
from tests.services.query_kit import ROUTE, read, scripted, status_of, write

from dk_trio import rpc
from dk_trio.extensions import ALL, IDEMPOTENCY
from dk_trio.pb.google.rpc import RetryInfo
from dk_trio.services.breaker import BreakerOptions
from dk_trio.services.query import ProviderQuery, QueryError

UNCLEAR = [Status.UNAVAILABLE, Status.INTERNAL, Status.DEADLINE_EXCEEDED, "lose", "drop"]


async def test_internal_is_repeated_with_growing_delays(autojump_clock: trio.abc.Clock) -> None:
    async with scripted(Status.INTERNAL, Status.INTERNAL, None) as (query, provider):
        assert (await read(query, "again")).text == "again"
        assert provider.calls == pytest.approx([0, 0.05, 0.15])
        assert query.statistics().retries == 2


async def test_jitter_is_at_most_a_fifth(autojump_clock: trio.abc.Clock) -> None:
    gaps = set()
    for seed in range(20):
        async with scripted(Status.INTERNAL, seed=seed) as (query, provider):
            await status_of(read(query))
            first, second, third = provider.calls
            assert 0.04 <= second - first <= 0.06
            assert 0.08 <= third - second <= 0.12
            gaps.add(round(second - first, 9))
    assert len(gaps) > 15


@pytest.mark.parametrize("status", [Status.UNAVAILABLE, Status.DEADLINE_EXCEEDED])
async def test_what_the_channel_has_exhausted_is_not_repeated(autojump_clock: trio.abc.Clock, status: Status) -> None:
    async with scripted(status) as (query, provider):
        with pytest.raises(QueryError) as caught:
            await read(query)
        assert caught.value.status is status
        assert caught.value.message == f"scripted {status.name}"
        assert caught.value.attempts == len(provider.calls) == 5
        assert not caught.value.unprocessed


async def test_layer_b_stands_in_for_a_channel_that_does_not_retry(autojump_clock: trio.abc.Clock) -> None:
    async with scripted(Status.UNAVAILABLE, attempts=1) as (query, provider):
        assert await status_of(read(query)) is Status.UNAVAILABLE
        assert provider.calls == pytest.approx([0, 0.05, 0.15])


async def test_failures_that_take_turns_add_up_and_do_not_multiply(autojump_clock: trio.abc.Clock) -> None:
    both = [*[Status.UNAVAILABLE] * 4, Status.INTERNAL]
    for script, calls in ((both * 3, 6), (both, 7), ([Status.INTERNAL, *both], 7), ([*both[2:], None], 4)):
        async with scripted(*script) as (query, provider):
            await status_of(read(query))
            assert len(provider.calls) == calls


async def test_business_statuses_are_final_and_keep_their_details(autojump_clock: trio.abc.Clock) -> None:
    async with scripted(Status.NOT_FOUND) as (query, provider):
        with pytest.raises(QueryError, match="scripted NOT_FOUND"):
            await write(query)
        assert len(provider.calls) == 1


async def test_every_write_has_a_key_of_its_own_and_repetitions_have_the_same(autojump_clock: trio.abc.Clock) -> None:
    async with scripted(Status.INTERNAL, "drop", None, None) as (query, provider):
        await write(query, "a")
        await write(query, "a")
        await write(query, "b", key="mine")
        await write(query, "b", key="mine")
        assert len(provider.calls) == 6
        assert provider.applied == {"a": 2, "b": 1}


@pytest.mark.parametrize("failure", UNCLEAR)
async def test_a_write_that_may_have_been_applied_is_not_repeated_where_keys_mean_nothing(
    autojump_clock: trio.abc.Clock, failure: object
) -> None:
    async with scripted(failure, None, honours=False) as (query, provider):
        with pytest.raises(QueryError) as caught:
            await write(query, "once")
        assert not caught.value.unprocessed
        assert len(provider.calls) == 1
        assert query.extensions.asked == 0
        assert trio.current_time() == 0


@pytest.mark.parametrize("failure", UNCLEAR)
@pytest.mark.parametrize("attempts", [1, 5])
async def test_a_write_is_repeated_where_its_key_is_honoured(
    autojump_clock: trio.abc.Clock, failure: object, attempts: int
) -> None:
    async with scripted(failure, None, attempts=attempts) as (query, provider):
        await write(query, "once")
        assert len(provider.calls) == 2
        assert provider.applied == {"once": 1}


@pytest.mark.parametrize("failure", UNCLEAR)
@pytest.mark.parametrize("attempts", [1, 5])
@pytest.mark.parametrize("honours", [True, False])
@pytest.mark.parametrize("health", [True, False])
async def test_the_provider_is_asked_before_the_first_reply(
    autojump_clock: trio.abc.Clock, failure: object, attempts: int, honours: bool, health: bool
) -> None:
    arguments = {"attempts": attempts, "honours": honours, "health": health, "known": False}
    async with scripted(failure, None, **arguments) as (query, provider):
        assert query.honours == frozenset()
        status = await status_of(write(query, "once"))
        repeated = honours and health
        assert (status is Status.OK) is repeated
        assert len(provider.calls) == 1 + repeated
        assert provider.applied["once"] <= 1
        assert query.extensions.asked >= 1


async def test_writes_that_were_surely_not_processed_are_repeated_anywhere(autojump_clock: trio.abc.Clock) -> None:
    async with scripted(honours=False, known=False) as (query, provider):
        provider.down = True
        async with trio.open_nursery() as nursery:
            nursery.start_soon(write, query, "once")
            await trio.sleep(0.05)
            provider.down = False
        assert provider.connects > 1
        assert provider.applied == {"once": 1}
        assert query.extensions.asked == 0


async def test_nothing_processed_is_told(autojump_clock: trio.abc.Clock) -> None:
    async with scripted(known=False) as (query, provider):
        provider.down = True
        with pytest.raises(QueryError, match="connection refused") as caught:
            await write(query)
        assert caught.value.unprocessed
        assert caught.value.attempts == 5
        assert trio.current_time() == pytest.approx(1.5)


async def test_what_is_honoured_is_forgotten_with_the_connection(autojump_clock: trio.abc.Clock) -> None:
    """A write whose reply was lost is not repeated at a server that would apply it again."""
    async with scripted("drop", None) as (query, provider):
        assert query.honours == ALL
        provider.restart(honours=False)
        assert await status_of(write(query, "once")) is Status.UNAVAILABLE
        assert provider.applied == {"once": 1}
        assert query.honours == frozenset()
        await provider.cut()
        await trio.testing.wait_all_tasks_blocked()
        provider.restart(honours=True)
        provider.script.clear()
        await read(query)
        assert IDEMPOTENCY in query.honours


async def test_callers_that_need_to_know_share_one_question(autojump_clock: trio.abc.Clock) -> None:
    async with scripted("lose", None, known=False) as (query, provider):
        async with trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(write, query, str(number))
        assert query.extensions.asked == 1
        assert set(provider.applied.values()) == {1}
        assert len(provider.applied) == 50


async def test_who_has_more_time_does_not_go_by_the_question_of_who_had_less(autojump_clock: trio.abc.Clock) -> None:
    async with scripted(known=False) as (query, provider):
        provider.down = True
        heard: list[bool] = []

        async def ask(timeout: float) -> None:
            heard.append(IDEMPOTENCY in await query.ask(timeout=timeout))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, 0.15)
            await trio.testing.wait_all_tasks_blocked()
            for _ in range(20):
                nursery.start_soon(ask, 30)
            await trio.sleep(0.2)  # the first one has failed by now
            provider.down = False
        assert heard == [False] + [True] * 20
        assert query.extensions.asked == 2


async def test_pushback_sets_and_forbids_repetitions_of_layer_b(autojump_clock: trio.abc.Clock) -> None:
    async with scripted(Status.INTERNAL, Status.INTERNAL, None) as (query, provider):
        provider.pushback = "7000"
        await read(query)
        assert provider.calls == [0, 7, 14]
    async with scripted(Status.INTERNAL) as (query, provider):
        provider.pushback = "-1"
        assert await status_of(read(query)) is Status.INTERNAL
        assert len(provider.calls) == 1


async def test_layer_b_waits_for_as_long_as_a_retry_info_asks(autojump_clock: trio.abc.Clock) -> None:
    async with scripted(Status.INTERNAL, Status.INTERNAL, None) as (query, provider):
        provider.details = [RetryInfo(retry_delay=timedelta(seconds=7))]
        await read(query)
        waits = [later - earlier for earlier, later in pairwise(provider.calls)]
        assert all(7 <= wait <= 7 * 1.2 for wait in waits)


@pytest.mark.parametrize("attempts", [1, 5])
@pytest.mark.parametrize("status", [Status.INTERNAL, Status.UNAVAILABLE])
async def test_no_repetition_begins_past_the_deadline(
    autojump_clock: trio.abc.Clock, attempts: int, status: Status
) -> None:
    async with scripted(status, retries=50, attempts=attempts) as (query, provider):
        started = trio.current_time()
        assert await status_of(write(query, timeout=0.3)) is status
        assert trio.current_time() - started < 0.3
        with trio.move_on_after(0.3) as scope:
            assert await status_of(write(query)) is status
        assert not scope.cancelled_caught
        assert len(provider.calls) >= 4


async def test_one_deadline_holds_for_everything(autojump_clock: trio.abc.Clock) -> None:
    async with scripted("hang", timeout=2) as (query, provider):
        assert await status_of(read(query)) is Status.DEADLINE_EXCEEDED
        assert trio.current_time() == 2
        assert await status_of(write(query, timeout=1)) is Status.DEADLINE_EXCEEDED
        assert trio.current_time() == 3
        assert await status_of(write(query, timeout=99)) is Status.DEADLINE_EXCEEDED
        assert trio.current_time() == 5
        assert len(provider.calls) == 3


@pytest.mark.parametrize("at", [0, 0.02, 0.06, 0.2, 0.5])
@pytest.mark.parametrize("script", [[Status.INTERNAL], ["hang"], ["drop", "hang"], [Status.UNAVAILABLE]])
async def test_cancelled_anywhere_nothing_is_left(
    autojump_clock: trio.abc.Clock, at: float, script: list[object]
) -> None:
    async with scripted(*script, known=False) as (query, provider):
        with trio.move_on_after(at):
            await status_of(write(query))
        await trio.testing.wait_all_tasks_blocked()
        assert provider.server.statistics().rpcs == 0
        provider.script.clear()
        await write(query, "after")


async def test_a_large_write_is_repeated_too(autojump_clock: trio.abc.Clock) -> None:
    async with scripted("drop", None) as (query, provider):
        await write(query, "x" * 3_000_000)
        assert list(provider.applied.values()) == [1]


async def test_the_budget_stops_both_layers(autojump_clock: trio.abc.Clock) -> None:
    def small(options: rpc.ChannelOptions) -> rpc.ChannelOptions:
        from dataclasses import replace

        return replace(options, retry=replace(options.retry, throttling=rpc.RetryThrottling(max_tokens=4)))

    async with scripted(Status.INTERNAL, retries=9, change=small) as (query, provider):
        assert await status_of(read(query)) is Status.INTERNAL
        assert len(provider.calls) == 2
        provider.script[:] = [Status.UNAVAILABLE]
        assert await status_of(read(query)) is Status.UNAVAILABLE
        assert len(provider.calls) == 3


async def outage(query: ProviderQuery, seconds: float) -> int:
    """200 callers that come back a second after each failure; how often they called."""
    asked = 0

    async def caller() -> None:
        nonlocal asked
        while True:
            asked += 1
            await status_of(write(query))
            await trio.sleep(1)

    with trio.move_on_after(seconds):
        async with trio.open_nursery() as nursery:
            for _ in range(200):
                nursery.start_soon(caller)
    return asked


async def test_an_outage_is_not_amplified(autojump_clock: trio.abc.Clock) -> None:
    async with scripted(Status.UNAVAILABLE) as (query, provider):
        asked = await outage(query, 60)
        # Each caller once, the retries that the budget allows, and a few until the breaker was open; then probes.
        assert asked > 10_000
        assert len(provider.calls) < 500
        assert query.statistics().breaker.probes < 20


async def test_the_budget_alone_bounds_the_retries_of_an_outage(autojump_clock: trio.abc.Clock) -> None:
    never = BreakerOptions(failures=10**9)
    async with scripted(Status.UNAVAILABLE, breaker=never) as (query, provider):
        asked = await outage(query, 5)
        assert asked >= 1000
        assert asked < len(provider.calls) < asked + 250


@pytest.mark.parametrize("honours", [True, False])
async def test_failures_of_writes_count_whether_or_not_they_can_be_repeated(
    autojump_clock: trio.abc.Clock, honours: bool
) -> None:
    async with scripted(Status.UNAVAILABLE, honours=honours) as (query, provider):
        full = query.statistics().retry_tokens
        await status_of(write(query))
        assert query.statistics().retry_tokens == full - len(provider.calls)
        await status_of(read(query))
        assert query.statistics().retry_tokens == full - len(provider.calls)


async def test_one_lost_connection_does_not_use_the_budget_up(autojump_clock: trio.abc.Clock) -> None:
    async with scripted("hang") as (query, provider), trio.open_nursery() as nursery:
        for number in range(200):
            nursery.start_soon(write, query, str(number))
        await trio.sleep(1)
        provider.script.clear()
        await provider.cut()
        await trio.sleep(1)
        assert len(provider.applied) == 200
        assert query.statistics().failed == 0


async def test_a_provider_that_restarts_costs_no_job_its_call(autojump_clock: trio.abc.Clock) -> None:
    """While nobody listens there is nobody to spare: attempts that find no connection take nothing from the budget."""
    async with scripted("hang") as (query, provider), trio.open_nursery() as nursery:
        before: list[Status] = []

        async def caller() -> None:
            before.append(await status_of(read(query)))

        for _ in range(200):
            nursery.start_soon(caller)
        await trio.sleep(1)
        provider.script.clear()
        provider.down = True
        await provider.cut()
        await trio.sleep(1)
        assert query.statistics().retry_tokens == 500 - 200
        provider.down = False
        await trio.sleep(1)
        assert before == [Status.OK] * 200


async def test_the_name_of_the_existing_sdk(autojump_clock: trio.abc.Clock) -> None:
    async with scripted(Status.INTERNAL, None) as (query, provider):
        assert (await query.exec_grpc_query(ROUTE, Message(n=3), Message, timeout=5)).n == 3
        assert len(provider.calls) == 2


async def test_a_repetition_says_what_the_first_call_said(autojump_clock: trio.abc.Clock) -> None:
    async with scripted(Status.INTERNAL, None) as (query, provider), trio.open_nursery() as nursery:
        request = Message(text="as it was")
        nursery.start_soon(query.write, ROUTE, request, Message)
        await trio.sleep(0.01)
        request.text = "changed since"
        await trio.sleep(1)
        assert provider.applied == {"as it was": 1}


async def test_metadata_travels_with_the_key(autojump_clock: trio.abc.Clock) -> None:
    async with scripted() as (query, provider):
        for metadata in ({"a": "1"}, [("a", "1")], None):
            await query.write(ROUTE, Message(), Message, metadata=metadata, key="k")
        assert provider._keys == {"k"}


async def test_state_can_be_seen(autojump_clock: trio.abc.Clock) -> None:
    async with scripted() as (query, _):
        assert "provider:1" in repr(query)
        assert "closed" in repr(query)
        assert IDEMPOTENCY in repr(query)
        await read(query)
        statistics = query.statistics()
        assert (statistics.queries, statistics.failed, statistics.asked) == (2, 0, 0)
        assert isinstance(query, ProviderQuery)
