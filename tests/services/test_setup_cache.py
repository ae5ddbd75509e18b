"""The cache of setups: what it keeps, who shares a fetch, and that nobody's going disturbs anybody else."""

from __future__ import annotations

import contextvars
import gc

import pytest
import trio
import trio.testing

from dk_trio.errors import AdmissionError, InvalidSetupError, SetupNotFoundError, SetupUnavailableError
from dk_trio.services import setup_cache
from dk_trio.services.local.setup import LocalSetup
from dk_trio.services.setup import SetupStore
from dk_trio.services.setup_cache import SetupCache

from .setup_sources import DAY, Caller, Source, opened, version


@pytest.fixture
def source() -> Source:
    return Source()


async def name_of(cache: SetupCache, setup_id: str = "a") -> str:
    return (await cache.get_setup(setup_id, "m")).id


# --- what is kept ----------------------------------------------------------------------------------------------------


async def test_an_entry_is_fetched_again_after_its_time_to_live(autojump_clock: object, source: Source) -> None:
    async with opened(source, ttl=600) as cache:
        assert await name_of(cache) == "1"
        await trio.sleep(599)
        assert await name_of(cache) == "1"
        await trio.sleep(1)
        async with trio.open_nursery() as nursery:
            callers = [Caller(cache, nursery) for _ in range(2)]
        assert {caller.name for caller in callers} == {"2"}
        assert len(source.asked) == 2
        assert cache.statistics().expired == 1


async def test_an_id_with_and_without_prefix_is_one_setup(autojump_clock: object, source: Source) -> None:
    async with opened(source) as cache:
        assert await name_of(cache, "setups:a") == await name_of(cache, "a") == "1"
        cache.put(version("setups:a", "put"))
        assert await name_of(cache, "a") == "put"
        cache.forget("setups:a")
        assert await name_of(cache, "a") == "2"
        assert source.asked == [("setups:a", "m"), ("a", "m")]


async def test_room_is_made_by_what_was_not_used_for_longest(autojump_clock: object, source: Source) -> None:
    async with opened(source, max_entries=2) as cache:
        for setup_id in ("a", "b", "a", "c", "a", "b"):
            await name_of(cache, setup_id)
        assert [setup_id for setup_id, _ in source.asked] == ["a", "b", "c", "b"]
        assert (cache.statistics().entries, cache.statistics().evicted) == (2, 2)
        cache.put(version("a", "put"))
        await name_of(cache, "d")
        assert await name_of(cache, "a") == "put"


async def test_versions_of_one_setup_do_not_push_out_the_others(autojump_clock: object, source: Source) -> None:
    async with opened(source, max_entries=2) as cache:
        await name_of(cache, "b")
        for number in range(5):
            cache.put(version("a", f"put {number}"))
        assert await name_of(cache, "a") == "put 4"
        await name_of(cache, "b")
        assert len(source.asked) == 1
        assert cache.statistics().evicted == 0


async def test_a_cache_of_no_entries_still_shares_fetches(autojump_clock: object, source: Source) -> None:
    async with opened(source, max_entries=0) as cache:
        async with trio.open_nursery() as nursery:
            callers = [Caller(cache, nursery) for _ in range(5)]
        assert {caller.name for caller in callers} == {"1"}
        assert await name_of(cache) == "2"
        cache.put(version("a", "put"))
        assert await name_of(cache) == "3"
        assert (cache.statistics().entries, cache.statistics().evicted) == (0, 0)


async def test_a_hit_is_a_checkpoint_for_cancellation(autojump_clock: object, source: Source) -> None:
    async with opened(source) as cache:
        await name_of(cache)
        with trio.CancelScope() as scope:
            scope.cancel()
            await name_of(cache)
        assert scope.cancelled_caught
        assert cache.statistics().hits == 0


async def test_a_caller_that_is_cancelled_already_starts_nothing(autojump_clock: object, source: Source) -> None:
    async with opened(source) as cache:
        with trio.CancelScope() as scope:
            scope.cancel()
            await name_of(cache)
        assert source.asked == []


def test_a_negative_capacity() -> None:
    with pytest.raises(ValueError, match="max_entries must not be negative, not -1"):
        SetupCache(Source(), max_entries=-1)


# --- single flight ---------------------------------------------------------------------------------------------------


