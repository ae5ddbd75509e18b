"""A source of setups that the tests hold in their hands, and the length of a test in virtual time."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import trio

from dk_trio.services.setup import SetupVersion, bare
from dk_trio.services.setup_cache import SetupCache

# Nothing in virtual time takes longer; a deadlock ends here instead of never.
DAY = 86400


def version(setup_id: str, name: str = "1") -> SetupVersion:
    return SetupVersion(id=name, setup_id=setup_id, content={})


class Source:
    """Answers after `delay` seconds with a version named by the number of the fetch, or raises what `failure` makes."""

    def __init__(self, delay: float = 1) -> None:
        self.delay = delay
        self.failure: Callable[[], Exception] | None = None
        self.before: Callable[[], Awaitable[object]] = trio.lowlevel.checkpoint
        self.asked: list[tuple[str, str]] = []
        self.running: Counter[str] = Counter()
        self.most_at_once = 0

    async def get_setup(self, setup_id: str, mission_id: str) -> SetupVersion:
        key = bare(setup_id)
        self.running[key] += 1
        self.most_at_once = max(self.most_at_once, self.running[key])
        self.asked.append((setup_id, mission_id))
        name = str(len(self.asked))
        try:
            await self.before()
            if self.delay:
                await trio.sleep(self.delay)
            if self.failure is not None:
                raise self.failure()
            return version(setup_id, name)
        finally:
            self.running[key] -= 1


@asynccontextmanager
async def opened(source: Source, **options: float) -> AsyncIterator[SetupCache]:
    with trio.fail_after(DAY):
        async with SetupCache(source, **options).opened() as cache:
            yield cache
    assert source.most_at_once <= 1


class Caller:
    """One call of `get_setup` in a task of its own, that can be cancelled alone."""

    def __init__(self, cache: SetupCache, nursery: trio.Nursery, setup_id: str = "a", mission_id: str = "m") -> None:
        self.scope = trio.CancelScope()
        self.ended = trio.Event()
        self.name = ""
        self.error: Exception | None = None
        nursery.start_soon(self._run, cache, setup_id, mission_id)

    async def _run(self, cache: SetupCache, setup_id: str, mission_id: str) -> None:
        with self.scope:
            try:
                self.name = (await cache.get_setup(setup_id, mission_id)).id
            except Exception as error:  # noqa: BLE001 - the tests look at it
                self.error = error
        self.ended.set()
