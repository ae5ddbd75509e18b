"""A span for each call of a job's service: a stand-in for its strategy, which is made only while there are spans."""

from __future__ import annotations

from functools import wraps
from inspect import iscoroutinefunction
from typing import Any, Final

from opentelemetry.trace import StatusCode, Tracer

from dk_trio.errors import DkTrioError

# What the server does with a strategy, and not its job.
_QUIET: Final = frozenset({"check_health", "close"})


def wrapped(tracer: Tracer, service: str, strategy: object) -> object:
    """The strategy, whose methods that are awaited have a span each.

    Methods that give a context manager or an iterator are what they were: their calls have spans of their own.
    """
    return _Spanned(tracer, service, strategy)


class _Spanned:
    __slots__ = ("_of",)

    def __init__(self, tracer: Tracer, service: str, strategy: object) -> None:
        object.__setattr__(self, "_of", (tracer, service, strategy))

    @property  # type: ignore[misc]
    def __class__(self) -> type:  # for whoever asks with isinstance
        return type(self._of[2])

    def __getattr__(self, name: str) -> Any:
        tracer, service, strategy = self._of
        value = getattr(strategy, name)
        if name.startswith("_") or name in _QUIET or not iscoroutinefunction(value):
            return value
        return _spanned(tracer, service, name, value)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self._of[2], name, value)

    def __repr__(self) -> str:
        return repr(self._of[2])


def _spanned(tracer: Tracer, service: str, method: str, call: Any) -> Any:
    attributes = {"dk_trio.service": service, "dk_trio.service.method": method}

    @wraps(call)
    async def spanned(*args: Any, **kwargs: Any) -> Any:
        with tracer.start_as_current_span(
            f"{service}.{method}", attributes=attributes, record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                return await call(*args, **kwargs)
            except Exception as error:  # boundary: a service may be the author's; its failure is told and goes on
                told = error if isinstance(error, DkTrioError) else None
                span.set_attribute("error.type", type(error).__qualname__ if told is None else told.code)
                span.set_status(StatusCode.ERROR, None if told is None else told.text)
                raise

    return spanned
