"""RFC 9113 section 6, frame by frame, and 7: DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PING, GOAWAY."""

from .case import Answered, Case, ConnectionFails, GoesOn, StreamFails, Written, case
from .raw import (
    ACK,
    DATA,
    ENABLE_PUSH,
    END,
    END_HEADERS,
    END_STREAM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    GOAWAY,
    HEADER_TABLE_SIZE,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    MAX_CONCURRENT_STREAMS,
    MAX_FRAME_SIZE,
    MAX_HEADER_LIST_SIZE,
    PADDED,
    PING,
    PRIORITIZED,
    PRIORITY,
    PROTOCOL_ERROR,
    PUSH_PROMISE,
    REQUEST,
    RST_STREAM,
    SETTINGS,
    STREAM_CLOSED,
    block,
    call,
    data,
    frame,
    goaway,
    headers,
    message,
    ping,
    priority,
    request,
    rst,
    settings,
)

HELD = request(path="/test.Echo/Hold")
OPEN = headers(1, REQUEST)

CASES: list[Case] = [
    # -- 6.1 DATA
    case("6.1/one", "one DATA frame", OPEN + data(1, message(), END_STREAM), then=Answered()),
    case(
        "6.1/several",
        "a message over several frames",
        OPEN + data(1, b"\0\0\0") + data(1, b"\0\x05hel") + data(1, b"lo", END_STREAM),
        then=Answered(),
    ),
    case(
        "6.1/empty-end",
        "END_STREAM on an empty frame",
        OPEN + data(1, message()) + data(1, b"", END_STREAM),
        then=Answered(),
    ),
    case("6.1/padded", "padding is dropped", OPEN + data(1, message(), END_STREAM, pad=100), then=Answered()),
    case("6.1/padded-0", "a pad length of 0", OPEN + data(1, message(), END_STREAM, pad=0), then=Answered()),
    case(
        "6.1/padded-only",
        "nothing but padding",
        OPEN + data(1, message(), pad=255) + data(1, b"", END_STREAM, pad=255),
        then=Answered(),
    ),
    case(
        "6.1/padding-not-zero",
        "octets of padding need not be checked",
        OPEN + frame(DATA, PADDED | END_STREAM, 1, b"\x04" + message() + b"junk"),
        then=Answered(),
    ),
    case("6.1/stream-0", "DATA belongs to a stream", data(0, b"x"), then=ConnectionFails((PROTOCOL_ERROR,))),
    case(
        "6.1/not-open",
        "DATA where nothing may be sent",
        headers(1, HELD, END) + data(1, b"x"),
        then=StreamFails((STREAM_CLOSED,)),
    ),
    case(
        "6.1/pad-is-payload",
        "a pad length of the payload's size",
        OPEN + frame(DATA, PADDED, 1, b"\x05abcd"),
        then=ConnectionFails((PROTOCOL_ERROR,)),
    ),
    case(
        "6.1/pad-over-payload",
        "a pad length beyond the payload",
        OPEN + frame(DATA, PADDED, 1, b"\xffabcd"),
        then=ConnectionFails((PROTOCOL_ERROR,)),
    ),
    case(
        "6.1/pad-missing",
        "no pad length at all",
        OPEN + frame(DATA, PADDED, 1, b""),
        then=ConnectionFails((PROTOCOL_ERROR, FRAME_SIZE_ERROR)),
    ),
    # -- 6.2 HEADERS
    case("6.2/plain", "a request", call(1), then=Answered()),
    case(
        "6.2/padded",
        "padding is dropped",
        headers(1, REQUEST, pad=20) + data(1, message(), END_STREAM),
        then=Answered(),
    ),
    case(
        "6.2/priority",
        "priority fields are skipped",
        headers(1, REQUEST, priority=(0, 255)) + data(1, message(), END_STREAM),
        then=Answered(),
    ),
    case(
        "6.2/padded-priority",
        "both",
        headers(1, REQUEST, pad=3, priority=(5, 1)) + data(1, message(), END_STREAM),
        then=Answered(),
    ),
    case(
        "6.2/padded-and-continued",
        "padding is of HEADERS alone",
        headers(1, block(REQUEST)[:9], 0, pad=9)
        + frame(9, END_HEADERS, 1, block(REQUEST)[9:])
        + data(1, message(), END_STREAM),
        then=Answered(),
    ),
    case(
        "6.2/stream-0",
        "HEADERS belongs to a stream",
        frame(HEADERS, END, 0, block(REQUEST)),
        then=ConnectionFails((PROTOCOL_ERROR,)),
    ),
    case(
        "6.2/pad-over-payload",
        "a pad length beyond the payload",
        frame(HEADERS, PADDED | END, 1, b"\xff" + block(REQUEST)[:80]),
        then=ConnectionFails((PROTOCOL_ERROR,)),
    ),
    case(
        "6.2/pad-and-priority-over-payload",
        "... counted behind the priority fields",
        frame(HEADERS, PADDED | PRIORITIZED | END, 1, b"\x06\0\0\0\0\x10" + b"\x82" + b"\0" * 4),
        then=ConnectionFails((PROTOCOL_ERROR, FRAME_SIZE_ERROR)),
    ),
    case(
        "6.2/pad-missing",
        "no pad length at all",
        frame(HEADERS, PADDED | END, 1),
        then=ConnectionFails((PROTOCOL_ERROR, FRAME_SIZE_ERROR)),
    ),
    case(
        "6.2/priority-missing",
        "too short for its priority fields",
        frame(HEADERS, PRIORITIZED | END, 1, b"\0\0\0\0"),
        then=ConnectionFails((PROTOCOL_ERROR, FRAME_SIZE_ERROR)),
    ),
    # -- 6.3 PRIORITY
    case(
        "6.3/stream-0",
        "PRIORITY belongs to a stream",
        frame(PRIORITY, 0, 0, b"\0\0\0\1\x10"),
        then=ConnectionFails((PROTOCOL_ERROR,)),
    ),
    *(
        case(
            f"6.3/size-{size}",
            "PRIORITY has five octets",
            headers(1, HELD) + frame(PRIORITY, 0, 1, b"\x80\0\0\3\x10\x10"[:size]),
            then=(StreamFails((FRAME_SIZE_ERROR,)), ConnectionFails((FRAME_SIZE_ERROR,))),
        )
        for size in (0, 4, 6)
    ),
    # -- 6.4 RST_STREAM
    case("6.4/plain", "a reset stream is silent", headers(1, HELD) + rst(1), then=GoesOn(silent=(1,))),
    case("6.4/unknown-code", "any error code", headers(1, HELD) + rst(1, 0xDEADBEEF), then=GoesOn(silent=(1,))),
    case("6.4/stream-0", "RST_STREAM belongs to a stream", rst(0), then=ConnectionFails((PROTOCOL_ERROR,))),
    case("6.4/idle", "... that was opened", rst(1), then=ConnectionFails((PROTOCOL_ERROR,))),
    *(
        case(
            f"6.4/size-{size}",
            "RST_STREAM has four octets",
            headers(1, HELD) + frame(RST_STREAM, 0, 1, b"\0\0\0\x08\0"[:size]),
            then=ConnectionFails((FRAME_SIZE_ERROR,)),
        )
        for size in (0, 3, 5)
    ),
    # -- 6.5 SETTINGS
    case(
        "6.5/ack",
        "SETTINGS is acknowledged",
        settings((MAX_CONCURRENT_STREAMS, 100)),
        Written(SETTINGS, flags=ACK, payload=b"", times=2),
        then=GoesOn(),
    ),
    case(
        "6.5/empty-ack",
        "... an empty one too",
        settings(),
        Written(SETTINGS, flags=ACK, payload=b"", times=2),
        then=GoesOn(),
    ),
    case(
        "6.5/no-ack-for-ack",
        "an acknowledgement is not",
        frame(SETTINGS, ACK),
        Written(SETTINGS, flags=ACK, times=1),
        then=GoesOn(),
    ),
    case(
        "6.5/ack-with-payload",
        "an acknowledgement is empty",
        frame(SETTINGS, ACK, 0, b"\0\3\0\0\0\1"),
        then=ConnectionFails((FRAME_SIZE_ERROR,)),
    ),
    case(
        "6.5/on-stream",
        "SETTINGS belongs to the connection",
        frame(SETTINGS, 0, 1, b"\0\3\0\0\0\1"),
        then=ConnectionFails((PROTOCOL_ERROR,)),
    ),
    case(
        "6.5/ack-on-stream", "its acknowledgement too", frame(SETTINGS, ACK, 1), then=ConnectionFails((PROTOCOL_ERROR,))
    ),
    *(
        case(
            f"6.5/size-{size}",
            "pairs have six octets",
            frame(SETTINGS, 0, 0, bytes(size)),
            then=ConnectionFails((FRAME_SIZE_ERROR,)),
        )
        for size in (1, 3, 5, 7, 11)
    ),
    *(
        case(f"6.5.2/{name}", text, settings(*pairs), then=ConnectionFails((code,)))
        for name, text, code, pairs in [
            ("enable-push-2", "a flag is 0 or 1", PROTOCOL_ERROR, [(ENABLE_PUSH, 2)]),
            ("initial-window-2^31", "a window is at most 2^31-1", FLOW_CONTROL_ERROR, [(INITIAL_WINDOW_SIZE, 1 << 31)]),
            (
                "initial-window-max",
                "... for any larger number",
                FLOW_CONTROL_ERROR,
                [(INITIAL_WINDOW_SIZE, (1 << 32) - 1)],
            ),
            ("max-frame-16383", "frames are at least 16,384", PROTOCOL_ERROR, [(MAX_FRAME_SIZE, 16383)]),
            ("max-frame-0", "... never 0", PROTOCOL_ERROR, [(MAX_FRAME_SIZE, 0)]),
            ("max-frame-2^24", "... at most 2^24-1", PROTOCOL_ERROR, [(MAX_FRAME_SIZE, 1 << 24)]),
            ("bad-behind-good", "each pair counts", PROTOCOL_ERROR, [(MAX_CONCURRENT_STREAMS, 1), (ENABLE_PUSH, 7)]),
        ]
    ),
    *(
        case(f"6.5.2/{name}", text, settings(*pairs) + call(1), Written(SETTINGS, flags=ACK, times=2), then=Answered())
        for name, text, pairs in [
            ("unknown", "an unknown setting is ignored", [(0xFF, 1), (0, 0)]),
            ("enable-push-0-and-1", "a client may say either", [(ENABLE_PUSH, 1), (ENABLE_PUSH, 0)]),
            ("max-frame-bounds", "both bounds are allowed", [(MAX_FRAME_SIZE, (1 << 24) - 1), (MAX_FRAME_SIZE, 16384)]),
            ("header-table-0", "no table: blocks are literals", [(HEADER_TABLE_SIZE, 0)]),
            ("header-table-max", "more table than anybody uses", [(HEADER_TABLE_SIZE, (1 << 32) - 1)]),
            ("concurrent-0", "a client that allows no pushes by this", [(MAX_CONCURRENT_STREAMS, 0)]),
            ("header-list-0", "advisory", [(MAX_HEADER_LIST_SIZE, 0)]),
            ("window-max", "the largest window", [(INITIAL_WINDOW_SIZE, (1 << 31) - 1)]),
        ]
    ),
    case(
        "6.5.3/last-value-counts",
        "values are applied in their order",
        settings((INITIAL_WINDOW_SIZE, 0), (INITIAL_WINDOW_SIZE, 100)) + call(1),
        then=Answered(),
    ),
    case(
        "6.5.3/table-lowered-between-calls",
        "a smaller table is announced in the next block",
        call(1) + settings((HEADER_TABLE_SIZE, 0)) + call(3),
        then=Answered(3),
    ),
    case(
        "6.5.3/table-lowered-and-raised",
        "... the lowest first, the last behind it",
        call(1) + settings((HEADER_TABLE_SIZE, 0), (HEADER_TABLE_SIZE, 4096)) + call(3) + call(5),
        then=Answered(5),
    ),
    case(
        "6.5.3/table-lowered-then-raised",
        "... in two frames",
        call(1) + settings((HEADER_TABLE_SIZE, 16)) + settings((HEADER_TABLE_SIZE, 4096)) + call(3) + call(5),
        then=Answered(5),
    ),
    case(
        "6.5.3/table-a-little-lower",
        "... what fits stays",
        call(1) + settings((HEADER_TABLE_SIZE, 1000)) + call(3) + call(5),
        then=Answered(5),
    ),
    # -- 6.6 PUSH_PROMISE and 8.4
    case(
        "8.4/client-push",
        "clients do not push",
        OPEN + frame(PUSH_PROMISE, END_HEADERS, 1, b"\0\0\0\2" + block(REQUEST)),
        then=ConnectionFails((PROTOCOL_ERROR,)),
    ),
    case(
        "8.4/client-push-padded",
        "... in any form",
        OPEN + frame(PUSH_PROMISE, END_HEADERS | PADDED, 1, b"\0\0\0\0\2"),
        then=ConnectionFails((PROTOCOL_ERROR,)),
    ),
    # -- 6.7 PING
    case(
        "6.7/answer",
        "PING is answered with its payload",
        ping(b"\0\1\2\3\4\5\6\7"),
        Written(PING, payload=b"\0\1\2\3\4\5\6\7", flags=ACK, times=1),
        then=GoesOn(),
    ),
    case(
        "6.7/no-answer-for-ack",
        "an answer is not answered",
        ping(b"unasked!", ACK),
        Written(PING, payload=b"unasked!", times=0),
        then=GoesOn(),
    ),
    case(
        "6.7/each",
        "each PING is answered",
        ping(b"aaaaaaaa") + ping(b"bbbbbbbb"),
        Written(PING, payload=b"aaaaaaaa", flags=ACK),
        Written(PING, payload=b"bbbbbbbb", flags=ACK),
        then=GoesOn(),
    ),
    case(
        "6.7/on-stream",
        "PING belongs to the connection",
        frame(PING, 0, 1, b"8 octets"),
        then=ConnectionFails((PROTOCOL_ERROR,)),
    ),
    *(
        case(
            f"6.7/size-{size}",
            "PING has eight octets",
            frame(PING, flags, 0, bytes(size)),
            then=ConnectionFails((FRAME_SIZE_ERROR,)),
        )
        for size, flags in ((0, 0), (6, 0), (9, 0), (7, ACK))
    ),
    # -- 6.8 GOAWAY
    case(
        "6.8/calls-go-on",
        "a client's GOAWAY is about pushes: its calls go on",
        headers(1, REQUEST) + goaway(0) + data(1, message(), END_STREAM),
        then=Answered(),
    ),
    case("6.8/new-calls", "... even new ones", goaway(0) + call(1), then=Answered()),
    case(
        "6.8/unknown-code", "any error code, any debug data", goaway(0, 0xFF00FF, b"because") + call(1), then=Answered()
    ),
    case("6.8/shrinking", "the last stream may get lower", goaway(2**31 - 1) + goaway(0) + call(1), then=Answered()),
    case("6.8/growing", "... but never higher", goaway(0) + goaway(2), then=ConnectionFails((PROTOCOL_ERROR,))),
    case(
        "6.8/on-stream",
        "GOAWAY belongs to the connection",
        goaway(0, stream=1),
        then=ConnectionFails((PROTOCOL_ERROR,)),
    ),
    case(
        "6.8/too-short",
        "GOAWAY has eight octets or more",
        frame(GOAWAY, 0, 0, bytes(7)),
        then=ConnectionFails((FRAME_SIZE_ERROR,)),
    ),
    # -- 7: error codes nobody knows
    case(
        "7/unknown-in-reset",
        "an unknown code in RST_STREAM is one",
        headers(1, HELD) + rst(1, 0xFF) + call(3),
        then=Answered(3),
    ),
    case(
        "7/priority-after-reset",
        "nothing is remembered of a reset stream",
        headers(1, HELD) + rst(1) + priority(1, 3) + call(3),
        then=Answered(3),
    ),
]
