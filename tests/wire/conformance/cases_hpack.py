"""RFC 7541 through a whole connection: every way to say a field, every way to say it wrong."""

import hpack

from .case import Answered, Case, ConnectionFails, case
from .raw import (
    COMPRESSION_ERROR,
    END,
    END_STREAM,
    HEADER_TABLE_SIZE,
    Fields,
    block,
    data,
    headers,
    integer,
    literal,
    message,
    request,
    settings,
)

FAILS = ConnectionFails((COMPRESSION_ERROR,))
GOOD = block(request())
BODY = data(1, message(), END_STREAM)


def coded(fields: Fields, pattern: int = 0) -> bytes:
    return b"".join(literal(name, value, pattern) for name, value in fields)


def huffman(*blocks: Fields) -> list[bytes]:
    """Blocks of one connection as the hpack package makes them."""
    encoder = hpack.Encoder()
    return [encoder.encode(fields, huffman=True) for fields in blocks]


HUFFMAN = huffman(request(), request())
INDEXED_TAIL = literal(":path", "/test.Echo/Say") + coded(request()[3:])  # behind ":method: POST, :scheme: http"

CASES: list[Case] = [
    # -- section 6: representations
    case(
        "rfc7541-6.1/indexed",
        "fields of the static table",
        headers(1, b"\x83\x86" + INDEXED_TAIL) + BODY,
        then=Answered(),
    ),
    case("rfc7541-6.1/index-0", "index 0 is not used", headers(1, GOOD + b"\x80"), then=FAILS),
    case(
        "rfc7541-6.1/index-behind-static",
        "an empty dynamic table has no entry 62",
        headers(1, GOOD + b"\xbe"),
        then=FAILS,
    ),
    case(
        "rfc7541-6.1/index-behind-dynamic",
        "one entry has no entry 63",
        headers(1, coded(request()) + literal("x", "y", 0x40) + b"\xbf"),
        then=FAILS,
    ),
    case(
        "rfc7541-6.1/index-huge", "an index of 32 bits", headers(1, GOOD + integer((1 << 32) - 1, 7, 0x80)), then=FAILS
    ),
    case(
        "rfc7541-6.2.1/incremental",
        "literals with incremental indexing",
        headers(1, coded(request(), 0x40)) + BODY,
        then=Answered(),
    ),
    case(
        "rfc7541-6.2.1/indexed-name",
        "names by index, static and dynamic",
        headers(
            1, b"\x83\x86\x44\x0e/test.Echo/Say" + coded(request()[3:]) + literal("x-first", "1", 0x40) + b"\x7e\x012"
        )
        + BODY,
        then=Answered(),
    ),
    case(
        "rfc7541-6.2.1/used-by-the-next-block",
        "the next block refers to it",
        headers(1, coded(request(), 0x40))
        + BODY
        + headers(3, bytes(range(0xC3, 0xBD, -1)))
        + data(3, message(), END_STREAM),
        then=Answered(3),
    ),
    case(
        "rfc7541-6.2.2/without-indexing",
        "literals without indexing",
        headers(1, coded(request(), 0)) + BODY,
        then=Answered(),
    ),
    case(
        "rfc7541-6.2.2/name-behind-table",
        "a name by an index that is not there",
        headers(1, GOOD + b"\x0f\x2f\x01x"),
        then=FAILS,
    ),
    case(
        "rfc7541-6.2.3/never-indexed",
        "literals never indexed",
        headers(1, coded(request(), 0x10)) + BODY,
        then=Answered(),
    ),
    case(
        "rfc7541-6.2.3/never-indexed-name",
        "... their names by index",
        headers(1, b"\x83\x86\x14\x0e/test.Echo/Say" + coded(request()[3:])) + BODY,
        then=Answered(),
    ),
    case("rfc7541-5.2/huffman", "strings in Huffman coding", headers(1, HUFFMAN[0]) + BODY, then=Answered()),
    case(
        "rfc7541-5.2/huffman-and-tables",
        "... and the second time from the table",
        headers(1, HUFFMAN[0]) + BODY + headers(3, HUFFMAN[1]) + data(3, message(), END_STREAM),
        then=Answered(3),
    ),
    case(
        "rfc7541-5.2/empty-huffman",
        "an empty string in Huffman coding",
        headers(1, GOOD + b"\x00\x01x\x80") + BODY,
        then=Answered(),
    ),
    # -- section 6.3 and 4.2: table size updates
    case("rfc7541-6.3/at-start", "a smaller table", headers(1, b"\x20" + GOOD) + BODY, then=Answered()),
    case(
        "rfc7541-6.3/twice", "the lowest and the last", headers(1, b"\x20\x3f\xe1\x1f" + GOOD) + BODY, then=Answered()
    ),
    case("rfc7541-6.3/to-4096", "exactly the limit", headers(1, b"\x3f\xe1\x1f" + GOOD) + BODY, then=Answered()),
    case(
        "rfc7541-6.3/over-the-limit",
        "one more than SETTINGS_HEADER_TABLE_SIZE",
        headers(1, b"\x3f\xe2\x1f" + GOOD),
        then=FAILS,
    ),
    case("rfc7541-6.3/far-over", "... or 2^31", headers(1, integer(1 << 31, 5, 0x20) + GOOD), then=FAILS),
    case(
        "rfc7541-6.3/their-settings-are-not-ours",
        "the client's own SETTINGS do not raise what it may use",
        settings((HEADER_TABLE_SIZE, 65_536)) + headers(1, b"\x3f\xe2\x1f" + GOOD),
        then=FAILS,
    ),
    case("rfc7541-4.2/at-end", "an update behind the last field", headers(1, GOOD + b"\x20"), then=FAILS),
    case("rfc7541-4.2/between", "an update between fields", headers(1, b"\x83\x20\x86" + INDEXED_TAIL), then=FAILS),
    case("rfc7541-4.2/thrice", "three updates are one too many", headers(1, b"\x20\x21\x22" + GOOD), then=FAILS),
    case(
        "rfc7541-4.2/in-trailers",
        "trailers are a block of their own",
        headers(1, request()) + data(1, message()) + headers(1, b"\x20" + block([("x", "y")]), END),
        then=Answered(),
    ),
    # -- section 4.3, 4.4: eviction
    case(
        "rfc7541-4.3/evicted-by-update",
        "an update to 0 empties the table",
        headers(1, coded(request(), 0x40)) + BODY + headers(3, b"\x20\xbe"),
        then=FAILS,
    ),
    case(
        "rfc7541-4.4/evicted-by-size",
        "an entry larger than the table empties it, and is no error",
        headers(1, b"\x3f\x21" + GOOD + literal("x", "1", 0x40) + literal("y", "2" * 64, 0x40)) + BODY,
        then=Answered(),
    ),
    case(
        "rfc7541-4.4/evicted-is-gone",
        "... so nothing is there",
        headers(1, b"\x3f\x21" + GOOD + literal("x", "1", 0x40) + literal("y", "2" * 64, 0x40) + b"\xbe"),
        then=FAILS,
    ),
    case(
        "rfc7541-4.4/oldest-first",
        "the oldest entry goes first",
        headers(
            1,
            b"\x3f\x2d"
            + GOOD
            + literal("x", "1", 0x40)
            + literal("y", "2", 0x40)
            + literal("z", "3", 0x40)
            + b"\xbf\xc0",
        ),
        then=FAILS,
    ),
    # -- section 5: primitives
    case(
        "rfc7541-5.1/long-integer",
        "an integer that never ends",
        headers(1, GOOD + b"\xff" + b"\x80" * 10 + b"\x01"),
        then=FAILS,
    ),
    case("rfc7541-5.1/truncated-integer", "an integer without its end", headers(1, GOOD + b"\xff\x80"), then=FAILS),
    case(
        "rfc7541-5.1/padded-integer",
        "zeros behind an integer say nothing",
        headers(1, GOOD + b"\x0f\x80\x80\x00\x01x") + BODY,
        then=Answered(),
    ),
    case(
        "rfc7541-5.2/string-beyond-block",
        "a string longer than the block",
        headers(1, GOOD + b"\x00\x01x\x7f\xff\x01x"),
        then=FAILS,
    ),
    case(
        "rfc7541-5.2/padding-8-bits",
        "a whole octet of padding",
        headers(1, GOOD + b"\x00\x01x\x83\x1c\x64\xff"),
        then=FAILS,
    ),
    case("rfc7541-5.2/padding-zeros", "padding of zeros", headers(1, GOOD + b"\x00\x01x\x81\x18"), then=FAILS),
    case(
        "rfc7541-5.2/eos", "the EOS symbol in a string", headers(1, GOOD + b"\x00\x01x\x84\xff\xff\xff\xff"), then=FAILS
    ),
    case(
        "rfc7541-5.2/eos-inside",
        "... behind other symbols",
        headers(1, GOOD + b"\x00\x01x\x85\x1f\xff\xff\xff\xff"),
        then=FAILS,
    ),
    case(
        "rfc7541-2.3.3/in-trailers",
        "an index behind the table in trailers",
        headers(1, request()) + data(1, message()) + headers(1, b"\xbe", END),
        then=FAILS,
    ),
]
