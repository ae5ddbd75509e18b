"""Schema documents of one module, made once, or again when what was fetched for them is not fresh any more."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable
from typing import Any

import trio

from dk_trio.module.setup import DEFAULT_FETCH_TIMEOUT, Fetches

from ._documents import Document


class SchemaCache:
    """Documents by key. One owner, such as a server; callers share the documents and do not change them.

    Args:
        fetch_timeout: Seconds for one fetcher, where its field says none.
        threads: Limits the threads of all fetchers; None: each has a limit of its own.

    Attributes:
        fetches: The values of fetchers, for those who build documents.
    """

    def __init__(
        self, fetch_timeout: float = DEFAULT_FETCH_TIMEOUT, threads: trio.CapacityLimiter | None = None
    ) -> None:
        self.fetches = Fetches(fetch_timeout, threads)
        self._kept: dict[Hashable, Document] = {}
        self._flights: dict[Hashable, _Flight] = {}

    def __repr__(self) -> str:
        return f"<SchemaCache, {len(self._kept)} kept, {len(self._flights)} being made>"

    def static(self, key: Hashable, build: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """A document that needs no fetcher; `build` is called the first time."""
        if key not in self._kept:
            self._kept[key] = Document(build())
        return self._kept[key].content

    async def get(self, key: Hashable, build: Callable[[], Awaitable[Document]]) -> dict[str, Any]:
        """A document whose values are fresh, or were fetched while this call waited.

        Calls for the same key share one `build`. It runs in the task of the first caller; when that one is cancelled or
        fails, the next takes over, so that nobody gets another's error.

        Raises:
            Exception: What `build` raised in this task.
            trio.Cancelled: A surrounding scope was cancelled.
        """
        while True:
            kept = self._kept.get(key)
            if kept is not None and kept.fresh_until > trio.current_time():
                await trio.lowlevel.checkpoint()
                return kept.content
            flight = self._flights.get(key)
            if flight is None:
                return await self._make(key, build)
            await flight.landed.wait()
            if flight.document is not None:
                return flight.document.content

    async def _make(self, key: Hashable, build: Callable[[], Awaitable[Document]]) -> dict[str, Any]:
        flight = self._flights[key] = _Flight()
        try:
            flight.document = await build()
            if flight.document.fresh_until > trio.current_time():
                self._kept[key] = flight.document
            else:
                self._kept.pop(key, None)
            return flight.document.content
        finally:
            del self._flights[key]
            flight.landed.set()


class _Flight:
    """One build that others wait for."""

    def __init__(self) -> None:
        self.landed = trio.Event()
        self.document: Document | None = None
