"""Fields whose schema is asked for when the schema is: the marker, and how its fetchers are run.

The values are advice to whoever fills in the form; nothing validates against them (reference, 2.8).
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import trio
from pydantic_core import to_jsonable_python

from dk_trio.boundary import contained
from dk_trio.errors import ModuleDefinitionError
from dk_trio.module._subschemas import is_json

if TYPE_CHECKING:
    from pydantic import GetJsonSchemaHandler
    from pydantic.fields import FieldInfo
    from pydantic_core import CoreSchema

Fetcher: TypeAlias = Callable[[], Any]
"""Takes nothing and returns a value, or an awaitable of it."""

DEFAULT_FETCH_TIMEOUT: Final = 10.0  # seconds for one fetcher: as long as a person waits for a form
MARK: Final = "x-dynamic"

_marking: ContextVar[bool] = ContextVar("dk_trio_marking", default=False)

_LISTS: Final = frozenset({"enum", "examples", "required"})
_TEXTS: Final = frozenset({"title", "description", "pattern", "format"})
_NUMBERS: Final = frozenset("minimum maximum exclusiveMinimum exclusiveMaximum multipleOf".split())
_SIZES: Final = frozenset("minLength maxLength minItems maxItems minProperties maxProperties".split())


@dataclass(frozen=True)
class ResolveResult:
    """What fetchers have brought, key by key.

    Attributes:
        values: Of the fetchers that succeeded.
        errors: Of the others; TimeoutError for one that did not answer in time.
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    errors: Mapping[str, BaseException] = field(default_factory=dict)

    @property
    def success(self) -> bool:
        """Whether every fetcher has succeeded."""
        return not self.errors

    @property
    def partial(self) -> bool:
        """Whether some have succeeded and some have not."""
        return bool(self.values) and bool(self.errors)

    def get(self, key: str, default: Any = None) -> Any:
        """The value of one key, or `default` when its fetcher failed or does not exist."""
        return self.values.get(key, default)


