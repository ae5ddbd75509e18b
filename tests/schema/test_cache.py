"""Documents are made once, or again when they are stale; callers of one moment share one."""

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from dk_trio.module.schema import Document, SchemaCache


class Builds:
    """A slow build that counts."""

    def __init__(self, *, fresh_for: float = 0, takes: float = 1) -> None:
        self.count = 0
        self.fresh_for = fresh_for
        self.takes = takes

    async def __call__(self) -> Document:
        self.count += 1
        number = self.count
        began = trio.current_time()
        await trio.sleep(self.takes)
        return Document({"number": number}, began + self.fresh_for)


def test_static_documents_are_made_once() -> None:
    cache = SchemaCache()
    made: list[int] = []

    def build() -> dict[str, Any]:
        made.append(1)
        return {}

    assert cache.static("a", build) is cache.static("a", build)
    assert made == [1]
    assert repr(cache) == "<SchemaCache, 1 kept, 0 being made>"


async def test_a_document_lives_as_long_as_it_is_fresh(autojump_clock: MockClock) -> None:
    cache, build = SchemaCache(), Builds(fresh_for=10)
    assert await cache.get("a", build) == {"number": 1}
    await trio.sleep(8.5)
    assert await cache.get("a", build) == {"number": 1}
    await trio.sleep(1)
    assert await cache.get("a", build) == {"number": 2}


async def test_what_is_never_fresh_is_made_for_each_call(autojump_clock: MockClock) -> None:
    cache, build = SchemaCache(), Builds()
    assert [await cache.get("a", build) for _ in range(3)] == [{"number": 1}, {"number": 2}, {"number": 3}]
    assert repr(cache) == "<SchemaCache, 0 kept, 0 being made>"


async def test_calls_of_one_moment_share_one_build(autojump_clock: MockClock) -> None:
    cache, build = SchemaCache(), Builds()
    other = Builds()
    documents = []

    async def call(key: str, build: Builds) -> None:
        documents.append(await cache.get(key, build))

    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(call, "a", build)
        nursery.start_soon(call, "b", other)
    assert documents == [{"number": 1}] * 11
    assert (build.count, other.count) == (1, 1)


async def test_when_the_first_caller_leaves_the_next_takes_over(autojump_clock: MockClock) -> None:
    cache, build = SchemaCache(), Builds(takes=5)
    documents = []

    async def call() -> None:
        documents.append(await cache.get("a", build))

    async with trio.open_nursery() as nursery:
        with trio.move_on_after(2) as first:
            nursery.start_soon(lambda: _later(1, call))
            nursery.start_soon(lambda: _later(1, call))
            await call()
    assert first.cancelled_caught
    assert documents == [{"number": 2}] * 2
    assert trio.current_time() == 7


async def _later(seconds: float, call: Any) -> None:
    await trio.sleep(seconds)
    await call()


async def test_nobody_gets_anothers_error_and_errors_are_not_kept(autojump_clock: MockClock) -> None:
    cache, build = SchemaCache(), Builds()
    documents = []

    async def broken() -> Document:
        await trio.sleep(1)
        raise ValueError("no schema")

    async def call() -> None:
        documents.append(await cache.get("a", build))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: _later(0.5, call))
        with pytest.raises(ValueError, match="no schema"):
            await cache.get("a", broken)
    assert documents == [{"number": 1}]
    assert repr(cache) == "<SchemaCache, 0 kept, 0 being made>"
