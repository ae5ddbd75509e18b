"""RFC 9113 section 5.2 and 6.9: flow control, both ways."""

from .case import Answered, Case, Check, ConnectionFails, DataSent, GoesOn, StreamFails, Written, case
from .raw import (
    DATA,
    END_STREAM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    INITIAL_WINDOW_SIZE,
    MAX_FRAME_SIZE,
    PROTOCOL_ERROR,
    REQUEST,
    WINDOW_UPDATE,
    call,
    data,
    frame,
    headers,
    message,
    request,
    rst,
    settings,
    window,
)

HELD = request(path="/test.Echo/Hold")
STALLED = request(path="/test.Echo/Stall")  # is never read
TOP = (1 << 31) - 1
ECHO = 10  # octets of the usual response: prefix and "hello"


def big(stream: int, size: int) -> bytes:
    """A call whose one message has ``size`` octets, over as many frames as it takes."""
    whole = message(bytes(size))
    cuts = [whole[start : start + 16384] for start in range(0, len(whole), 16384)]
    return headers(stream, REQUEST) + b"".join(data(stream, cut) for cut in cuts) + data(stream, b"", END_STREAM)


def credited(frames, stream):
    return sum(one.number for one in frames if one.kind == WINDOW_UPDATE and one.stream == stream)


