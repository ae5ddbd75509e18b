"""What our codec is known to change in a message, done to google.protobuf's copy of it, so that the two compare.

These are all the differences there are:

- Timestamp and Duration become datetime and timedelta: denormalised values come out normalised, values beyond what
  Python can hold are refused, unknown fields inside are dropped. The wrapper messages drop unknown fields too.
- Once a Struct has been looked into, unknown fields inside of it are gone, and a Value without content or with an
  unknown null is a null.
- A signalling NaN of 32 bits becomes a quiet one: Python's float has 64 bits, and the conversion does that.
"""

from __future__ import annotations

WRAPPERS = {
    f"google.protobuf.{name}Value"
    for name in ("Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes")
}
TIMES = {"google.protobuf.Timestamp", "google.protobuf.Duration"}
FIRST, LAST = -62135596800, 253402300800
LONGEST = 86400 * 999999999


class OutOfRange(Exception):
    """A time that Python cannot hold."""


def canonical(message, *, looked_into: bool, top: bool = True):
    """Change `message` in place; raises OutOfRange when our codec refuses it."""
    name = message.DESCRIPTOR.full_name
    if name in TIMES and not top:
        message.DiscardUnknownFields()
        _normalise(message, name)
        return message
    if name in WRAPPERS and not top:
        message.DiscardUnknownFields()
    if name == "google.protobuf.Struct":
        if looked_into:
            message.DiscardUnknownFields()
            _plain(message)
        return message
    for field, value in message.ListFields():
        if field.message_type is None:
            if field.type == field.TYPE_FLOAT:
                _quiet(message, field, value)
            continue
        if field.is_repeated and field.message_type.GetOptions().map_entry:
            inner = field.message_type.fields_by_name["value"]
            if inner.type == inner.TYPE_FLOAT:
                for key in list(value):
                    value[key] = float(value[key])
            if inner.message_type is not None:
                for inner in value.values():
                    canonical(inner, looked_into=looked_into, top=False)
        elif field.is_repeated:
            for inner in value:
                canonical(inner, looked_into=looked_into, top=False)
        else:
            canonical(value, looked_into=looked_into, top=False)
    return message


def _quiet(message, field, value) -> None:
    if field.is_repeated:
        value[:] = list(value)
    else:
        setattr(message, field.name, value)


def _normalise(message, name: str) -> None:
    total = message.seconds * 10**9 + message.nanos
    if name.endswith("Timestamp"):
        if not FIRST * 10**9 <= total < LAST * 10**9:
            raise OutOfRange(total)
        message.seconds, message.nanos = divmod(total, 10**9)
        return
    if not -LONGEST * 10**9 <= total < (LONGEST + 86400) * 10**9:
        raise OutOfRange(total)
    sign = -1 if total < 0 else 1
    seconds, nanos = divmod(abs(total), 10**9)
    message.seconds, message.nanos = sign * seconds, sign * nanos


def _plain(struct) -> None:
    for value in struct.fields.values():
        _plain_value(value)


def _plain_value(value) -> None:
    kind = value.WhichOneof("kind")
    if kind in {None, "null_value"}:
        value.null_value = 0
    elif kind == "struct_value":
        _plain(value.struct_value)
    elif kind == "list_value":
        for inner in value.list_value.values:
            _plain_value(inner)
