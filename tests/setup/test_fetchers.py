"""Fetchers run in parallel, each within its time, and one that fails harms no other."""

import functools
import threading
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from dk_trio.errors import ModuleDefinitionError
from dk_trio.module.setup import Dynamic, DynamicField, ResolveResult, resolve, resolve_safe


def after(seconds: float, value: Any) -> Any:
    async def fetch() -> Any:
        await trio.sleep(seconds)
        if isinstance(value, BaseException):
            raise value
        return value

    return fetch


async def test_fetchers_run_in_parallel(autojump_clock: MockClock) -> None:
    began = trio.current_time()
    values = await resolve({"a": after(3, 1), "b": after(2, 2)})
    assert (values, list(values), trio.current_time() - began) == ({"a": 1, "b": 2}, ["a", "b"], 3)


async def test_the_first_failure_ends_the_others(autojump_clock: MockClock) -> None:
    began = trio.current_time()
    with pytest.raises(OSError, match="refused"):
        await resolve({"a": after(100, 1), "b": after(2, OSError("refused"))})
    assert trio.current_time() - began == 2


async def test_resolve_in_time_or_not_at_all(autojump_clock: MockClock) -> None:
    with pytest.raises(TimeoutError, match="within 5 s"):
        await resolve({"a": after(100, 1)}, timeout=5)


async def test_each_fetcher_has_its_own_time(autojump_clock: MockClock) -> None:
    began = trio.current_time()
    found = await resolve_safe(
        {"slow": trio.sleep_forever, "bad": after(1, OSError("refused")), "good": after(4, 7)}, 5
    )
    assert trio.current_time() - began == 5
    assert found.values == {"good": 7}
    assert {key: str(error) for key, error in found.errors.items()} == {
        "slow": "no answer within 5 s",
        "bad": "refused",
    }
    assert (found.success, found.partial, found.get("good"), found.get("slow", 0)) == (False, True, 7, 0)


def test_a_result_knows_whether_it_is_whole() -> None:
    assert ResolveResult({"a": 1}).success
    assert not ResolveResult({"a": 1}).partial
    failed = ResolveResult({}, {"a": OSError()})
    assert (failed.success, failed.partial) == (False, False)


@pytest.mark.parametrize("error", [SystemExit(1), GeneratorExit(), BaseExceptionGroup("several", [SystemExit(2)])])
async def test_a_fetcher_cannot_end_the_server(error: BaseException, autojump_clock: MockClock) -> None:
    found = await resolve_safe({"bad": after(0, error), "good": after(1, 7)})
    assert found.values == {"good": 7}
    assert set(found.errors) == {"bad"}


async def test_cancellation_passes_also_when_a_fetcher_fails_in_it(autojump_clock: MockClock) -> None:
    ended = []

    async def failing_when_cancelled() -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append(True)
            raise OSError("closing failed")

    async def stubborn() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(failing_when_cancelled)
            nursery.start_soon(trio.sleep_forever)

    with trio.move_on_after(1) as scope:
        await resolve_safe({"a": stubborn, "b": trio.sleep_forever})
    assert ended
    assert scope.cancelled_caught


async def test_a_cancelled_resolution_returns_nothing(autojump_clock: MockClock) -> None:
    returned = []
    with trio.move_on_after(1) as scope:
        returned.append(await resolve_safe({"a": trio.sleep_forever}))
    assert scope.cancelled_caught
    assert not returned


async def test_plain_functions_do_not_block_the_loop() -> None:
    release = threading.Event()
    where = []

    def blocking() -> list[str]:
        where.append(threading.current_thread())
        assert release.wait(20)
        return ["a"]

    async def unblock() -> list[str]:
        release.set()
        return ["b"]

    with trio.fail_after(30):
        assert await resolve({"enum": blocking, "examples": unblock}) == {"enum": ["a"], "examples": ["b"]}
    assert where[0] is not threading.main_thread()


async def test_a_plain_function_that_hangs_is_left_behind() -> None:
    release = threading.Event()
    with trio.fail_after(30):
        found = await resolve_safe({"a": functools.partial(release.wait, 20), "b": lambda: 7}, 0.05)
        release.set()
    assert isinstance(found.errors["a"], TimeoutError)


async def test_plain_functions_that_only_compute_may_run_in_the_loop(autojump_clock: MockClock) -> None:
    assert await resolve({"a": threading.current_thread}, 5, in_thread=False) == {"a": threading.current_thread()}


async def test_what_is_awaitable_is_awaited(autojump_clock: MockClock) -> None:
    class Callable:
        async def __call__(self) -> int:
            return 1

    assert await resolve({"a": Callable(), "b": functools.partial(trio.sleep, 0)}, 5) == {"a": 1, "b": None}
    assert await resolve({"c": functools.partial(lambda fetch: fetch(), after(1, 3))}, 5, in_thread=False) == {"c": 3}


async def test_fetched_objects_become_json(autojump_clock: MockClock) -> None:
    dynamic = Dynamic(enum=after(0, ("a", "b", "a")), examples=after(0, {1}))
    assert (await dynamic.resolve(5)).values == {"enum": ["a", "b"], "examples": [1]}


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        ("enum", None, "enum is a list"),
        ("enum", [], "an empty enum allows none"),
        ("enum", object(), "serialize"),
        ("minimum", "3", "cannot be a minimum"),
        ("maximum", float("nan"), "cannot be a maximum"),
        ("maxLength", -1, "cannot be a maxLength"),
        ("multipleOf", 0, "cannot be a multipleOf"),
        ("title", 3, "title is text"),
    ],
)
async def test_what_would_break_the_schema_is_a_failure(
    key: str, value: Any, why: str, autojump_clock: MockClock
) -> None:
    found = await Dynamic({key: after(0, value)}, default=after(0, 1)).resolve(5)
    assert found.values == {"default": 1}
    assert why in str(found.errors[key])


async def test_a_field_says_its_own_time(autojump_clock: MockClock) -> None:
    found = await Dynamic(timeout=2, enum=trio.sleep_forever).resolve(60)
    assert trio.current_time() >= 2
    assert str(found.errors["enum"]) == "no answer within 2 s"


def test_bad_markers_are_refused_when_they_are_written() -> None:
    with pytest.raises(ModuleDefinitionError, match="has no fetcher"):
        Dynamic()
    with pytest.raises(ModuleDefinitionError, match=r"which cannot be called.*") as caught:
        Dynamic(enum=after(0, 1)())
    assert "Dynamic(enum=fetch)" in caught.value.hint
    with pytest.raises(ModuleDefinitionError, match="no number of seconds"):
        Dynamic(enum=list, fresh_for=float("nan"))
    assert DynamicField is Dynamic


async def test_the_threads_of_one_field_are_few() -> None:
    release = threading.Event()
    ended = trio.Event()
    running = 0

    def blocking() -> list[str]:
        nonlocal running
        running += 1
        release.wait(20)
        trio.from_thread.run_sync(ended.set)
        return ["a"]

    limiter = trio.CapacityLimiter(2)
    dynamic = Dynamic(enum=blocking)
    with trio.fail_after(30):
        for _ in range(4):
            assert not (await dynamic.resolve(0.02, limiter)).success
        assert running == 2
        release.set()
        await ended.wait()
        assert (await dynamic.resolve(10, limiter)).success