async def test_callers_share_one_fetch_for_the_first_callers_mission(autojump_clock: object, source: Source) -> None:
    async with opened(source) as cache:
        async with trio.open_nursery() as nursery:
            callers = [Caller(cache, nursery, mission_id="first")]
            await trio.sleep(0.5)
            callers += [Caller(cache, nursery, mission_id="second") for _ in range(10)]
        assert {caller.name for caller in callers} == {"1"}
        assert source.asked == [("a", "first")]
        statistics = cache.statistics()
        assert (statistics.misses, statistics.fetches, statistics.joined) == (11, 1, 10)


async def test_different_setups_are_fetched_at_the_same_time(autojump_clock: object, source: Source) -> None:
    async with opened(source) as cache:
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            for setup_id in "abc":
                Caller(cache, nursery, setup_id)
        assert trio.current_time() == began + 1


@pytest.mark.parametrize("leaving", [[0], [1], [0, 1], [0, 1, 2]], ids=["first", "waiter", "two", "everybody"])
async def test_callers_that_leave_disturb_nobody(autojump_clock: object, leaving: list[int], source: Source) -> None:
    async with opened(source) as cache:
        async with trio.open_nursery() as nursery:
            callers = []
            for _ in range(3):
                callers.append(Caller(cache, nursery))
                await trio.sleep(0.1)  # in this order
            for number in leaving:
                callers[number].scope.cancel()
        for number, caller in enumerate(callers):
            assert caller.scope.cancelled_caught == (number in leaving)
            assert caller.name == ("" if number in leaving else "1")
        await trio.sleep(1)
        assert await name_of(cache) == "1"  # the fetch went on
        assert (len(source.asked), cache.statistics().hits) == (1, 1)


async def test_a_fetch_does_not_run_in_its_first_callers_context(autojump_clock: object, source: Source) -> None:
    caller: contextvars.ContextVar[str] = contextvars.ContextVar("caller", default="nobody")
    seen = []

    async def look() -> None:
        seen.append(caller.get())

    source.before = look
    caller.set("whoever opened")
    async with opened(source) as cache:
        caller.set("the first")
        await name_of(cache)
    assert seen == ["whoever opened"]


