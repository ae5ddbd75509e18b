"""Locks by key: who works on one thing waits for the others who do, and for nobody else."""

from __future__ import annotations

from weakref import WeakValueDictionary

import trio


class KeyedLocks:
    """Locks that are made when they are asked for, and go with their last user.

    async with locks("a", "b"):
        ...
    """

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[tuple[str, ...], trio.Lock] = WeakValueDictionary()

    def __len__(self) -> int:
        return len(self._locks)

    def __call__(self, *key: str) -> trio.Lock:
        """The lock of a key. It is the same for as long as somebody holds it or waits for it."""
        lock = self._locks.get(key)
        if lock is None:
            lock = self._locks[key] = trio.Lock()
        return lock
