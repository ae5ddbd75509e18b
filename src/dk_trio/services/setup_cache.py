"""A cache in front of a source of setups. It is on the path of every StartModule, so that a hit costs a dict lookup.

One entry for each setup id, the current version: it is all that callers can ask for. Older versions are not kept, or
configuring one setup over and over would push the others out. Room is made by leaving out the entry that was not used
for longest.

Many callers that miss the same id share one fetch (single flight). It belongs to none of them: it runs in the cache's
own nursery, in the context in which the cache was opened, under `fetch_timeout` instead of anybody's deadline. So the
callers come and go, the first one too, without disturbing it; when all have left, it still fills the cache. Each
waiter gets an exception of its own, because raising one writes to it. Failures are not kept: the next caller asks anew.

What a fetch brings may be old when it arrives. A `put` meanwhile is newer: the fetch is cancelled, and those who wait
for it get what was put. A `forget` meanwhile means that the answer was read too early for anybody who comes now: those
who waited before get it, but it is not kept; those who come later wait for its end and fetch again, never beside it.
"""

from __future__ import annotations

import contextvars
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, fields
from typing import Final, Self

import trio

from dk_trio import buggify
from dk_trio.boundary import unwrapped
from dk_trio.errors import DkTrioError, SetupUnavailableError
from dk_trio.services.setup import SetupSource, SetupStore, SetupVersion, bare

# Callers may leave, their fetches go on for `fetch_timeout`: with a source that hangs, this bounds what they leave
# behind. Far above the calls that a server runs at once, so nobody who stays meets it.
FETCHES_MAX: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class SetupCacheStatistics:
    """What a cache holds, and what it has done since it was made.

    Attributes:
        entries: Setups in the cache, those that have expired since they were last asked for included.
        max_entries: Its capacity.
        in_flight: Fetches that run now.
        hits: Calls that were answered at once.
        misses: Calls that were not: `fetches` of them started a fetch, `joined` found one under way.
        fetches: Fetches that were started.
        joined: Calls that shared the fetch of another.
        failures: Fetches that ended with an error or took too long.
        evicted: Entries that were left out to make room.
        expired: Entries that were found to be older than the time to live.
    """

    entries: int
    max_entries: int
    in_flight: int
    hits: int
    misses: int
    fetches: int
    joined: int
    failures: int
    evicted: int
    expired: int

    @classmethod
    def total(cls, parts: Iterable[Self]) -> Self:
        """The numbers of several caches together."""
        rows = list(parts)
        return cls(**{row.name: sum(getattr(part, row.name) for part in rows) for row in fields(cls)})


@dataclass(slots=True, eq=False)
class _Flight:
    """A fetch under way."""

    scope: trio.CancelScope
    ended: trio.Event = field(default_factory=trio.Event)
    answer: SetupVersion | DkTrioError | None = None
    forgotten: bool = False  # after its start: its result is not kept, and nobody joins any more

    def overtake(self, answer: SetupVersion | DkTrioError) -> None:
        """Its callers get this answer, as soon as the source lets go."""
        self.answer = answer
        self.scope.cancel(reason="the fetch of a setup was overtaken")


