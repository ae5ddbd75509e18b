"""JSON objects in a google.protobuf.Struct, which has no integers: those that a double holds come back as they were."""

from __future__ import annotations

from math import copysign
from typing import Any, Final

from dk_trio.pb.google.protobuf import Struct

EXACT: Final = 2**53
"""Every integer up to this is a double, and comes back as what it was."""


class NotSendableError(ValueError):
    """What a Struct cannot hold.

    Attributes:
        path: Where it is: keys and indexes.
        rule: What is wrong with it.
    """

    def __init__(self, path: tuple[str | int, ...], rule: str) -> None:
        super().__init__(rule)
        self.path = path
        self.rule = rule


def to_struct(members: dict[str, Any]) -> Struct:
    """A JSON object as it is sent.

    Raises:
        NotSendableError: It holds an integer beyond 2^53, or is nested deeper than any peer reads.
    """
    _check(members, ())
    try:
        return Struct.parse(bytes(Struct.from_dict(members)))  # its bytes, which are made once
    except (TypeError, ValueError) as error:
        raise NotSendableError((), str(error)) from None


def _check(value: Any, path: tuple[str | int, ...]) -> None:
    kind = value.__class__
    if kind is int:
        if not -EXACT <= value <= EXACT:
            raise NotSendableError(path, f"{_shown(value)} is beyond 2^53, and would arrive as another number")
    elif kind is dict:
        for key, inner in value.items():
            if inner.__class__ in _DEEPER:
                _check(inner, (*path, key))
    elif kind is list:
        for index, inner in enumerate(value):
            if inner.__class__ in _DEEPER:
                _check(inner, (*path, index))


def _shown(value: int) -> str:
    try:
        return f"{value:.6g}"
    except OverflowError:
        return f"an integer of {value.bit_length()} bits"


_DEEPER: Final = frozenset({int, dict, list})


def from_struct(struct: Struct | None) -> dict[str, Any]:
    """The JSON object in a Struct; empty for None.

    Raises:
        DecodeError: Its bytes are none.
    """
    return {} if struct is None else {key: _read(value) for key, value in struct.to_dict().items()}


def _read(value: Any) -> Any:
    kind = value.__class__
    if kind is float:
        whole = value.is_integer() and -EXACT <= value <= EXACT and (value or copysign(1, value) > 0)
        return int(value) if whole else value
    if kind is dict:
        return {key: _read(inner) for key, inner in value.items()}
    if kind is list:
        return [_read(inner) for inner in value]
    return value
