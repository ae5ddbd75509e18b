"""A client's connection: streams, resets, GOAWAY, settings and windows that a server may send, or may not.

Call 1 has been sent ("hello", and the end of the request); call 3 is held back for the probe.
"""

from .case import Case, Check, ConnectionFails, DataSent, StreamFails, Written, case
from .client_peer import Pending, Reset, Result, response
from .raw import (
    ACK,
    CANCEL,
    COMPRESSION_ERROR,
    ENABLE_PUSH,
    END,
    END_HEADERS,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    HEADER_TABLE_SIZE,
    INITIAL_WINDOW_SIZE,
    INTERNAL_ERROR,
    MAX_CONCURRENT_STREAMS,
    PROTOCOL_ERROR,
    PUSH_PROMISE,
    REFUSED_STREAM,
    REQUEST,
    RESPONSE,
    RST_STREAM,
    STREAM_CLOSED,
    TRAILERS,
    block,
    data,
    frame,
    goaway,
    headers,
    literal,
    message,
    ping,
    priority,
    rst,
    settings,
    window,
)

BROKEN = ConnectionFails((PROTOCOL_ERROR,))
LATE = (StreamFails((STREAM_CLOSED,)), ConnectionFails((STREAM_CLOSED,)))
OK = Result()
BODY = data(1, message())
END_OF_CALL = headers(1, TRAILERS, END)
HEAD = headers(1, RESPONSE)