class SetupCache:
    """A `SetupStore` that asks another source once, and remembers the answer for a while.

    Usable inside `async with cache.opened():` only. What is put is passed on to the source, if that is a store too.

    Args:
        source: Where setups come from. Must end soon when cancelled.
        max_entries: Setups to keep; 0 keeps none, then callers only share fetches.
        ttl: Seconds, from the end of its fetch, after which an entry is fetched again.
        fetch_timeout: Seconds that the source gets to answer.
    """

    def __init__(
        self, source: SetupSource, *, max_entries: int = 100, ttl: float = 600.0, fetch_timeout: float = 30.0
    ) -> None:
        if max_entries < 0:
            raise ValueError(f"max_entries must not be negative, not {max_entries!r}")
        self._source = source
        self._store = source if isinstance(source, SetupStore) else None
        self._max_entries = max_entries
        self._ttl = ttl
        self._fetch_timeout = fetch_timeout
        # By bare id: the version and when it expires, least recently used first.
        self._entries: OrderedDict[str, tuple[SetupVersion, float]] = OrderedDict()
        self._flights: dict[str, _Flight] = {}
        self._nursery: trio.Nursery | None = None
        self._context: contextvars.Context
        self._hits = self._fetches = self._joined = self._failures = self._evicted = self._expired = 0

    def __repr__(self) -> str:
        state = "closed" if self._nursery is None else f"{len(self._flights)} in flight"
        return f"<SetupCache {len(self._entries)}/{self._max_entries} setups, {state}, of {self._source!r}>"

    def statistics(self) -> SetupCacheStatistics:
        """Counts since the cache was made."""
        return SetupCacheStatistics(
            entries=len(self._entries),
            max_entries=self._max_entries,
            in_flight=len(self._flights),
            hits=self._hits,
            misses=self._fetches + self._joined,
            fetches=self._fetches,
            joined=self._joined,
            failures=self._failures,
            evicted=self._evicted,
            expired=self._expired,
        )

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Self]:
        """Fetches run for the length of the block.

        At its end those under way are cancelled, which their callers see as `SetupUnavailableError`, and all entries
        are dropped.
        """
        if self._nursery is not None:
            raise RuntimeError("This SetupCache is open already.")
        try:
            async with unwrapped(), trio.open_nursery() as nursery:
                self._nursery = nursery
                self._context = contextvars.copy_context()
                try:
                    yield self
                finally:
                    self._nursery = None
                    for key, flight in self._flights.items():
                        flight.overtake(_closed(key))
        finally:
            self._entries.clear()

    # --- asking ------------------------------------------------------------------------------------------------------

    async def get_setup(self, setup_id: str, mission_id: str) -> SetupVersion:
        """See `SetupSource.get_setup`. The mission is that of the caller whose miss started the fetch.

        A hit is a checkpoint for cancellation, but does not let other tasks run.

        Raises:
            SetupUnavailableError: The source failed otherwise than with a `DkTrioError`, did not answer within
                `fetch_timeout`, or the cache was closed meanwhile.
            DkTrioError: What the source raised.
            RuntimeError: The cache is not open.
        """
        self._check_open()
        await trio.lowlevel.checkpoint_if_cancelled()
        key = bare(setup_id)
        while True:
            entry = self._entries.get(key)
            if entry is not None:
                version, expires = entry
                if trio.current_time() < expires:
                    self._entries.move_to_end(key)
                    self._hits += 1
                    return version
                del self._entries[key]
                self._expired += 1
            flight = self._flights.get(key)
            if flight is None:
                flight = self._start(key, setup_id, mission_id)
                break
            if not flight.forgotten:
                self._joined += 1
                break
            await flight.ended.wait()
        await flight.ended.wait()
        answer = flight.answer
        if isinstance(answer, SetupVersion):
            return answer
        assert answer is not None
        raise _own(answer) from answer

    def held(self, setup_id: str) -> SetupVersion | None:
        """What `get_setup` would answer without asking its source."""
        version, expires = self._entries.get(bare(setup_id), (None, 0.0))
        return version if trio.current_time() < expires else None

    def clear(self) -> None:
        """Whoever asks for any setup from now on gets what the source says from now on."""
        self._entries.clear()
        for flight in self._flights.values():
            flight.forgotten = True

    def put(self, version: SetupVersion) -> None:
        """From now on `version` is the current version of its setup, here and in the source if that is a store.

        Callers who wait for this setup get it too.

        Raises:
            RuntimeError: The cache is not open.
        """
        self._check_open()
        if self._store is not None:
            self._store.put(version)
        key = bare(version.setup_id)
        self._keep(key, version)
        flight = self._flights.get(key)
        if flight is not None:
            flight.overtake(version)

    def forget(self, setup_id: str) -> None:
        """Whoever asks for this setup from now on gets what the source says from now on."""
        key = bare(setup_id)
        self._entries.pop(key, None)
        flight = self._flights.get(key)
        if flight is not None:
            flight.forgotten = True

    def _check_open(self) -> None:
        if self._nursery is None:
            raise RuntimeError("This SetupCache is not open: use it inside `async with cache.opened():`.")

    def _keep(self, key: str, version: SetupVersion) -> None:
        if not self._max_entries:
            return
        self._entries[key] = (version, trio.current_time() + self._ttl)
        self._entries.move_to_end(key)
        if len(self._entries) > self._max_entries:
            self._entries.popitem(last=False)
            self._evicted += 1

    # --- fetching ----------------------------------------------------------------------------------------------------

    def _start(self, key: str, setup_id: str, mission_id: str) -> _Flight:
        if self._nursery is None:  # closed while this caller waited for a forgotten fetch to end
            raise _closed(setup_id)
        if len(self._flights) >= FETCHES_MAX:
            raise SetupUnavailableError(
                f"Setup {setup_id!r} cannot be fetched: {FETCHES_MAX} other fetches are running."
            )
        flight = _Flight(trio.CancelScope(deadline=trio.current_time() + self._fetch_timeout))
        self._flights[key] = flight
        self._fetches += 1
        # A task inherits the context of who starts it: without this the first caller's trace, or whatever else it keeps
        # in context variables, would be everybody's.
        self._context.run(self._nursery.start_soon, self._fetch, key, flight, setup_id, mission_id)
        return flight

    async def _fetch(self, key: str, flight: _Flight, setup_id: str, mission_id: str) -> None:
        answer: SetupVersion | DkTrioError = _closed(setup_id)  # stays when whoever opened the cache is cancelled
        try:
            answer = await self._ask(flight.scope, setup_id, mission_id)
        finally:
            del self._flights[key]
            if flight.answer is None:  # not overtaken
                flight.answer = answer
                if isinstance(answer, DkTrioError):
                    self._failures += 1
                elif not flight.forgotten:
                    self._keep(key, answer)
            flight.ended.set()

    async def _ask(self, scope: trio.CancelScope, setup_id: str, mission_id: str) -> SetupVersion | DkTrioError:
        # Returns its errors. Their tracebacks hold this frame, so nothing in it may lead back to an error: a variable
        # would, and the flight.
        try:
            with scope:
                await buggify.at("setup.fetch")
                return await self._source.get_setup(setup_id, mission_id)
        except DkTrioError as error:
            return error
        except Exception as error:  # noqa: BLE001  boundary: a source; an outage of it is not ours
            return _unavailable(setup_id, error)
        return SetupUnavailableError(f"Setup {setup_id!r} was not fetched within {self._fetch_timeout:g} s.")


def _closed(setup_id: str) -> SetupUnavailableError:
    return SetupUnavailableError(f"Setup {setup_id!r} was not fetched: the server is shutting down.")


def _unavailable(setup_id: str, cause: Exception) -> SetupUnavailableError:
    error = SetupUnavailableError(f"Setup {setup_id!r} cannot be fetched: {type(cause).__name__}: {cause}")
    error.__cause__ = cause
    return error


def _own(error: DkTrioError) -> DkTrioError:
    """The same error, as an exception of its own. `__init__` is left out: its arguments differ from class to class."""
    own = type(error).__new__(type(error), *error.args)
    own.__dict__.update(error.__dict__)
    return own
