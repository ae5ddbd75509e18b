"""Points at which a simulation may strike, where a moment earlier or later makes all the difference.

In a program nobody strikes, and a point costs one look at a context variable. A simulation brings a `Striker`; what it
does at a point is what the world may do there anyway: take time, cancel somebody, cut a connection, or let fail what
can fail. So whatever goes wrong then is a defect that users would meet, later and seldom. (The name is FoundationDB's.)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Final, Protocol

POINTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "admission.acquire": "a job has asked for a place, and has none",
        "admission.acquired": "a job has a place and a slot, and its code has not begun",
        "session.cleanup": "the handler is over, cleanup begins",
        "session.ending": "the code is over, the slot is free, end_of_stream was not sent",
        "setup.fetch": "a setup is about to be fetched",
        "rpc.trailers": "everything but the trailers was queued",
        "signals.flush": "a batch of signals is about to be sent",
        "signals.flushed": "the provider has answered, and the batch is not settled",
        "signals.poll": "signals are about to be asked for",
        "database.commit": "a transaction is complete, and not durable: it may fail",
        "database.committed": "a transaction is durable, and nobody was told",
    }
)
"""What is true at each point."""


class Striker(Protocol):
    """What a simulation does at points."""

    async def at(self, point: str) -> None:
        """Take time, or cancel or cut something. Must not raise anything but `trio.Cancelled`."""
        ...

    def fails(self, point: str) -> bool:
        """Whether what is done at this point fails. May cut or cancel something; must not wait."""
        ...


_STRIKER: ContextVar[Striker | None] = ContextVar("dk_trio buggify", default=None)


@contextmanager
def struck_by(striker: Striker) -> Iterator[None]:
    """In this block, and in tasks that are started in it, points are this striker's."""
    token = _STRIKER.set(striker)
    try:
        yield
    finally:
        _STRIKER.reset(token)


async def at(point: str) -> None:
    """A point where the current task may be held up, or cancelled. No checkpoint when nobody strikes."""
    striker = _STRIKER.get()
    if striker is not None:
        await striker.at(point)


def fails(point: str) -> bool:
    """A point in code that does not wait; True when what follows has to fail."""
    striker = _STRIKER.get()
    return striker is not None and striker.fails(point)
