"""Header compression for HTTP/2 (RFC 7541): one decoder and one encoder per connection, no I/O.

What a header field *means* (lower case, pseudo fields, values without control characters) is not decided here; this
module only turns blocks into fields and back, keeps the two dynamic tables right, and says when a block breaks
RFC 7541. From the ``hpack`` package come the static table and the Huffman automaton, nothing else.

Why not ``hpack`` itself: a gRPC peer repeats a handful of blocks, so what counts is to notice the repetition.

* The decoder says of each block whether it was *pure*: it neither inserted nor resized, so the same bytes mean the
  same fields for as long as ``generation`` keeps its value. The connection keeps results by their bytes.
* The encoder's table only grows. An entry that was sent once keeps its place, there is nothing to evict, and a block
  of indexed fields may be kept as bytes for as long as ``generation`` keeps its value. What does not fit is sent as
  a literal. When the peer allows less than what is used, the table starts anew, empty.
* The encoder never uses Huffman codes: in Python they cost more than the bytes they save.

Header bombs (a block of one-byte references to one large entry) are held off by ``max_list_bytes``: past it the
fields are counted but not kept, and the block is reported with ``headers=None``. Decoding still runs to the block's
end, because the table has to stay in step with the peer's for the sake of all other streams (RFC 9113 section 10.5.1).
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import NamedTuple

from hpack.exceptions import HPACKDecodingError
from hpack.huffman_table import decode_huffman
from hpack.table import HeaderTable

DEFAULT_TABLE_BYTES = 4096
"""SETTINGS_HEADER_TABLE_SIZE before anybody says otherwise (RFC 9113 section 6.5.2)."""

ENTRY_OVERHEAD = 32
"""Bytes that RFC 7541 section 4.1 adds to each entry, and RFC 9113 section 6.5.2 to each field of a list."""

SENSITIVE_NAMES = frozenset({b"authorization", b"proxy-authorization", b"cookie", b"set-cookie"})
"""Fields sent as never-indexed literals (RFC 7541 section 7.1.3), so that no proxy puts them into a shared table."""

_STATIC: tuple[tuple[str, str], ...] = (
    ("", ""),
    *((name.decode("ascii"), value.decode("ascii")) for name, value in HeaderTable.STATIC_TABLE),
)
_STATIC_COUNT = len(_STATIC) - 1
_STATIC_FIELD: dict[tuple[bytes, bytes], int] = {
    field: index for index, field in enumerate(HeaderTable.STATIC_TABLE, start=1)
}
_STATIC_NAME: dict[bytes, int] = {}
for _index, (_name, _) in enumerate(HeaderTable.STATIC_TABLE, start=1):
    _STATIC_NAME.setdefault(_name, _index)

_INTEGER_SHIFT_MAX = 28  # five continuation octets: what 32 bits need; the same bound as hpack and nghttp2
_SIZE_UPDATES_MAX = 2  # the lowest and the last of an interval, never more (section 4.2); gRPC's C core refuses a third
_HUFFMAN_KEPT = 256  # strings whose decoding is remembered, of at most ...
_HUFFMAN_KEPT_OCTETS = 64  # ... this many octets each: 16 KiB a connection


class HpackError(Exception):
    """A block cannot be decoded.

    The tables of the two ends may differ now, so the connection must end with COMPRESSION_ERROR (RFC 9113 section 4.3).
    """


class DecodedBlock(NamedTuple):
    """What one header block says."""

    headers: list[tuple[str, str]] | None
    """Fields in order of arrival, octets as Latin-1 text; None when the list is larger than ``max_list_bytes``."""
    pure: bool
    """The same bytes give the same result while ``Decoder.generation`` stands."""


class Decoder:
    """The receiving end of one direction of a connection.

    ``max_table_bytes`` is what our SETTINGS_HEADER_TABLE_SIZE allows the peer, ``max_list_bytes`` the largest list of
    fields that is kept, counted as in RFC 9113 section 6.5.2 (name and value octets and 32 for each field).
    """

    __slots__ = ("_huffman", "_limit", "_max", "_size", "_table", "generation", "max_list_bytes")

    def __init__(self, max_table_bytes: int = DEFAULT_TABLE_BYTES, max_list_bytes: int = 16384) -> None:
        self.max_list_bytes = max_list_bytes
        self.generation = 0
        self._table: list[tuple[str, str]] = []  # newest last, so that index 62 is [-1] and an insert is an append
        self._size = 0
        self._limit = max_table_bytes
        self._max = min(DEFAULT_TABLE_BYTES, max_table_bytes)
        self._huffman: dict[bytes, str] = {}

    def __repr__(self) -> str:
        return f"<hpack.Decoder {len(self._table)} entries, {self._size} of {self._max} bytes, limit {self._limit}>"

    @property
    def table_bytes(self) -> int:
        """Size of the dynamic table as RFC 7541 section 4.1 counts it."""
        return self._size

    def set_limit(self, max_table_bytes: int) -> None:
        """Allow the peer another table size; call it when the peer has acknowledged our SETTINGS.

        After a limit below the size in use, the next block must open with a size update (RFC 7541 section 4.2).
        """
        self._limit = max_table_bytes

    def decode(self, block: bytes) -> DecodedBlock:
        """Decode a whole header block (HEADERS and all its CONTINUATION, without padding).

        Raises HpackError when it is not valid RFC 7541; the decoder is useless after that.
        """
        try:
            return self._decode(block)
        except IndexError:
            # An octet behind the block's end, or an entry behind the table's: this keeps both checks out of the loop.
            raise HpackError("the block is truncated or refers to an entry that does not exist") from None
        except HPACKDecodingError as error:
            raise HpackError(f"bad Huffman coding: {error}") from None

    def _decode(self, block: bytes) -> DecodedBlock:
        pos = self._size_updates(block)
        headers: list[tuple[str, str]] = []
        table = self._table
        generation = self.generation
        pure = pos == 0
        room = self.max_list_bytes
        end = len(block)
        while pos < end:
            octet = block[pos]
            if octet & 128:  # indexed field (6.1)
                pos += 1
                index = octet & 127
                if index == 127:
                    index, pos = _integer(block, pos, 127)
                if index > _STATIC_COUNT:
                    field = table[_STATIC_COUNT - index]
                elif index:
                    field = _STATIC[index]
                else:
                    raise HpackError("an indexed field with index 0")
            else:
                inserts = octet & 64
                if inserts:  # literal with incremental indexing (6.2.1)
                    mask = 63
                elif octet & 32:  # size update (6.3), which belongs to the start of a block (4.2)
                    raise HpackError("a table size update behind a field")
                else:  # literal without indexing (6.2.2) or never indexed (6.2.3)
                    mask = 15
                pos += 1
                index = octet & mask
                if index == mask:
                    index, pos = _integer(block, pos, mask)
                if index > _STATIC_COUNT:
                    name = table[_STATIC_COUNT - index][0]
                elif index:
                    name = _STATIC[index][0]
                else:
                    name, pos = self._string(block, pos)
                value, pos = self._string(block, pos)
                field = (name, value)
                if inserts:
                    self._insert(field)
            room -= len(field[0]) + len(field[1]) + ENTRY_OVERHEAD
            if room >= 0:
                headers.append(field)
        pure = pure and generation == self.generation
        return DecodedBlock(headers if room >= 0 else None, pure)

    def _size_updates(self, block: bytes) -> int:
        """Obey the size updates that open a block; returns where its first field starts."""
        pos = count = 0
        while pos < len(block) and block[pos] & 0xE0 == 0x20:
            count += 1
            if count > _SIZE_UPDATES_MAX:
                raise HpackError("more than two table size updates in a block")
            size = block[pos] & 31
            pos += 1
            if size == 31:
                size, pos = _integer(block, pos, 31)
            if size > self._limit:
                raise HpackError(f"a table size update to {size}, the limit is {self._limit}")
            self._max = size
            self.generation += 1
            self._evict()
        if self._max > self._limit:
            raise HpackError(f"no table size update after the limit was lowered to {self._limit}")
        return pos

    def _string(self, block: bytes, pos: int) -> tuple[str, int]:
        octet = block[pos]
        length = octet & 127
        pos += 1
        if length == 127:
            length, pos = _integer(block, pos, 127)
        end = pos + length
        raw = block[pos:end]
        if len(raw) != length:
            raise HpackError(f"a string of {length} octets, {len(raw)} are there")
        if octet < 128:
            return raw.decode("latin-1"), end
        text = self._huffman.get(raw)
        if text is None:
            text = decode_huffman(raw).decode("latin-1")
            if length <= _HUFFMAN_KEPT_OCTETS:
                if len(self._huffman) >= _HUFFMAN_KEPT:
                    self._huffman.clear()
                self._huffman[raw] = text
        return text, end

    def _insert(self, field: tuple[str, str]) -> None:
        # An entry larger than the table empties it, which is no error (section 4.4): _evict does that by itself.
        self.generation += 1
        self._table.append(field)
        self._size += len(field[0]) + len(field[1]) + ENTRY_OVERHEAD
        if self._size > self._max:
            self._evict()

    def _evict(self) -> None:
        table = self._table
        gone = 0
        while self._size > self._max:
            name, value = table[gone]
            self._size -= len(name) + len(value) + ENTRY_OVERHEAD
            gone += 1
        del table[:gone]


class Encoder:
    """The sending end of one direction of a connection: a table that grows and never evicts.

    A block is ``begin()`` followed by fields, or what ``encode()`` returns. Blocks must be sent in the order in which
    they were made, whole, and each once: an indexed field changes the table of the peer.
    """

    __slots__ = ("_entries", "_lowest", "_max", "_size", "generation")

    def __init__(self) -> None:
        self.generation = 0
        """Changes when bytes made of indexed fields mean something else than before, or could now be shorter."""
        self._entries: dict[tuple[bytes, bytes], int] = {}  # field -> how many were inserted before it
        self._size = 0
        self._max = DEFAULT_TABLE_BYTES
        self._lowest: int | None = None  # the lowest size to announce at the next block's start, None: nothing

    def __repr__(self) -> str:
        return f"<hpack.Encoder {len(self._entries)} entries, {self._size} of {self._max} bytes>"

    @property
    def count(self) -> int:
        """Entries in the dynamic table."""
        return len(self._entries)

    def set_limit(self, max_table_bytes: int) -> None:
        """The peer's SETTINGS_HEADER_TABLE_SIZE; more than 4,096 bytes are never used."""
        limit = min(max_table_bytes, DEFAULT_TABLE_BYTES)
        if limit == self._max:
            return
        lowest = limit
        if limit < self._size:
            lowest = self._size = 0
            self._entries.clear()
        self._lowest = lowest if self._lowest is None else min(lowest, self._lowest)
        self._max = limit
        self.generation += 1

    def restart(self) -> None:
        """A block was made and never sent: the peer lacks what it inserted, so the next block empties both tables."""
        self._entries.clear()
        self._size = 0
        self._lowest = 0
        self.generation += 1

    def begin(self) -> bytes:
        """What must open the next block: size updates after ``set_limit`` (RFC 7541 section 4.2), else nothing."""
        lowest = self._lowest
        if lowest is None:
            return b""
        self._lowest = None
        update = _encode_integer(lowest, 31, 0x20)
        return update if lowest == self._max else update + _encode_integer(self._max, 31, 0x20)

    def field(self, name: bytes, value: bytes, *, index: bool = False, sensitive: bool = False) -> bytes:
        """One field, as short as the tables allow.

        ``index`` puts it into the dynamic table if there is room: for the few fields that come again in nearly every
        block. ``sensitive`` makes it a literal that nobody on the way may index, whatever the tables hold.
        """
        if sensitive:
            return _literal(name, value, 0x10, 15)
        field = (name, value)
        static = _STATIC_FIELD.get(field)
        if static is not None:
            return bytes((0x80 | static,))
        entries = self._entries
        position = entries.get(field)
        if position is not None:
            return _encode_integer(_STATIC_COUNT + len(entries) - position, 127, 0x80)
        if index:
            size = self._size + len(name) + len(value) + ENTRY_OVERHEAD
            if size <= self._max:
                entries[field] = len(entries)
                self._size = size
                self.generation += 1
                return _literal(name, value, 0x40, 63)
        return _literal(name, value, 0, 15)

    def encode(
        self,
        fields: Iterable[tuple[bytes, bytes]],
        *,
        index: Container[bytes] = frozenset(),
        sensitive: Container[bytes] = SENSITIVE_NAMES,
    ) -> bytes:
        """A whole block; ``index`` and ``sensitive`` hold the names to which those flags of ``field`` apply."""
        block = [self.begin()]
        field = self.field
        block += [field(name, value, index=name in index, sensitive=name in sensitive) for name, value in fields]
        return b"".join(block)


def _integer(block: bytes, pos: int, value: int) -> tuple[int, int]:
    """The continuation of an integer whose prefix is full (RFC 7541 section 5.1); returns it and where it ends."""
    shift = 0
    while True:
        octet = block[pos]
        pos += 1
        value += (octet & 127) << shift
        if octet < 128:
            return value, pos
        shift += 7
        if shift > _INTEGER_SHIFT_MAX:
            raise HpackError("an integer of more than five continuation octets")


def _encode_integer(value: int, mask: int, pattern: int) -> bytes:
    if value < mask:
        return bytes((pattern | value,))
    out = bytearray((pattern | mask,))
    value -= mask
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def _literal(name: bytes, value: bytes, pattern: int, mask: int) -> bytes:
    index = _STATIC_NAME.get(name)
    head = (
        bytes((pattern,)) + _encode_integer(len(name), 127, 0) + name
        if index is None
        else _encode_integer(index, mask, pattern)
    )
    return head + _encode_integer(len(value), 127, 0) + value
