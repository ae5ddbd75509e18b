"""Where chance and the time of day come in: ids, jitter, wall clock.

A program asks the operating system, and a simulation decides. What a simulation runs asks nobody else for either (a
test looks), so the same seed gives the same run, down to each id and each date.

A source belongs to a context, and tasks inherit it: two simulations, or a simulation and a server, share nothing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random
from uuid import UUID


@dataclass(frozen=True, slots=True)
class _Source:
    random: Random
    now: Callable[[], float]


_SOURCE: ContextVar[_Source | None] = ContextVar("dk_trio chance", default=None)


@contextmanager
def decided_by(random: Random, now: Callable[[], float]) -> Iterator[None]:
    """In this block, and in tasks that are started in it, chance comes from `random` and the time of day from `now`.

    Args:
        random: A seeded generator.
        now: Seconds since 1970.
    """
    token = _SOURCE.set(_Source(random, now))
    try:
        yield
    finally:
        _SOURCE.reset(token)


def new_uuid() -> UUID:
    """A random UUID (version 4)."""
    source = _SOURCE.get()
    octets = os.urandom(16) if source is None else source.random.randbytes(16)
    return UUID(bytes=octets, version=4)


def new_random() -> Random:
    """A generator of its own: for jitter, never for secrets."""
    source = _SOURCE.get()
    return Random() if source is None else Random(source.random.getrandbits(64))  # noqa: S311


def wall_time() -> float:
    """Seconds since 1970."""
    source = _SOURCE.get()
    return time.time() if source is None else source.now()


def wall_us() -> int:
    """Microseconds since 1970."""
    source = _SOURCE.get()
    return time.time_ns() // 1000 if source is None else round(source.now() * 1e6)


def utc_now() -> datetime:
    """The time of day, with its zone."""
    source = _SOURCE.get()
    return datetime.now(UTC) if source is None else datetime.fromtimestamp(source.now(), UTC)
