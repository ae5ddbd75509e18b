"""What every setup service checks before it stores or sends something. Each function raises `SetupServiceError`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from dk_trio import chance
from dk_trio.errors import SetupNotFoundError, SetupServiceError, Violation

from .setup import PAGE_MAX, VERSION_PREFIX, SetupStatus, SetupVersionData

_OFFSET_MAX: Final = 2**31 - 1  # an int32 on the wire


def not_found(what: str, field: str, key: str) -> SetupNotFoundError:
    """The error for an id under which nothing is stored."""
    rule = f"no {what} with the id {key!r} is stored"
    return SetupNotFoundError(
        f"N{rule[1:]}.",
        hint="See list_setups() for those that are, or create it.",
        violations=[Violation(field, rule)],
    )


def _refused(field: str, rule: str, value: object) -> SetupServiceError:
    shown = repr(value)
    shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
    return SetupServiceError(f"{field} {rule}, not {shown}.", violations=[Violation(field, f"{rule}, not {shown}")])


def checked_text(field: str, value: Any, *, empty: bool = False) -> str:
    """A text, if it can be sent."""
    try:
        if isinstance(value, str) and (value or empty) and value.encode() is not None:
            if "\x00" not in value:
                return value
            raise _refused(field, "must have no NUL character", value)
    except UnicodeEncodeError:
        pass
    raise _refused(field, "must be a text" if empty else "must be a text that is not empty", value)


def checked_text_or_none(field: str, value: Any) -> str | None:
    """A text, which may be empty, or None."""
    return None if value is None else checked_text(field, value, empty=True)


def checked_id(field: str, key_of: Callable[[str], str], value: Any) -> str:
    """The id without its prefix."""
    key = key_of(checked_text(field, value))
    if not key:
        raise _refused(field, "must have more than its prefix", value)
    return key


def checked_status(status: SetupStatus | str) -> SetupStatus:
    """A status by its name."""
    try:
        return SetupStatus(status)
    except ValueError:
        raise _refused("status", f"must be one of {', '.join(SetupStatus)}", status) from None


def check_page(limit: Any, offset: Any) -> None:
    """Refuse a page that cannot be asked for."""
    if not isinstance(limit, int) or not 1 <= limit <= PAGE_MAX:
        raise _refused("limit", f"must be a number from 1 to {PAGE_MAX}", limit)
    if not isinstance(offset, int) or not 0 <= offset <= _OFFSET_MAX:
        raise _refused("offset", f"must be a number from 0 to {_OFFSET_MAX}", offset)


def checked_json(content: Any) -> str:
    """A content as JSON text."""
    if not isinstance(content, Mapping):
        raise _refused("content", "must be a dict of JSON values", content)
    try:
        return json.dumps(dict(content), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        rule = f"must be a dict of JSON values: {error}"
        raise SetupServiceError(f"content {rule}.", violations=[Violation("content", rule)]) from None


def new_version(setup_id: str, version: str, content: Any, key: str = "") -> SetupVersionData:
    """A version that is to be stored, with an id of its own unless `key` is one."""
    return SetupVersionData(
        id=VERSION_PREFIX + (key or chance.new_uuid().hex),
        setup_id=setup_id,
        version=checked_text("version", version),
        content=json.loads(checked_json(content)),  # shares nothing with what the caller may still change
        creation_date=chance.utc_now(),
    )