CASES: list[Case] = [
    case(
        "6.9/increment-0-connection",
        "an increment of 0 for the connection",
        window(0, 0),
        then=ConnectionFails((PROTOCOL_ERROR,)),
    ),
    case(
        "6.9/increment-0-stream",
        "... for a stream",
        headers(1, HELD) + window(1, 0),
        then=StreamFails((PROTOCOL_ERROR,)),
    ),
    case(
        "6.9/increment-0-reserved",
        "the reserved bit makes no increment",
        window(0, 1 << 31),
        then=ConnectionFails((PROTOCOL_ERROR,)),
    ),
    *(
        case(
            f"6.9/size-{size}",
            "WINDOW_UPDATE has four octets",
            frame(WINDOW_UPDATE, 0, 0, b"\0\0\0\1\1"[:size]),
            then=ConnectionFails((FRAME_SIZE_ERROR,)),
        )
        for size in (0, 3, 5)
    ),
    case(
        "6.9/size-on-stream",
        "... on streams too",
        headers(1, HELD) + frame(WINDOW_UPDATE, 0, 1, b"\0\0\1"),
        then=ConnectionFails((FRAME_SIZE_ERROR,)),
    ),
    case(
        "6.9.1/window-1",
        "a window of one octet gets one octet",
        settings((INITIAL_WINDOW_SIZE, 1)) + call(1),
        DataSent(1, 1),
        Written(DATA, 1, payload=b"\0", flags=0),
        then=GoesOn(),
    ),
    case(
        "6.9.1/octet-by-octet",
        "... and another for each update",
        settings((INITIAL_WINDOW_SIZE, 1)) + call(1),
        window(1, 1),
        DataSent(1, 2),
        window(1, 3),
        DataSent(1, 5),
        window(1, 5),
        DataSent(1, ECHO),
        then=Answered(),
    ),
    case(
        "6.9.1/window-0",
        "a window of 0 gets headers alone",
        settings((INITIAL_WINDOW_SIZE, 0)) + call(1),
        DataSent(1, 0),
        window(1, 100),
        DataSent(1, ECHO),
        then=Answered(),
    ),
    case(
        "6.9.1/empty-message-needs-window",
        "the five octets of an empty message too",
        settings((INITIAL_WINDOW_SIZE, 4)) + call(1, b""),
        DataSent(1, 4),
        window(1, 1),
        DataSent(1, 5),
        then=Answered(),
    ),
    case(
        "6.9.1/connection-window",
        "the connection's window binds all streams together",
        big(1, 65_535 - 5),
        DataSent(1, 65_535),
        call(3),
        DataSent(3, 0),
        window(0, 4),
        DataSent(3, 4),
        window(0, 100),
        DataSent(3, ECHO),
        then=Answered(3),
    ),
    case(
        "6.9.1/connection-window-is-65535",
        "... and starts at 65,535 whatever SETTINGS say",
        settings((INITIAL_WINDOW_SIZE, TOP)) + big(1, 70_000),
        DataSent(1, 65_535),
        window(0, 10_000),
        DataSent(1, 70_005),
        then=Answered(),
    ),
    case(
        "6.9.1/both-windows",
        "the smaller one counts",
        settings((INITIAL_WINDOW_SIZE, 20_000)) + big(1, 100_000),
        DataSent(1, 20_000),
        window(0, 1_000_000),
        DataSent(1, 20_000),
        window(1, 60_000),
        DataSent(1, 80_000),
        window(1, 60_000),
        DataSent(1, 100_005),
        then=Answered(),
    ),
    case(
        "6.9.1/frame-size-16384",
        "frames are cut to the peer's limit",
        settings((INITIAL_WINDOW_SIZE, 1 << 20)) + window(0, 1 << 20) + big(1, 40_000),
        Check(lambda frames: max(len(one.payload) for one in frames if one.kind == DATA) == 16_384),
        then=Answered(),
    ),
    case(
        "6.9.1/frame-size-raised",
        "... which may be raised",
        settings((INITIAL_WINDOW_SIZE, 1 << 20), (MAX_FRAME_SIZE, 20_000)) + window(0, 1 << 20) + big(1, 40_000),
        Check(lambda frames: 16_384 < max(len(one.payload) for one in frames if one.kind == DATA) <= 20_000),
        then=Answered(),
    ),
    case(
        "6.9.1/overflow-connection",
        "a window over 2^31-1 for the connection",
        window(0, TOP) + window(0, TOP),
        then=ConnectionFails((FLOW_CONTROL_ERROR,)),
    ),
    case(
        "6.9.1/overflow-connection-at-once",
        "the sum counts",
        window(0, TOP - 65_535 + 1),
        then=ConnectionFails((FLOW_CONTROL_ERROR,)),
    ),
    case("6.9.1/top-of-connection", "2^31-1 itself is allowed", window(0, TOP - 65_535) + call(1), then=Answered()),
    case(
        "6.9.1/overflow-stream",
        "a window over 2^31-1 for a stream",
        headers(1, HELD) + window(1, TOP) + window(1, TOP),
        then=StreamFails((FLOW_CONTROL_ERROR,)),
    ),
    case(
        "6.9.1/top-of-stream",
        "2^31-1 itself is allowed",
        headers(1, REQUEST) + window(1, TOP - 65_535) + data(1, message(), END_STREAM),
        then=Answered(),
    ),
    case(
        "6.9.1/overflow-closed-stream",
        "a finished stream has no window",
        headers(1, HELD) + rst(1) + window(1, TOP) + window(1, TOP),
        then=GoesOn(silent=(1,)),
    ),
    case(
        "6.9.2/raised-with-data-waiting",
        "a larger initial window opens streams that wait",
        settings((INITIAL_WINDOW_SIZE, 0)) + call(1),
        DataSent(1, 0),
        settings((INITIAL_WINDOW_SIZE, 1)),
        DataSent(1, 1),
        settings((INITIAL_WINDOW_SIZE, ECHO)),
        DataSent(1, ECHO),
        then=Answered(),
    ),
    case(
        "6.9.2/negative",
        "a window may become negative and must be filled up first",
        settings((INITIAL_WINDOW_SIZE, 3)) + call(1),
        DataSent(1, 3),
        settings((INITIAL_WINDOW_SIZE, 1)),
        window(1, 2),
        DataSent(1, 3),
        window(1, 1),
        DataSent(1, 4),
        window(1, 6),
        DataSent(1, ECHO),
        then=Answered(),
    ),
    case(
        "6.9.2/connection-untouched",
        "SETTINGS do not change the connection's window",
        settings((INITIAL_WINDOW_SIZE, 200_000)) + big(1, 100_000),
        DataSent(1, 65_535),
        settings((INITIAL_WINDOW_SIZE, 300_000)),
        DataSent(1, 65_535),
        window(0, 50_000),
        DataSent(1, 100_005),
        then=Answered(),
    ),
    case(
        "6.9.2/overflow-by-settings",
        "SETTINGS that lift a stream over 2^31-1",
        headers(1, HELD) + window(1, TOP - 65_535) + settings((INITIAL_WINDOW_SIZE, 65_536)),
        then=ConnectionFails((FLOW_CONTROL_ERROR,)),
    ),
    case(
        "6.9.2/new-streams",
        "new streams start with the new value",
        settings((INITIAL_WINDOW_SIZE, 2)) + call(1) + settings((INITIAL_WINDOW_SIZE, 4)) + call(3),
        DataSent(1, 4),
        DataSent(3, 4),
        then=GoesOn(),
    ),
    # -- what we grant
    case(
        "5.2/stream-window-exceeded",
        "DATA beyond the window that we granted",
        headers(1, STALLED) + data(1, message(bytes(995))) + data(1, message(b"")),
        then=(StreamFails((FLOW_CONTROL_ERROR,)), ConnectionFails((FLOW_CONTROL_ERROR,))),
        stream_window=1000,
    ),
    case(
        "5.2/unread-data-is-not-credited",
        "what nobody reads stays on the window",
        headers(1, STALLED) + data(1, message(bytes(995))),
        Check(lambda frames: credited(frames, 1) == 0),
        then=GoesOn(),
        stream_window=1000,
    ),
    case(
        "5.2/stream-window-exact",
        "... and exactly it",
        headers(1, REQUEST) + data(1, message(bytes(995)), END_STREAM),
        then=Answered(),
        stream_window=1000,
    ),
    case(
        "5.2/window-of-a-reset-stream",
        "after our reset no more may come than was granted before it",
        headers(1, HELD) + window(1, 0) + data(1, bytes(600)) + data(1, bytes(401)),
        then=ConnectionFails((FLOW_CONTROL_ERROR,)),
        stream_window=1000,
    ),
    case(
        "5.2/padding-counts",
        "padding counts against the window",
        headers(1, HELD) + data(1, message(bytes(900)), pad=100),
        then=(StreamFails((FLOW_CONTROL_ERROR,)), ConnectionFails((FLOW_CONTROL_ERROR,))),
        stream_window=1000,
    ),
    case(
        "5.2/read-data-is-credited",
        "what was read is given back",
        headers(1, HELD) + data(1, message(bytes(995))),
        Check(lambda frames: credited(frames, 1) == 1000),
        then=GoesOn(),
        stream_window=1000,
    ),
    case(
        "5.2/padding-is-credited",
        "... padding too",
        headers(1, HELD) + data(1, message(bytes(795)), pad=199),
        Check(lambda frames: credited(frames, 1) == 1000),
        then=GoesOn(),
        stream_window=1000,
    ),
    case(
        "5.2/connection-is-credited",
        "... and the connection's window, for streams that are gone as well",
        headers(1, HELD) + rst(1) + headers(3, HELD) + data(1, bytes(16_000)) * 3,
        Check(lambda frames: credited(frames, 0) >= 32_000),
        then=GoesOn(silent=(3,)),
        connection_window=65_535,
    ),
]
