"""Codecs compiled for each message class.

Theory of operation. betterproto2 interprets its field metadata again for each field of each message, and that is where
its time goes. Here two functions are written for a class when it is first used, as source text, with everything that
the metadata says worked into them: the tags are constants, the branches are only those the class has, and values are
handed on in local variables. ``encode(message)`` gives bytes; ``decode(data, position, end, depth, into)`` parses the
message between two positions, without cutting it out, so that an offset is always one into what was received.

What keeps `decode` short and still safe:

- A step past the end of the data is an ``IndexError``. A step past the end of a message inside of the data is noticed
  by one comparison when its loop is done. Lengths are compared at once, as slicing would not notice.
- `decode` says only *that* the data is bad. Which field, and where, is found by reading the data once more with the
  plain interpreter in ``_check``, which costs nothing as long as peers are sane.
- `into` is an object to merge into: a singular message field that occurs again is merged with what came before, as
  protobuf demands. It makes the work linear in the size of the data whatever a peer sends; joining the occurrences and
  parsing them together would not be.
- Unknown fields are kept as they came, in order, behind the known ones when the message is sent on. That includes a
  map entry with unknown fields inside, as in google.protobuf, and a known field with another wire type.

Messages are created without calling ``__init__``: a parsed message has all of its fields anyway, and warnings about
deprecated fields are for the code that sets them, not for the code that receives them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ._check import explain
from ._encode_errors import explain_encoding
from ._primitives import Malformed
from ._write_decoder import Nested, decoder_source
from ._write_encoder import encoder_source

__all__ = ["FAULTS", "Codec", "codec_of"]

# decode(data, position, end, depth, message to merge into or None) -> message
Decode = Callable[[bytes, int, int, int, Any], Any]

# What decoding bad bytes runs into.
FAULTS = (Malformed, IndexError, UnicodeDecodeError, struct.error)


@dataclass(frozen=True, slots=True)
class Codec:
    """The compiled functions of one message class.

    Attributes:
        encode: message to bytes.
        decode: see the module's docstring; raises the internal errors.
        parse: bytes to message; raises `DecodeError`.
        source: what was compiled, for the curious.
    """

    encode: Callable[[Any], bytes]
    decode: Decode
    parse: Callable[[bytes], Any]
    source: str = ""

    def merge(self, data: bytes, into: Any) -> Any:
        """Parse into an existing message, as if its own bytes stood in front; on an error its state is undefined."""
        try:
            return self.decode(data, 0, len(data), 0, into)
        except FAULTS as fault:
            raise explain(type(into), data, fault) from None


def codec_of(cls: type[Any]) -> Codec:
    """The codec of a message class, compiled on the first call."""
    codec: Codec | None = cls.__dict__.get("_dk_trio_codec")
    if codec is None:
        codec = _compile(cls)
        cls._dk_trio_codec = codec
    return codec


def _late(names: dict[str, Any], name: str, cls: type[Any]) -> Decode:
    """A decoder that compiles the real one when it is first called and puts it in its own place.

    Message classes may refer to each other in circles, and most of them are never used by one process.
    """

    def first(data: bytes, position: int, end: int, depth: int, into: Any) -> Any:
        decode = names[name] = codec_of(cls).decode
        return decode(data, position, end, depth, into)

    return first


def _compile(cls: type[Any]) -> Codec:
    names: dict[str, Any] = {"cls": cls, "new": object.__new__, "explain_encoding": explain_encoding}
    source = encoder_source(cls, names) + decoder_source(cls, names)
    for name, value in list(names.items()):
        if isinstance(value, Nested):
            names[name] = _late(names, name, value.cls)
    # The text is made of field names and numbers of generated classes; nothing a peer sends gets into it.
    exec(compile(source, f"<codec of {cls.__module__}.{cls.__qualname__}>", "exec"), names)  # noqa: S102
    decode: Decode = names["decode"]

    def parse(data: bytes) -> Any:
        if data.__class__ is not bytes:
            data = bytes(memoryview(data))
        try:
            return decode(data, 0, len(data), 0, None)
        except FAULTS as fault:
            raise explain(cls, data, fault) from None

    return Codec(names["encode"], decode, parse, source)
