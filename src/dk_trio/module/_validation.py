"""A pydantic error as one paragraph: which field, what is wrong, what was given."""

from __future__ import annotations

from pydantic import ValidationError

_SHOWN = 5  # errors in one message
_VALUE_LENGTH = 60  # characters of a refused value


def explain(error: ValidationError) -> str:
    """All errors as `field.path: reason (got value)`, separated by semicolons."""
    errors = error.errors(include_url=False, include_context=False)
    parts = []
    for row in errors[:_SHOWN]:
        path = ".".join(str(step) for step in row["loc"]) or "value"
        reason = row["msg"][:1].lower() + row["msg"][1:]
        if row["type"] == "missing":
            parts.append(f"{path}: {reason}")
            continue
        value = repr(row["input"])
        if len(value) > _VALUE_LENGTH:
            value = value[: _VALUE_LENGTH - 3] + "..."
        parts.append(f"{path}: {reason} (got {value})")
    more = len(errors) - _SHOWN
    return "; ".join(parts) + (f"; and {more} more" if more > 0 else "")