class Dynamic:
    """Marks a field whose schema keywords are fetched whenever the schema is asked for.

        model: Annotated[str, Dynamic(enum=list_models)] = "small"
        items: list[Annotated[str, Dynamic({"enum": names, "ui:options": options}, fresh_for=60)]] = []

    A value takes the place of what the field's schema says otherwise. When a fetcher fails, that keyword stays as it
    is, and `x-dynamic-errors` beside it says why. An `enum` at a list means its items; at an optional field it allows
    null as well.

    A fetcher that is a plain function runs in a worker thread, since it may block; when its time is over its thread is
    left to itself. A virtual clock does not wait for threads: under one, write fetchers as `async def`, or say
    `in_thread=False`.

    Args:
        fetchers: By keyword of the schema, for keywords that are no Python names.
        timeout: Seconds for each fetcher; None: what the server says, DIGITALKIN_FETCH_TIMEOUT.
        fresh_for: Seconds for which fetched values may be used again. Failures are never kept.
        in_thread: Whether plain functions run in worker threads; False for those that only compute.
        named_fetchers: By keyword of the schema.

    Raises:
        ModuleDefinitionError: There is no fetcher, or one cannot be called.
    """

    __slots__ = ("fetchers", "fresh_for", "in_thread", "timeout")

    def __init__(
        self,
        fetchers: Mapping[str, Fetcher] | None = None,
        /,
        *,
        timeout: float | None = None,
        fresh_for: float = 0.0,
        in_thread: bool = True,
        **named_fetchers: Fetcher,
    ) -> None:
        self.fetchers: Mapping[str, Fetcher] = {**(fetchers or {}), **named_fetchers}
        self.timeout = timeout
        self.fresh_for = fresh_for
        self.in_thread = in_thread
        if not self.fetchers:
            raise ModuleDefinitionError("Dynamic() has no fetcher.", hint="Give one by keyword: Dynamic(enum=fetch).")
        for key, fetcher in dict[str, Any](self.fetchers).items():
            if not callable(fetcher):
                if inspect.iscoroutine(fetcher):
                    fetcher.close()  # otherwise it complains that it was never awaited
                raise ModuleDefinitionError(
                    f"Dynamic({key}=...) was given {fetcher!r:.80}, which cannot be called.",
                    hint=f"Give the function itself, not its result: Dynamic({key}=fetch).",
                )
        for name, seconds in (("timeout", timeout), ("fresh_for", fresh_for)):
            if seconds is not None and not seconds >= 0:
                raise ModuleDefinitionError(f"Dynamic({name}={seconds!r}) is no number of seconds.")

    def __repr__(self) -> str:
        return f"Dynamic({', '.join(self.fetchers)})"

    def __get_pydantic_json_schema__(self, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        schema = handler(core_schema)
        if _marking.get():
            schema[MARK] = (*schema.get(MARK, ()), self)
        return schema

    async def resolve(self, timeout: float, limiter: trio.CapacityLimiter | None = None) -> ResolveResult:
        """Run the fetchers; what they bring is checked to be JSON that can stand at its keyword.

        Args:
            timeout: Seconds for each fetcher, where the marker says none.
            limiter: Of the worker threads.

        Raises:
            trio.Cancelled: A surrounding scope was cancelled.
        """
        if self.timeout is not None:
            timeout = self.timeout
        found = await resolve_safe(self.fetchers, timeout, in_thread=self.in_thread, limiter=limiter)
        values, errors = {}, dict(found.errors)
        for key, value in found.values.items():
            try:
                values[key] = _vetted(key, to_jsonable_python(value))
            except Exception as error:  # noqa: BLE001  boundary: an object that fails when it is dumped is the author's, too
                errors[key] = error
        return ResolveResult(values, errors)


DynamicField = Dynamic


async def resolve(
    fetchers: Mapping[str, Fetcher],
    timeout: float | None = None,
    *,
    in_thread: bool = True,
    limiter: trio.CapacityLimiter | None = None,
) -> dict[str, Any]:
    """Run fetchers in parallel; the first that fails ends the others.

    Args:
        fetchers: By key.
        timeout: Seconds for each; None waits for ever.
        in_thread: Whether plain functions run in worker threads.
        limiter: Of these threads; None: Trio's own.

    Raises:
        TimeoutError: One did not answer in time.
        BaseException: What the first one that failed has raised.
        trio.Cancelled: A surrounding scope was cancelled.
    """
    found = await _run(fetchers, timeout, in_thread, limiter, stop_at_first=True)
    for error in found.errors.values():
        raise error
    return dict(found.values)


async def resolve_safe(
    fetchers: Mapping[str, Fetcher],
    timeout: float | None = None,
    *,
    in_thread: bool = True,
    limiter: trio.CapacityLimiter | None = None,
) -> ResolveResult:
    """Run fetchers in parallel; one that fails harms no other.

    Args:
        fetchers: By key.
        timeout: Seconds for each; None waits for ever.
        in_thread: Whether plain functions run in worker threads.
        limiter: Of these threads; None: Trio's own.

    Raises:
        trio.Cancelled: A surrounding scope was cancelled.
    """
    return await _run(fetchers, timeout, in_thread, limiter, stop_at_first=False)


async def _run(
    fetchers: Mapping[str, Fetcher],
    timeout: float | None,
    in_thread: bool,
    limiter: trio.CapacityLimiter | None,
    *,
    stop_at_first: bool,
) -> ResolveResult:
    values: dict[str, Any] = {}
    errors: dict[str, BaseException] = {}

    async def fetch(key: str, fetcher: Fetcher) -> None:
        async def call() -> None:
            values[key] = await _call(fetcher, in_thread, limiter)

        with trio.move_on_after(math.inf if timeout is None else timeout) as scope:
            failure = await contained(call, name=f"fetcher of {key}")
            if failure is not None:
                errors[key] = failure
                values.pop(key, None)
        if scope.cancelled_caught:
            errors[key] = TimeoutError(f"no answer within {timeout:g} s")
        if stop_at_first and errors:
            nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for key, fetcher in fetchers.items():
            nursery.start_soon(fetch, key, fetcher)
    return ResolveResult({key: values[key] for key in fetchers if key in values}, errors)


async def _call(fetcher: Fetcher, in_thread: bool, limiter: trio.CapacityLimiter | None) -> Any:
    if in_thread and not _is_async(fetcher):
        result = await trio.to_thread.run_sync(fetcher, abandon_on_cancel=True, limiter=limiter)
    else:
        result = fetcher()
    return await result if inspect.isawaitable(result) else result


def _is_async(fetcher: Fetcher) -> bool:
    return inspect.iscoroutinefunction(fetcher) or inspect.iscoroutinefunction(getattr(fetcher, "__call__", None))  # noqa: B004


def _vetted(key: str, value: Any) -> Any:
    """The value, if a schema with it is still a schema; a form with a broken one would not be shown at all."""
    if key in _LISTS:
        if not isinstance(value, list):
            raise TypeError(f"the fetcher returned {value!r:.60}, and {key} is a list")
        if key == "enum":
            value = _distinct(value)
            if not value:
                raise ValueError("the fetcher returned no values, and an empty enum allows none")
    elif key in _TEXTS and not isinstance(value, str):
        raise TypeError(f"the fetcher returned {value!r:.60}, and {key} is text")
    elif key in _NUMBERS | _SIZES:
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        if not number or (key in _SIZES and (value < 0 or value != int(value))) or (key == "multipleOf" and value <= 0):
            raise TypeError(f"the fetcher returned {value!r:.60}, which cannot be a {key}")
    if not is_json(value):
        raise ValueError(f"the fetcher returned {value!r:.60}, and JSON has no such numbers")
    return value


def _distinct(values: Iterable[Any]) -> list[Any]:
    """Without repetitions, which some validators refuse in an enum. 1 and True are two values in JSON."""
    kept: list[Any] = []
    for value in values:
        if not any(value == other and isinstance(value, bool) is isinstance(other, bool) for other in kept):
            kept.append(value)
    return kept


def get_dynamic_metadata(field_info: FieldInfo) -> Dynamic | None:
    """The `Dynamic` of a field, or None."""
    return next((item for item in field_info.metadata if isinstance(item, Dynamic)), None)


def has_dynamic(field_info: FieldInfo) -> bool:
    """Whether a field is `Dynamic`."""
    return get_dynamic_metadata(field_info) is not None


def get_fetchers(field_info: FieldInfo) -> dict[str, Fetcher]:
    """The fetchers of a field by keyword; empty when it is not `Dynamic`."""
    dynamic = get_dynamic_metadata(field_info)
    return dict(dynamic.fetchers) if dynamic is not None else {}


@contextmanager
def marking() -> Iterator[None]:
    """In this block, JSON schemas hold their `Dynamic` markers, in a tuple at the key `MARK`."""
    token = _marking.set(True)
    try:
        yield
    finally:
        _marking.reset(token)