CASES: list[Case] = [
    # -- streams
    case("client/5.1/idle-headers", "a response to no request", headers(5, RESPONSE), then=BROKEN),
    case(
        "client/5.1/idle-headers-oversized",
        "... nor one over the limit",
        headers(5, [*RESPONSE, *[("a", "")] * 600]),
        then=BROKEN,
    ),
    case("client/5.1/idle-data", "DATA for no request", data(5, b"x"), then=BROKEN),
    case("client/5.1/idle-reset", "a reset of no request", rst(5), then=BROKEN),
    case("client/5.1/idle-window", "window for no request", window(5, 1), then=BROKEN),
    case("client/5.1.1/even", "servers open streams only by pushing", headers(2, RESPONSE), then=BROKEN),
    case(
        "client/8.4/push",
        "push was switched off",
        frame(PUSH_PROMISE, END_HEADERS, 1, b"\0\0\0\2" + block(REQUEST)),
        then=BROKEN,
    ),
    case(
        "client/8.4/push-on-closed",
        "... on any stream",
        response(1) + frame(PUSH_PROMISE, END_HEADERS, 1, b"\0\0\0\2" + block(REQUEST)),
        then=BROKEN,
    ),
    case("client/8.4/enable-push", "a server cannot enable push", settings((ENABLE_PUSH, 1)), then=BROKEN),
    case("client/8.4/disable-push", "... it may disable it", settings((ENABLE_PUSH, 0)) + response(1), then=OK),
    case("client/5.1/closed-data", "DATA behind the trailers", response(1) + BODY, then=LATE),
    case("client/5.1/closed-headers", "HEADERS behind the trailers", response(1) + END_OF_CALL, then=LATE),
    case(
        "client/5.1/half-closed-data",
        "DATA behind the trailers while the request is open",
        response(1) + BODY,
        then=LATE,
        half_open=True,
    ),
    case("client/5.1/half-closed-headers", "HEADERS behind them", response(1) + END_OF_CALL, then=LATE, half_open=True),
    case("client/6.4/reset", "the server resets a call", rst(1, INTERNAL_ERROR), then=Reset(INTERNAL_ERROR)),
    case("client/6.4/reset-behind-headers", "... behind its headers", HEAD + BODY + rst(1, CANCEL), then=Reset(CANCEL)),
    case("client/6.4/refused", "... before it looked at it", rst(1, REFUSED_STREAM), then=Reset(REFUSED_STREAM)),
    case("client/6.4/unknown-code", "... for reasons of its own", rst(1, 0xDEAD), then=Reset(0xDEAD)),
    case(
        "client/5.1/cancelled-response",
        "what was on its way when we cancelled is ignored",
        response(1),
        Written(RST_STREAM, 1, b"\0\0\0\x08", times=1),
        then=Pending(),
        cancelled=True,
    ),
    case(
        "client/5.1/cancelled-reset",
        "... resets too",
        rst(1),
        Written(RST_STREAM, 1, times=1),
        then=Pending(),
        cancelled=True,
    ),
    case("client/5.1/cancelled-window", "... and windows", window(1, 5), then=Pending(), cancelled=True),
    case(
        "client/4.3/cancelled-table",
        "blocks of cancelled calls still count for the table",
        headers(1, literal(":status", "200", 0x40) + literal("x-t", "1", 0x40))
        + data(1, b"")
        + headers(3, b"\xbf" + block(RESPONSE[1:]) + b"\xbe"),
        Check(lambda _: True),
        then=Pending(),
        cancelled=True,
    ),
    case(
        "client/4.3/bad-block",
        "an undecodable block",
        headers(1, b"\x88\xbe"),
        then=ConnectionFails((COMPRESSION_ERROR,)),
    ),
    case(
        "client/4.3/table-update",
        "a size update over our limit",
        headers(1, b"\x3f\xe2\x1f" + block(RESPONSE)),
        then=ConnectionFails((COMPRESSION_ERROR,)),
    ),
    case(
        "client/4.2/large-frame",
        "a frame over our limit",
        HEAD + data(1, bytes(16_385)),
        then=ConnectionFails((FRAME_SIZE_ERROR,)),
    ),
    case(
        "client/5.2/window-exceeded",
        "DATA beyond the window that we granted",
        HEAD + data(1, message(bytes(1000))[:900]) + data(1, bytes(105)),
        then=(StreamFails((FLOW_CONTROL_ERROR,)), ConnectionFails((FLOW_CONTROL_ERROR,))),
        stream_window=1000,
    ),
    # -- GOAWAY
    case(
        "client/6.8/goaway-not-processed",
        "calls above the last stream were not processed: safe to send again",
        goaway(0),
        then=Reset(REFUSED_STREAM),
    ),
    case("client/6.8/goaway-goes-on", "calls up to it go on", goaway(2**31 - 1) + response(1), then=OK),
    case(
        "client/6.8/goaway-in-two-steps",
        "a graceful end: warn, then name the last stream",
        goaway(2**31 - 1) + goaway(3) + response(1),
        then=OK,
    ),
    case("client/6.8/goaway-growing", "the last stream never grows", goaway(1) + goaway(3), then=BROKEN),
    case(
        "client/6.8/goaway-debug", "debug data", goaway(3, ENHANCE_YOUR_CALM, b"too_many_pings") + response(1), then=OK
    ),
    case(
        "client/6.8/goaway-short",
        "GOAWAY has eight octets",
        frame(7, 0, 0, bytes(7)),
        then=ConnectionFails((FRAME_SIZE_ERROR,)),
    ),
    # -- settings and windows for us
    case(
        "client/6.9.2/window-raised",
        "a smaller initial window than we used, filled up again",
        settings((INITIAL_WINDOW_SIZE, 5)) + window(1, 100),
        DataSent(1, 10),
        response(1),
        then=OK,
    ),
    case(
        "client/6.5.2/header-table-0",
        "no table for our headers",
        settings((HEADER_TABLE_SIZE, 0)) + response(1),
        then=OK,
    ),
    case(
        "client/6.5.2/no-streams",
        "no room for further calls",
        settings((MAX_CONCURRENT_STREAMS, 0)) + response(1),
        then=OK,
    ),
    case(
        "client/6.5.2/bad-window",
        "a window over 2^31-1",
        settings((INITIAL_WINDOW_SIZE, 1 << 31)),
        then=ConnectionFails((FLOW_CONTROL_ERROR,)),
    ),
    case(
        "client/6.7/ping",
        "PING is answered",
        ping(b"whatever"),
        Written(6, payload=b"whatever", flags=ACK, times=1),
        then=Pending(),
    ),
    case("client/6.3/priority", "PRIORITY from a server", priority(1) + priority(2) + response(1), then=OK),
    case(
        "client/5.5/unknown",
        "unknown frames and settings",
        frame(0xBE, 9, 1, b"grease") + settings((0x1A1A, 5)) + response(1),
        then=OK,
    ),
]
