"""What the codec needs to know of a message class, read once from betterproto2's field metadata.

A `Field` says how one field looks on the wire and which Python classes stand behind it. Everything that encodes,
decodes or checks goes by these, so that no other module looks into betterproto2's internals.
"""

from __future__ import annotations

import dataclasses
import inspect
import sys
import typing
from typing import Any

import betterproto2

__all__ = ["FIXED_FORMATS", "PACKABLE", "VARINTS", "Field", "fields_of", "wire_type"]

# Scalars by their form on the wire.
VARINTS = frozenset({"int32", "int64", "uint32", "uint64", "sint32", "sint64", "bool", "enum"})
FIXED_FORMATS = {"double": "d", "float": "f", "fixed32": "I", "fixed64": "Q", "sfixed32": "i", "sfixed64": "q"}
PACKABLE = VARINTS | FIXED_FORMATS.keys()
_EIGHT_BYTES = frozenset({"double", "fixed64", "sfixed64"})


def wire_type(kind: str) -> int:
    """The wire type of a single value of a protobuf type: 0 varint, 1 eight bytes, 2 length-delimited, 5 four bytes."""
    if kind in VARINTS:
        return 0
    if kind in FIXED_FORMATS:
        return 1 if kind in _EIGHT_BYTES else 5
    return 2


@dataclasses.dataclass(frozen=True, slots=True)
class Field:
    """One field of a message.

    Attributes:
        name: the Python attribute.
        number: the field number.
        kind: protobuf type: ``"string"``, ``"sint32"``, ``"enum"``, ``"message"``, ``"map"``, ...
        repeated: a list of `kind`.
        presence: None stands for "not set", and any other value is sent even when it is the type's default.
        oneof: name of the oneof the field is a member of; an ``optional`` field may be the only member of one.
        cls: the message or enum class, else None.
        wrapper: the message class on the wire when Python sees something simpler (Timestamp for datetime), else None.
        key, value: for maps, the two fields of an entry.
    """

    name: str
    number: int
    kind: str
    repeated: bool = False
    presence: bool = False
    oneof: str | None = None
    cls: Any = None
    wrapper: Any = None
    key: Field | None = None
    value: Field | None = None

    @property
    def message(self) -> Any:
        """The message class on the wire, or None."""
        return self.wrapper or self.cls if self.kind == "message" else None


def fields_of(cls: type[Any]) -> tuple[Field, ...]:
    """The fields of a betterproto2 message class, in the order of their numbers."""
    hints = _hints(cls)
    found = [_field(entry.name, betterproto2.FieldMetadata.get(entry), hints) for entry in dataclasses.fields(cls)]
    return tuple(sorted(found, key=lambda field: field.number))


def _field(name: str, meta: betterproto2.FieldMetadata, hints: dict[str, Any]) -> Field:
    if meta.map_meta is not None:
        entry_key, entry_value = meta.map_meta
        value_cls = typing.get_args(hints[name])[1]
        return Field(
            name,
            meta.number,
            "map",
            key=Field("key", 1, entry_key.proto_type),
            value=_typed("value", entry_value, value_cls),
        )
    kind = hints[name]
    if typing.get_origin(kind) is not None:
        # The X of a list of X, or of X or None.
        kind = typing.get_args(kind)[0]
    return _typed(name, meta, kind)


def _typed(name: str, meta: betterproto2.FieldMetadata, cls: Any) -> Field:
    kind = meta.proto_type
    return Field(
        name,
        meta.number,
        kind,
        repeated=bool(meta.repeated),
        presence=bool(meta.optional or meta.group or (kind == "message" and not meta.repeated)),
        oneof=meta.group,
        cls=cls if kind in {"message", "enum"} else None,
        wrapper=meta.unwrap() if meta.unwrap else None,
    )


def _hints(cls: type[Any]) -> dict[str, Any]:
    """The types of all fields. Each class's annotations are read in its own module, so subclasses may live anywhere.

    ``typing.get_type_hints`` looks names up in the class as well, where a field called ``list`` hides the type.
    """
    hints: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        if "__dataclass_fields__" not in base.__dict__:
            continue
        names = vars(sys.modules[base.__module__])
        for name, annotation in inspect.get_annotations(base).items():
            if isinstance(annotation, str):
                # Text that betterproto2's plugin wrote, in committed code.
                hints[name] = eval(annotation, names, {})  # noqa: S307
            else:
                hints[name] = annotation
    return hints
