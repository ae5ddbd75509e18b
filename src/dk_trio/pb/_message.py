"""The base class of every generated message: betterproto2's, with the compiled codec.

A class gets its codec when a message of it is first parsed or serialised. The four methods that lead to the codec are
then replaced, on that class, by the compiled functions themselves. Subclasses start again with these methods here, as
what was compiled for their parent would make messages of the parent's class.
"""

from __future__ import annotations

import copy
from typing import IO, Any, Self, TypeVar, cast

import betterproto2

from ._codec import codec_of
from ._primitives import encode_varint, read_varint

__all__ = ["Message", "accelerate"]

# What `accelerate` and `__init_subclass__` put on a class.
_CODEC_METHODS = ("FromString", "parse", "SerializeToString", "__bytes__")

MessageT = TypeVar("MessageT", bound=type[betterproto2.Message])


class Message(betterproto2.Message):
    """A protobuf message.

    Unknown fields that were received are kept and sent on. Two messages are equal when they are of one class and their
    known fields are.

    Nested messages may be mutated freely; the bytes are made at the time of the call.
    """

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        for name in _CODEC_METHODS:
            if name not in cls.__dict__:
                setattr(cls, name, Message.__dict__[name])

    @classmethod
    def FromString(cls, s: bytes) -> Self:  # noqa: N802  protobuf's name
        """Parse a serialised message.

        Raises:
            DecodeError: the bytes are not one.
        """
        _install(cls)
        return cast("Self", codec_of(cls).parse(s))

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse a serialised message.

        Raises:
            DecodeError: the bytes are not one.
        """
        _install(cls)
        return cast("Self", codec_of(cls).parse(data))

    def SerializeToString(self) -> bytes:  # noqa: N802  protobuf's name
        """The serialised message, fields in the order of their numbers, then the unknown ones.

        Raises:
            TypeError: a field has a value of the wrong type.
            ValueError: a number is out of its field's range, or a text has no UTF-8.
        """
        _install(type(self))
        return codec_of(type(self)).encode(self)

    def __bytes__(self) -> bytes:
        _install(type(self))
        return codec_of(type(self)).encode(self)

    def load(self, stream: IO[bytes], size: int | None = None) -> Self:  # type: ignore[override]
        """Merge a serialised message from a binary stream into this one.

        Args:
            stream: what to read from.
            size: bytes to read; None reads to the end; ``betterproto2.SIZE_DELIMITED`` reads the size first, as a
                varint.

        Raises:
            DecodeError: the bytes are no such message; this one may have been changed in part.
            EOFError: the stream ends before `size` bytes.
        """
        if size == betterproto2.SIZE_DELIMITED:
            size = _read_delimiter(stream)
        data = stream.read() if size is None else stream.read(size)
        if size is not None and len(data) < size:
            raise EOFError(f"expected {size} bytes of {type(self).__name__}, the stream ended after {len(data)}")
        codec_of(type(self)).merge(data, self)
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return _parse, (type(self), self.SerializeToString())

    def __copy__(self, _: Any = None) -> Self:
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)
        return twin

    def __deepcopy__(self, memo: Any = None) -> Self:
        twin = object.__new__(type(self))
        twin.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return twin


# betterproto2 evaluates the annotations of every base class; those of this one are not fields.
Message.__annotations__ = {}


def accelerate(cls: MessageT) -> MessageT:
    """Give a message class that betterproto2 generated elsewhere the compiled codec; usable as a class decorator.

    Classes generated into ``dk_trio.pb`` have it already.
    """
    _install(cls)
    return cls


def _install(cls: type[Any]) -> None:
    codec = codec_of(cls)
    cls.FromString = cls.parse = staticmethod(codec.parse)
    cls.SerializeToString = cls.__bytes__ = codec.encode


def _parse(cls: type[Message], data: bytes) -> Message:
    return cls.FromString(data)


def _read_delimiter(stream: IO[bytes]) -> int:
    head = b""
    while not head or head[-1] > 127:
        byte = stream.read(1)
        if not byte:
            raise EOFError("the stream ended in the size of a message")
        head += byte
        if len(head) > len(encode_varint(-1)):
            raise ValueError(f"no size of a message: {head.hex()}")
    return read_varint(head, 0)[0]
