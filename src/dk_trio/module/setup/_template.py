"""A schema with its `Dynamic` markers still in it, and what becomes of it when their values are there.

The markers are found in the JSON schema and not by walking types: whatever pydantic can make a schema of (nested
models, unions, containers, dataclasses, recursion) has its fetchers called, and a field that a clean model has dropped
has not.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

import trio
from pydantic import BaseModel
from pydantic.errors import PydanticUserError

from dk_trio.boundary import explain_failure
from dk_trio.errors import ModuleDefinitionError
from dk_trio.module._subschemas import Schema, children, with_children, without_infinities

from ._dynamic import DEFAULT_FETCH_TIMEOUT, MARK, Dynamic, ResolveResult, marking

_log = logging.getLogger("dk_trio.module")

_CAUSE_LENGTH = 300  # characters of a fetcher's error in a schema
_THREADS = 4  # of one field: a provider that hangs keeps no more than these, and never all that there are


@dataclass(frozen=True)
class Template:
    """A JSON schema whose fetched values are still missing.

    Attributes:
        schema: Where there are markers, with a tuple of them at the key `MARK`.
        markers: Each with the path of its first field, for logs.
    """

    schema: Schema
    markers: Mapping[Dynamic, str]

    def filled(self, results: Mapping[Dynamic, ResolveResult]) -> Schema:
        """The schema with these values, and with `x-dynamic-errors` where a fetcher failed."""
        return fill(self.schema, results) if self.markers else self.schema


def template_of(model: type[BaseModel]) -> Template:
    """The template of a model.

    Raises:
        ModuleDefinitionError: A field has no JSON schema.
    """
    with marking():
        schema = json_schema(model)
    markers: dict[Dynamic, str] = {}
    _collect(schema, "", markers)
    return Template(schema, markers)


def json_schema(
    model: type[BaseModel], *, mode: Literal["validation", "serialization"] = "validation", by_alias: bool = True
) -> Schema:
    """The JSON schema of a model.

    Raises:
        ModuleDefinitionError: A field has none, or the models are nested too deep.
    """
    try:
        return without_infinities(model.model_json_schema(by_alias=by_alias, mode=mode))
    except PydanticUserError as error:
        raise ModuleDefinitionError(
            f"{model.__name__} has no JSON schema: {error.message}",
            hint="Give the field another type, or a `WithJsonSchema(...)` in its Annotated.",
        ) from error
    except RecursionError:
        raise ModuleDefinitionError(
            f"{model.__name__} has no JSON schema: its models are nested too deep.",
            hint="Hold what is deep as a list, or as a dict of JSON values.",
        ) from None


def _collect(schema: Schema, path: str, markers: dict[Dynamic, str]) -> None:
    for marker in schema.get(MARK, ()):
        markers.setdefault(marker, path or "(the whole schema)")
    for (keyword, *name), child in children(schema):
        steps = [path, *name] if keyword in {"properties", "$defs"} else [path]
        _collect(child, ".".join(filter(None, steps)), markers)


def fill(schema: Schema, results: Mapping[Dynamic, ResolveResult]) -> Schema:
    """A copy of a marked schema with values in place of markers. Markers without a result are dropped."""
    filled = with_children(schema, lambda child: fill(child, results))
    errors: dict[str, str] = {}
    for marker in filled.pop(MARK, ()):
        result = results.get(marker, ResolveResult())
        for key, value in result.values.items():
            _put(filled, key, value)
        errors |= {key: explain_failure(error)[:_CAUSE_LENGTH] for key, error in result.errors.items()}
    if errors:
        filled["x-dynamic-errors"] = errors
    return filled


def _put(schema: Schema, key: str, value: Any) -> None:
    """Set a keyword, an enum where it can be met: at the items of a list, and beside null where null is allowed."""
    if key != "enum":
        schema[key] = value
        return
    variants = schema.get("anyOf", ())
    others = [item for item in variants if item.get("type") != "null"]
    if schema.get("type") == "array" and isinstance(schema.get("items"), dict):
        if not any(isinstance(item, list) for item in value):
            _put(schema["items"], key, value)
            return
    elif len(others) == 1 and others[0].get("type") == "array":
        _put(others[0], key, value)
        return
    schema[key] = [*value, None] if len(others) < len(variants) and None not in value else value


class Fetches:
    """Fetched values, as long as they are fresh. One owner, such as a server; without one, nothing is kept.

    Args:
        timeout: Seconds for one fetcher, where its field says none.
        threads: Limits the threads of all fetchers; None: each field has a limit of its own, and no more.
    """

    def __init__(self, timeout: float = DEFAULT_FETCH_TIMEOUT, threads: trio.CapacityLimiter | None = None) -> None:
        self._timeout = timeout
        self._threads = threads
        self._kept: dict[Dynamic, tuple[ResolveResult, float]] = {}
        self._limiters: dict[Dynamic, trio.CapacityLimiter] = {}

    def __repr__(self) -> str:
        return f"<Fetches, {len(self._kept)} kept>"

    async def of(self, template: Template) -> tuple[dict[Dynamic, ResolveResult], float]:
        """The values of a template: those still fresh, the others fetched in parallel. What fails is logged.

        Returns:
            The values, and until when on Trio's clock all of them may be used again: `math.inf` without fetchers.

        Raises:
            trio.Cancelled: A surrounding scope was cancelled.
        """
        results: dict[Dynamic, ResolveResult] = {}
        until: dict[Dynamic, float] = {}

        async def fetch(marker: Dynamic, path: str) -> None:
            began = trio.current_time()
            result = results[marker] = await marker.resolve(self._timeout, self._limiter(marker))
            until[marker] = began + marker.fresh_for if result.success else began
            if until[marker] > trio.current_time():
                self._kept[marker] = (result, until[marker])
            for key, error in result.errors.items():
                _log.warning("field %s: the fetcher of %s failed: %s", path, key, explain_failure(error))

        async with trio.open_nursery() as nursery:
            for marker, path in template.markers.items():
                kept = self._kept.pop(marker, None)
                if kept is not None and kept[1] > trio.current_time():
                    self._kept[marker] = kept
                    results[marker], until[marker] = kept
                else:
                    nursery.start_soon(fetch, marker, path)
        return results, min(until.values(), default=math.inf)

    def _limiter(self, marker: Dynamic) -> trio.CapacityLimiter:
        threads = self._threads
        most = _THREADS if threads is None else max(1, min(_THREADS, int(threads.total_tokens) - 1))
        own = self._limiters.setdefault(marker, trio.CapacityLimiter(most))
        # `run_sync` asks a limiter for these two methods alone, and CapacityLimiter cannot be derived from.
        return own if threads is None else cast("trio.CapacityLimiter", _Both(own, threads))


class _Both:
    """Two limiters as one. A thread that was left to itself has both until it ends."""

    def __init__(self, own: trio.CapacityLimiter, shared: trio.CapacityLimiter) -> None:
        self._own = own
        self._shared = shared

    async def acquire_on_behalf_of(self, borrower: object) -> None:
        await self._own.acquire_on_behalf_of(borrower)
        try:
            await self._shared.acquire_on_behalf_of(borrower)
        except BaseException:
            self._own.release_on_behalf_of(borrower)
            raise

    def release_on_behalf_of(self, borrower: object) -> None:
        self._shared.release_on_behalf_of(borrower)
        self._own.release_on_behalf_of(borrower)
