"""Random google.protobuf messages from a seed, and random damage to their bytes.

Hypothesis draws the seeds. Drawing each field with it would be twenty times slower, and what shrinking would give, a
small message, the seed's ``size`` gives too.
"""

from __future__ import annotations

import math
import random
import struct

EDGES = {
    "int32": (0, 1, -1, 127, 128, 2**31 - 1, -(2**31)),
    "int64": (0, 1, -1, 127, 128, 2**63 - 1, -(2**63)),
    "uint32": (0, 1, 127, 128, 2**32 - 1),
    "uint64": (0, 1, 127, 128, 2**64 - 1),
}
TEXTS = ("", "a", "héllo", "日本語", "\0", "𝄞", "missions:1", "x" * 127, "y" * 128, "z" * 300)


class Maker:
    """Fills messages; the same seed makes the same message."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def fill(self, message, depth: int = 0):
        name = message.DESCRIPTOR.full_name
        chance = self.random.choice((0.2, 0.6, 0.95))
        if name == "google.protobuf.Timestamp":
            message.seconds = self.random.choice((0, 1, -1, -62135596800, 253402300799, self.random.randrange(2**33)))
            message.nanos = self.random.choice((0, 1, 1000, 999, 123456789, 999999999))
            return message
        if name == "google.protobuf.Duration":
            sign = self.random.choice((1, -1))
            message.seconds = sign * self.random.choice((0, 1, 59, 315576000000, self.random.randrange(2**33)))
            message.nanos = sign * self.random.choice((0, 1, 1000, 123456789, 999999999))
            return message
        if name == "google.protobuf.Value":
            kinds = ["null_value", "number_value", "string_value", "bool_value"]
            if depth < 4:
                kinds += ["struct_value", "list_value"]
            self.set_one(message, message.DESCRIPTOR.fields_by_name[self.random.choice(kinds)], depth)
            return message
        for field in message.DESCRIPTOR.fields:
            oneof = field.containing_oneof
            if oneof is not None and len(oneof.fields) > 1 and message.WhichOneof(oneof.name):
                continue
            if self.random.random() > chance or (depth > 2 and field.message_type and not field.is_repeated):
                continue
            self.set(message, field, depth)
        return message

    def set(self, message, field, depth):
        if not field.is_repeated:
            self.set_one(message, field, depth)
            return
        count = self.random.choice((0, 1, 2, 5)) if depth < 3 else 1
        target = getattr(message, field.name)
        entry = field.message_type
        if entry is not None and entry.GetOptions().map_entry:
            key, value = entry.fields_by_name["key"], entry.fields_by_name["value"]
            for _ in range(count):
                k = self.scalar(key)
                if value.message_type is not None:
                    self.fill(target[k], depth + 1)
                else:
                    target[k] = self.scalar(value)
        elif entry is not None:
            if depth < 4:
                for _ in range(count):
                    self.fill(target.add(), depth + 1)
        else:
            target.extend(self.scalar(field) for _ in range(count))

    def set_one(self, message, field, depth):
        if field.message_type is not None:
            inner = getattr(message, field.name)
            inner.SetInParent()
            self.fill(inner, depth + 1)
        else:
            setattr(message, field.name, self.scalar(field))

    def scalar(self, field):
        kind = _KINDS[field.type]
        pick = self.random.choice
        if kind == "string":
            return pick(TEXTS)
        if kind == "bytes":
            return pick((b"", b"\0", b"\xff\xfe", self.random.randbytes(self.random.choice((3, 127, 128, 200)))))
        if kind == "bool":
            return pick((True, False))
        if kind == "double":
            return pick((0.0, -0.0, 1.0, -2.5, math.nan, math.inf, 5e-324, self.random.random()))
        if kind == "float":
            value = pick((0.0, -0.0, 1.5, math.inf, -math.inf, math.nan, 1e-45))
            return struct.unpack("<f", struct.pack("<f", value))[0]
        if kind == "enum":
            if field.enum_type.full_name == "google.protobuf.NullValue":
                return 0
            return pick([*(value.number for value in field.enum_type.values), 99, -7, 2**31 - 1])
        low, high = (EDGES[kind][-1] if kind[0] == "i" else 0), EDGES[kind][-2 if kind[0] == "i" else -1]
        return pick((*EDGES[kind], self.random.randint(low, high)))

    def damage(self, data: bytes) -> bytes:
        """Bytes that are nearly a message."""
        out = bytearray(data)
        for _ in range(self.random.choice((1, 1, 2, 4))):
            what = self.random.randrange(7)
            at = self.random.randrange(len(out) + 1)
            if what == 0 and out:
                out[at % len(out)] = self.random.choice((0, 1, 10, 127, 128, 255, self.random.randrange(256)))
            elif what == 1:
                del out[at : at + self.random.choice((1, 2, 9))]
            elif what == 2:
                out[at:at] = self.random.randbytes(self.random.choice((1, 2, 5)))
            elif what == 3:
                out = out[:at]
            elif what == 4 and out:
                out[at % len(out)] ^= 1 << self.random.randrange(8)
            elif what == 5:
                out[at:at] = self.field()
            else:
                start = self.random.randrange(len(out) + 1)
                out += out[start : start + self.random.choice((2, 5, 40))]
        return bytes(out)

    def field(self) -> bytes:
        """A whole field of any number and wire type."""
        number = self.random.choice((1, 2, 3, 4, 5, 8, 15, 16, 17, 100, 2**29 - 1))
        return self.random.choice(
            (
                varint(number << 3) + varint(self.random.choice((0, 1, 300, 2**32, 2**63, 2**64 - 1))),
                varint(number << 3 | 1) + self.random.randbytes(8),
                varint(number << 3 | 5) + self.random.randbytes(4),
                varint(number << 3 | 2) + b"\x00",
                varint(number << 3 | 2) + b"\x04\x0a\x02ab",
                varint(number << 3 | 3) + b"\x08\x05" + varint(number << 3 | 4),
                varint(number << 3 | 3) + varint(number + 1 << 3 | 4),
            )
        )


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


_KINDS = {
    1: "double", 2: "float", 3: "int64", 4: "uint64", 5: "int32", 6: "uint64", 7: "uint32", 8: "bool", 9: "string",
    12: "bytes", 13: "uint32", 14: "enum", 15: "int32", 16: "int64", 17: "int32", 18: "int64",
}  # fmt: skip
