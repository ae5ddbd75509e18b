"""google.protobuf.Struct as a class around a plain dict.

The generated class would hold a Value message for each member. Authors want dicts, and so this class holds either the
bytes that were received or the dict, and turns the one into the other on demand:

- Parsing a message leaves a Struct inside of it as bytes, unread. The first access turns them into a dict; bytes that
  are not a Struct raise `DecodeError` then, and not before. Checking them beforehand would cost nearly what reading
  them does, and a message that is only passed on needs neither.
- Serialising sends the bytes as they came if nobody has looked inside, and otherwise the dict. So unknown fields inside
  of a Struct survive exactly as long as it is not looked into.

``Struct.from_dict(d)`` keeps `d` and ``to_dict()`` gives the very dict that is inside: neither copies.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, cast, final

import betterproto2

from ._check import explain
from ._codec import FAULTS, Codec
from ._message import Message
from ._struct_decode import decode_struct
from ._struct_encode import encode_struct

if TYPE_CHECKING:
    from .google.protobuf import Value

__all__ = ["Struct"]


@final
@dataclass(eq=False, repr=False, init=False)
class Struct(Message):
    """A JSON object.

    Values are ``dict`` with ``str`` keys, ``list``, ``str``, ``bool``, ``int``, ``float`` and ``None``. Numbers arrive
    as ``float``, whatever they were sent as; the order of keys is not kept by every peer.

    Args:
        fields: members as Value messages, as in the generated class; `from_dict` is the usual way.
    """

    fields: dict[str, Value] = betterproto2.field(
        1, betterproto2.TYPE_MAP, map_meta=betterproto2.map_meta(betterproto2.TYPE_STRING, betterproto2.TYPE_MESSAGE)
    )

    def __init__(self, fields: dict[str, Value] | None = None) -> None:
        # Either what was received (a bytearray when the field came in several pieces) or the dict; and how many
        # messages were around it, as the bound on nesting is that of the outermost message.
        self._raw: bytes | bytearray | None = None
        self._members: dict[str, Any] | None
        self._members = {key: value.to_dict() for key, value in fields.items()} if fields else {}
        self._depth = 0

    def __init_subclass__(cls, **arguments: Any) -> None:
        raise TypeError("Struct cannot be subclassed: parsing makes Structs")

    @classmethod
    def from_dict(cls, value: Any, *, ignore_unknown_fields: bool = False) -> Self:  # noqa: ARG003
        """A Struct around `value` itself, which is read when the message is serialised and not before.

        Raises:
            TypeError: `value` is not a dict. What is inside is looked at when the message is serialised.
        """
        if not isinstance(value, dict):
            raise TypeError(f"a Struct is made from a dict, not {type(value).__name__}")
        made = object.__new__(cls)
        made._raw = None
        made._members = value
        made._depth = 0
        return made

    def to_dict(
        self,
        *,
        output_format: Any = betterproto2.OutputFormat.PROTO_JSON,
        casing: Any = betterproto2.Casing.CAMEL,
        include_default_values: bool = False,
    ) -> dict[str, Any]:
        """The dict inside, not a copy of it; the arguments have no meaning for a Struct.

        Raises:
            DecodeError: the received bytes are not a Struct.
        """
        members = self._members
        if members is None:
            members = self._members = self._read()
            self._raw = None
        return members

    def read(self) -> dict[str, Any]:
        """A dict of what is inside. What was received stays the bytes that came, for whoever sends them on.

        Raises:
            DecodeError: the received bytes are not a Struct.
        """
        members = self._members
        return self._read() if members is None else dict(members)

    def _read(self) -> dict[str, Any]:
        raw = bytes(self._raw or b"")
        members: dict[str, Any] = {}
        try:
            decode_struct(raw, 0, len(raw), self._depth, members)
        except FAULTS as fault:
            raise explain(Struct, raw, fault, depth=self._depth) from None
        return members

    @property
    def _unknown_fields(self) -> bytes:  # type: ignore[override]
        # Part of the bytes until they are read, then gone.
        return b""

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        return _same(self.to_dict(), other.to_dict())

    __hash__ = None  # type: ignore[assignment]

    def __bool__(self) -> bool:
        return bool(self.to_dict())

    def __repr__(self) -> str:
        if self._members is None:
            return f"Struct(<{len(self._raw or b'')} bytes, not read yet>)"
        return f"Struct({self._members!r})"

    def is_set(self, name: str) -> bool:
        """Whether the Struct has members, for the one field it has."""
        if name != "fields":
            raise AttributeError(name)
        return bool(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), self._raw, self._members, self._depth)

    def __copy__(self, _: Any = None) -> Self:
        members = None if self._members is None else dict(self._members)
        return cast("Self", _restore(type(self), _frozen(self._raw), members, self._depth))

    def __deepcopy__(self, memo: Any = None) -> Self:
        members = copy.deepcopy(self._members, memo)
        return cast("Self", _restore(type(self), _frozen(self._raw), members, self._depth))


def _fields(self: Struct) -> dict[str, Value]:
    """The members as Value messages, made anew at each access; changing them changes nothing in the Struct."""
    from .google.protobuf import Value

    return {key: Value.from_dict(value) for key, value in self.to_dict().items()}


def _frozen(raw: bytes | bytearray | None) -> bytes | None:
    return None if raw is None else bytes(raw)


def _restore(cls: type[Any], raw: bytes | bytearray | None, members: dict[str, Any] | None, depth: int) -> Any:
    made = object.__new__(cls)
    made._raw = raw
    made._members = members
    made._depth = depth
    return made


def _encode(message: Struct) -> bytes:
    members = message._members
    return bytes(message._raw or b"") if members is None else encode_struct(members)


def _decode(data: bytes, position: int, end: int, depth: int, into: Struct | None) -> Struct:
    if into is None:
        made: Struct = object.__new__(Struct)
        made._raw = data[position:end]
        made._members = None
        made._depth = depth
        return made
    # The field occurs again. Pieces one after the other are the merged message, and extending a bytearray is linear
    # however many pieces a peer sends.
    raw = into._raw
    if raw.__class__ is not bytearray:
        into._raw = raw = bytearray(_encode(into))
        into._members = None
    raw += data[position:end]
    return into


def _parse(data: bytes) -> Struct:
    if data.__class__ is not bytes:
        data = bytes(memoryview(data))
    return _decode(data, 0, len(data), 0, None)


def _same(one: Any, other: Any) -> bool:
    """Equality as on the wire: 1 is 1.0 but not True, and NaN is NaN."""
    if isinstance(one, dict):
        return (
            isinstance(other, dict)
            and one.keys() == other.keys()
            and all(_same(value, other[key]) for key, value in one.items())
        )
    if isinstance(one, list):
        return isinstance(other, list) and len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, float) and isinstance(other, float) and math.isnan(one):
        return math.isnan(other)
    return bool(one == other)


# The dataclass decorator has read the declaration of the field, whose place the property takes. The class says that it
# lives where the generated one did: pickles, type hints and documentation look there.
Struct.fields = property(_fields)  # type: ignore[assignment]
Struct.__module__ = "dk_trio.pb.google.protobuf"
Struct._dk_trio_codec = Codec(_encode, _decode, _parse)  # type: ignore[attr-defined]
