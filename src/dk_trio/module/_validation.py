"""A pydantic error for people and for programs: which field, what is wrong, what was given."""

from __future__ import annotations

import itertools
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from dk_trio.errors import Violation
from dk_trio.services.field_path import field_path

_SHOWN = 5  # errors in one message
_VIOLATIONS = 10  # errors told to programs: they travel in the trailers, of which callers take 8 KiB
_PLACED = (
    100  # errors whose place is looked for: a list may have a million that are wrong, and the rest are only counted
)
_TEXT_LENGTH = 120  # characters of a path or a reason: keys and an author's message may be of any length

_EXACT = 2**53  # up to here a double holds every integer
# What pydantic puts before the text of an exception of an author's validator.
_AUTHORS = {"value_error": "Value error, ", "assertion_error": "Assertion failed, "}

_brief = reprlib.Repr()
_brief.maxstring = _brief.maxother = _brief.maxlong = 60

Row = Mapping[str, Any]
"""One error as pydantic tells it: `loc`, `msg`, `type`, `input`."""


def rows_of(error: ValidationError, data: Any) -> list[Row]:
    """The errors without what is only for pydantic's own messages, each at its place in `data`, which was refused.

    Pydantic's own path has a step for each type of a union, which whoever sent the data cannot follow.
    """
    rows: list[Row] = [*error.errors(include_url=False, include_context=False)]
    for at, row in enumerate(rows[:_PLACED]):
        rows[at] = {**row, "loc": _place(row["loc"], row["input"], data, missing=row["type"] == "missing")}
    return rows


def _place(loc: tuple[str | int, ...], found: Any, data: Any, *, missing: bool) -> tuple[str | int, ...]:
    """The steps of `loc` that lead through `data` to what was found; all of them when they lead elsewhere.

    That is so where an author's validator has put another value in place of the one that was sent.
    """
    place: list[str | int] = []
    for step in loc[:-1] if missing else loc:
        inside = step in data if isinstance(data, dict) else isinstance(data, list) and step in range(len(data))
        if inside:
            data = data[step]
            place.append(step)
    if data is not found:
        return loc
    return (*place, *loc[-1:]) if missing else tuple(place)


def rows_of_root(error: ValidationError, data: Mapping[str, Any], kinds: Iterable[type[BaseModel]]) -> list[Row]:
    """The errors of an input as its caller knows it: without the types of a union that are not meant.

    Pydantic tells what is wrong with each type of a union, under a path that has the type's name in it. Of these types
    the protocol has chosen some; of those, the one with the fewest errors is meant.

    Args:
        error: Of the whole input.
        data: The input, with its `root`.
        kinds: The types that a root of this protocol may have.
    """
    rows = rows_of(error, data)
    around = [row for row in rows if row["loc"][:1] != ("root",)]
    attempts = []
    root = data["root"]
    for kind in kinds:
        try:
            kind.model_validate(root)
        except ValidationError as own:
            attempts.append(own)
        else:
            return around or rows  # its root is right, or something around the type refuses it
    if not attempts:
        return rows
    meant = rows_of(min(attempts, key=ValidationError.error_count), root)
    for at, row in enumerate(meant[:_PLACED]):
        meant[at] = {**row, "loc": ("root", *row["loc"])}
    return [*meant, *around]


def explain(rows: Sequence[Row], prefix: str = "", *, values: bool = True) -> str:
    """All errors as `field.path: reason (got value)`, separated by semicolons.

    Args:
        rows: The errors.
        prefix: Of each path.
        values: Whether refused values are shown.
    """
    parts = [": ".join(filter(None, (_path(row, prefix), _reason(row, values=values)))) for row in rows[:_SHOWN]]
    more = len(rows) - _SHOWN
    return "; ".join(parts) + (f"; and {more} more" if more > 0 else "")


def violations_of(rows: Iterable[Row], prefix: str = "", *, values: bool = True) -> tuple[Violation, ...]:
    """One violation for each error, of the first ten.

    Args:
        rows: The errors.
        prefix: Path of what was validated from the root of what the caller sent, such as `input`.
        values: Whether refused values are shown.
    """
    return tuple(
        Violation(_path(row, prefix), _reason(row, values=values)) for row in itertools.islice(rows, _VIOLATIONS)
    )


def _path(row: Row, prefix: str) -> str:
    return _cut(field_path(prefix, *row["loc"]))


def _reason(row: Row, *, values: bool) -> str:
    words = _AUTHORS.get(row["type"])
    if words is not None:
        reason = _cut(row["msg"].removeprefix(words))
    else:
        message = _cut(row["msg"])
        reason = f"{message[:1].lower()}{message[1:]}"
    if row["type"] == "missing" or not values:
        return reason
    return f"{reason} (got {brief(row['input'])})"


def brief(value: Any) -> str:
    """A refused value in a few words. Of objects and lists no values: one of them is wrong, another may be a secret."""
    if isinstance(value, dict):
        return _cut(f"an object with {', '.join(map(str, itertools.islice(value, 10))) or 'no fields'}")
    if isinstance(value, (list, tuple, set)):
        return f"a list of {len(value)}"
    if isinstance(value, float) and value.is_integer() and abs(value) <= _EXACT:
        return str(int(value))  # what was sent as 3 arrives as 3.0: a Struct has no integers
    return _brief.repr(value)


def _cut(text: str) -> str:
    return text if len(text) <= _TEXT_LENGTH else text[: _TEXT_LENGTH - 3] + "..."
