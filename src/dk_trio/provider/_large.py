"""Replies of any number of parts, which must not stop the loop while they are made, nor be larger than a message."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from dk_trio.errors import ReplyTooLargeError
from dk_trio.pb._primitives import encode_varint

if TYPE_CHECKING:
    from dk_trio.pb import Message

M = TypeVar("M", bound="Message")

# The seeds' channel options: 100 MB in a message, on both sides.
MESSAGE_MAX: Final = 100 * 1024 * 1024


class Large:
    """A message that is made of parts, each of them serialised when it is added.

    Serialised messages of one type, one after the other, are the serialised message with all of their repeated fields:
    that is how protobuf merges.

    Args:
        what: What it holds, as an error names it.
        remedy: What to do when it is too large.
    """

    def __init__(self, what: str, remedy: str) -> None:
        self._what = what
        self._remedy = remedy
        self._parts: list[bytes] = []
        self._size = 0

    def __repr__(self) -> str:
        return f"<Large of {len(self._parts)} parts, {self._size} bytes>"

    def add(self, part: Message) -> int:
        """Add a part; how many bytes it has.

        Raises:
            ReplyTooLargeError: All parts together are more than a message.
        """
        return self.add_pieces([bytes(part)])

    def add_pieces(self, pieces: list[bytes]) -> int:
        """Add a part that is serialised; how many bytes it has.

        Raises:
            ReplyTooLargeError: All parts together are more than a message.
        """
        size = sum(map(len, pieces))
        if size > self.room:
            self._parts.clear()
            raise self.too_large()
        self._size += size
        self._parts += pieces
        return size

    @property
    def room(self) -> int:
        """Bytes that further parts may have."""
        return MESSAGE_MAX - self._size

    def too_large(self) -> ReplyTooLargeError:
        """The error for what has more bytes than a message."""
        return ReplyTooLargeError(
            f"{self._what} does not fit into the {MESSAGE_MAX} bytes of one message.", hint=self._remedy
        )

    def as_reply(self, reply_type: type[M]) -> M:
        """The message, for sending and for nothing else."""
        return cast("M", _Serialised(self._parts))


def field(number: int, pieces: list[bytes]) -> list[bytes]:
    """A field of a message: bytes, or a message that is serialised, in pieces that nobody has put together."""
    return [encode_varint(number << 3 | 2) + encode_varint(sum(map(len, pieces))), *pieces]


class _Serialised:
    """What a stream asks of a message that it sends."""

    def __init__(self, parts: list[bytes]) -> None:
        self._parts = parts

    def SerializeToString(self) -> Any:  # noqa: N802 - the name in google.protobuf
        data = b"".join(self._parts)
        self._parts.clear()
        return data
