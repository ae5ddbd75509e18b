"""A pydantic error for people and for programs: which field, what is wrong, what was given."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from dk_trio.errors import Violation

_SHOWN = 5  # errors in one message
_VALUE_LENGTH = 60  # characters of a refused value

Row = Mapping[str, Any]
"""One error as pydantic tells it: `loc`, `msg`, `type`, `input`."""


def rows_of(error: ValidationError) -> list[Row]:
    """The errors without what is only for pydantic's own messages."""
    return list(error.errors(include_url=False, include_context=False))


def rows_of_root(error: ValidationError, root: Any, kinds: Iterable[type[BaseModel]]) -> list[Row]:
    """The errors of an input as its caller knows it: without the types of a union that are not meant.

    Pydantic tells what is wrong with each type of a union, under a path that has the type's name in it. Of these types
    the protocol has chosen some; of those, the one with the fewest errors is meant.

    Args:
        error: Of the whole input.
        root: What was given as root.
        kinds: The types that a root of this protocol may have.
    """
    rows = rows_of(error)
    around = [row for row in rows if row["loc"][:1] != ("root",)]
    attempts = []
    for kind in kinds:
        try:
            kind.model_validate(root)
        except ValidationError as own:
            attempts.append([{**row, "loc": ("root", *row["loc"])} for row in rows_of(own)])
        else:
            return around or rows  # its root is right, or something around the type refuses it
    return [*min(attempts, key=len), *around] if attempts else rows


def explain(error: ValidationError | Iterable[Row], *, values: bool = True) -> str:
    """All errors as `field.path: reason (got value)`, separated by semicolons.

    Args:
        error: Or its rows.
        values: Whether refused values are shown.
    """
    rows = rows_of(error) if isinstance(error, ValidationError) else list(error)
    parts = [f"{_path(row) or 'value'}: {_reason(row, values=values)}" for row in rows[:_SHOWN]]
    more = len(rows) - _SHOWN
    return "; ".join(parts) + (f"; and {more} more" if more > 0 else "")


def violations_of(
    error: ValidationError | Iterable[Row], prefix: str = "", *, values: bool = True
) -> tuple[Violation, ...]:
    """One violation for each error.

    Args:
        error: Or its rows.
        prefix: Path of what was validated from the root of what the caller sent, such as `input`.
        values: Whether refused values are shown.
    """
    rows = rows_of(error) if isinstance(error, ValidationError) else error
    return tuple(Violation(".".join(filter(None, (prefix, _path(row)))), _reason(row, values=values)) for row in rows)


def _path(row: Row) -> str:
    return ".".join(str(step) for step in row["loc"])


def _reason(row: Row, *, values: bool) -> str:
    message = row["msg"]
    reason = f"{message[:1].lower()}{message[1:]}"
    if row["type"] == "missing" or not values:
        return reason
    given = row["input"]
    # The values of an object are not shown: one of them is wrong, another may be a secret.
    value = f"an object with {', '.join(map(str, given)) or 'no fields'}" if isinstance(given, dict) else repr(given)
    if len(value) > _VALUE_LENGTH:
        value = value[: _VALUE_LENGTH - 3] + "..."
    return f"{reason} (got {value})"