async def test_fetches_that_nobody_waits_for_are_bounded(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Source(delay=100)
    monkeypatch.setattr(setup_cache, "FETCHES_MAX", 3)
    async with opened(source, fetch_timeout=30) as cache:
        for number in range(3):
            with trio.move_on_after(1):
                await name_of(cache, str(number))
        with pytest.raises(SetupUnavailableError, match="Setup '3' cannot be fetched: 3 other fetches are running"):
            await name_of(cache, "3")
        assert cache.statistics().in_flight == len(source.asked) == 3
        await trio.sleep(30)
        assert cache.statistics().in_flight == 0


# --- failures --------------------------------------------------------------------------------------------------------


async def failed_callers(cache: SetupCache, count: int = 3) -> list[Exception]:
    async with trio.open_nursery() as nursery:
        callers = [Caller(cache, nursery) for _ in range(count)]
    errors = [caller.error for caller in callers if caller.error is not None]
    assert len(errors) == count
    return errors


@pytest.mark.parametrize("kind", [SetupNotFoundError, InvalidSetupError, SetupUnavailableError])
async def test_an_error_of_the_source_stays_what_it_is(
    autojump_clock: object, kind: type[SetupNotFoundError], source: Source
) -> None:
    source.failure = lambda: kind("Setup 'a' is odd.", hint="Mend it.")
    async with opened(source) as cache:
        errors = await failed_callers(cache)
        assert len({id(error) for error in errors}) == 3, "one exception was raised in several tasks"
        for error in errors:
            assert type(error) is kind
            assert (error.message, error.hint, str(error)) == ("Setup 'a' is odd.", "Mend it.", "Setup 'a' is odd.")


async def test_an_error_with_arguments_of_its_own_keeps_them(autojump_clock: object, source: Source) -> None:
    source.failure = lambda: AdmissionError("Full.", limit="X", size=3, waited=0.5, retry_after=2)
    async with opened(source) as cache:
        with pytest.raises(AdmissionError, match="Full") as caught:
            await name_of(cache)
        assert (caught.value.limit, caught.value.size, caught.value.retry_after) == ("X", 3, 2)


async def test_any_other_failure_is_unavailable_and_names_its_cause(autojump_clock: object, source: Source) -> None:
    source.failure = lambda: OSError("no route to host")
    async with opened(source) as cache:
        errors = await failed_callers(cache)
        assert len({id(error) for error in errors}) == 3
        assert {type(error) for error in errors} == {SetupUnavailableError}
        assert {str(error) for error in errors} == {"Setup 'a' cannot be fetched: OSError: no route to host"}
        assert isinstance(errors[0].__cause__.__cause__, OSError)


async def test_a_source_that_does_not_answer_is_unavailable(autojump_clock: object) -> None:
    source = Source(delay=DAY)
    async with opened(source, fetch_timeout=30) as cache:
        began = trio.current_time()
        errors = await failed_callers(cache)
        assert trio.current_time() == began + 30
        assert {str(error) for error in errors} == {"Setup 'a' was not fetched within 30 s."}
        assert not source.running["a"]


async def test_failures_are_not_kept(autojump_clock: object, source: Source) -> None:
    async with opened(source) as cache:
        source.failure = lambda: OSError("down")
        await failed_callers(cache)
        assert cache.statistics().failures == 1
        source.failure = None
        assert await name_of(cache) == "2"


async def test_a_failed_fetch_leaves_no_cycle_of_garbage(autojump_clock: object, source: Source) -> None:
    source.failure = lambda: OSError("down")
    async with opened(source) as cache:
        gc.collect()
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            with pytest.raises(SetupUnavailableError):
                await name_of(cache)
            gc.collect()
            left = [thing for thing in gc.garbage if isinstance(thing, OSError | SetupUnavailableError)]
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
        assert left == []


# --- put and forget --------------------------------------------------------------------------------------------------


async def test_a_version_that_is_put_is_the_current_one(autojump_clock: object, source: Source) -> None:
    async with opened(source, ttl=10) as cache:
        assert await name_of(cache) == "1"
        cache.put(version("a", "put"))
        await trio.sleep(9)
        assert await name_of(cache) == "put"
        await trio.sleep(1)
        assert await name_of(cache) == "2"


async def linger() -> None:
    """What a source does that does not stop at once when it is cancelled, and answers all the same."""
    with trio.CancelScope(shield=True):
        await trio.sleep(5)


@pytest.mark.parametrize("lingering", [False, True])
async def test_a_fetch_does_not_overwrite_what_was_put_meanwhile(autojump_clock: object, lingering: bool) -> None:
    source = Source(delay=0 if lingering else 5)
    if lingering:
        source.before = linger
    async with opened(source) as cache, trio.open_nursery() as nursery:
        waiter = Caller(cache, nursery)
        await trio.sleep(1)
        cache.put(version("a", "old put"))
        cache.put(version("a", "put"))
        assert await name_of(cache) == "put"
        await waiter.ended.wait()
        assert waiter.name == "put"
        await trio.sleep(10)
        assert await name_of(cache) == "put"
        assert len(source.asked) == 1
        assert cache.statistics().failures == 0


async def test_a_put_is_told_to_a_source_that_keeps_it(autojump_clock: object) -> None:
    with trio.fail_after(DAY):
        local = LocalSetup()
        async with SetupCache(local, ttl=10).opened() as cache:
            with pytest.raises(SetupNotFoundError):
                await name_of(cache)
            cache.put(version("a", "put"))
            await trio.sleep(1000)
            assert await name_of(cache) == "put"
    assert isinstance(local, SetupStore)
    assert isinstance(cache, SetupStore)
    assert not isinstance(Source(), SetupStore)


async def test_who_asks_after_a_forget_gets_what_the_source_says_after_it(
    autojump_clock: object, source: Source
) -> None:
    async with opened(source) as cache, trio.open_nursery() as nursery:
        before = Caller(cache, nursery)
        await trio.sleep(0.5)
        cache.forget("a")
        after = [Caller(cache, nursery) for _ in range(5)]
        await before.ended.wait()
        for caller in after:
            await caller.ended.wait()
        assert before.name == "1"
        assert {caller.name for caller in after} == {"2"}
        assert await name_of(cache) == "2"
        cache.forget("a")
        assert await name_of(cache) == "3"
        cache.forget("unknown")


async def test_who_waits_for_a_forgotten_fetch_to_end_gets_what_is_put_meanwhile(
    autojump_clock: object, source: Source
) -> None:
    async with opened(source) as cache, trio.open_nursery() as nursery:
        Caller(cache, nursery)
        await trio.sleep(0.5)
        cache.forget("a")
        after = Caller(cache, nursery)
        await trio.sleep(0.1)
        cache.put(version("a", "put"))
        await after.ended.wait()
        assert after.name == "put"
        assert len(source.asked) == 1


# --- lifetime --------------------------------------------------------------------------------------------------------


async def test_a_cache_that_is_not_open(autojump_clock: object) -> None:
    cache = SetupCache(Source())
    for _ in range(2):
        with pytest.raises(RuntimeError, match=r"not open: use it inside `async with cache.opened\(\):`"):
            await name_of(cache)
        with pytest.raises(RuntimeError, match="not open"):
            cache.put(version("a"))
        async with cache.opened():
            assert await name_of(cache) in {"1", "2"}  # nothing is kept from the last time
            with pytest.raises(RuntimeError, match="open already"):
                async with cache.opened():
                    pass
    assert cache.statistics().entries == 0


@pytest.mark.parametrize("lingering", [False, True])
async def test_closing_ends_fetches_and_tells_their_waiters(autojump_clock: object, lingering: bool) -> None:
    source = Source(delay=1000)
    if lingering:
        source.before = linger
    began = trio.current_time()
    with trio.fail_after(DAY):
        async with trio.open_nursery() as nursery, SetupCache(source, fetch_timeout=100).opened() as cache:
            callers = [Caller(cache, nursery) for _ in range(3)]
            await trio.sleep(1)
            cache.forget("a")
            callers += [Caller(cache, nursery)]  # waits for the end of the forgotten fetch
            await trio.sleep(1)
    assert trio.current_time() - began == (5 if lingering else 2)
    assert {type(caller.error) for caller in callers} == {SetupUnavailableError}
    assert {str(caller.error) for caller in callers} == {"Setup 'a' was not fetched: the server is shutting down."}
    assert not source.running["a"]


async def test_cancelling_who_opened_the_cache_leaves_no_waiter_behind(autojump_clock: object) -> None:
    with trio.fail_after(DAY):
        async with trio.open_nursery() as nursery:
            with trio.move_on_after(1):
                async with SetupCache(Source(delay=1000)).opened() as cache:
                    caller = Caller(cache, nursery)
                    await trio.sleep(100)
            await caller.ended.wait()
    assert isinstance(caller.error, SetupUnavailableError)


async def test_a_source_that_fails_while_it_is_cancelled_does_not_spoil_the_end(autojump_clock: object) -> None:
    source = Source()

    async def fail_at_the_end() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("of the cleanup")

    async def in_two_tasks() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            nursery.start_soon(fail_at_the_end)

    source.before = in_two_tasks
    with trio.fail_after(DAY):
        async with trio.open_nursery() as nursery, SetupCache(source).opened() as cache:
            caller = Caller(cache, nursery)
            await trio.sleep(1)
    assert isinstance(caller.error, SetupUnavailableError)


async def test_an_exception_of_the_block_goes_on_as_it_was(autojump_clock: object) -> None:
    error = KeyError("of the block")
    with trio.fail_after(DAY):
        async with trio.open_nursery() as nursery:
            with pytest.raises(KeyError) as caught:
                async with SetupCache(Source(delay=1000)).opened() as cache:
                    caller = Caller(cache, nursery)
                    await trio.sleep(1)
                    raise error
            assert caught.value is error
    assert isinstance(caller.error, SetupUnavailableError)


# --- what it shows ---------------------------------------------------------------------------------------------------


async def test_its_state_can_be_seen(autojump_clock: object, source: Source) -> None:
    async with opened(source, max_entries=2) as cache:
        await name_of(cache)
        with trio.move_on_after(0.5):
            await name_of(cache, "b")
        assert repr(cache).startswith("<SetupCache 1/2 setups, 1 in flight, of <")
        assert cache.statistics() == setup_cache.SetupCacheStatistics(
            entries=1,
            max_entries=2,
            in_flight=1,
            hits=0,
            misses=2,
            fetches=2,
            joined=0,
            failures=0,
            evicted=0,
            expired=0,
        )
    assert repr(cache).startswith("<SetupCache 0/2 setups, closed, of <")
