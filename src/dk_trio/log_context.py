"""What a line of the log is about: the ids of the request and the job that a task works for.

Trio gives every task a copy of its parent's context, so what is bound around a job holds in all tasks of that job, in
what its author logs, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Final

_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})

CURRENT: Final[ContextVar[Mapping[str, str]]] = ContextVar("dk_trio_log_context", default=_NOTHING)
"""Ids by their short names (`request`, `trace`, `job`, `mission`, `setup`). Never changed, only replaced."""


MAX_ID: Final = 200
"""Characters of an id in a line: a caller has chosen it, and may have chosen millions."""


def of_job(job: str, mission: str, setup: str) -> dict[str, str]:
    """The ids of a job, as lines have them."""
    return {"job": job, "mission": mission[:MAX_ID], "setup": setup[:MAX_ID]}


@contextmanager
def bound(**ids: str) -> Iterator[None]:
    """Add ids, for the length of the block. Empty ones are left out."""
    token = CURRENT.set({**CURRENT.get(), **{name: value for name, value in ids.items() if value}})
    try:
        yield
    finally:
        CURRENT.reset(token)
