"""RFC 9113 section 5: states of streams, their identifiers, concurrency, priorities, errors."""

from .case import Answered, Case, Check, ConnectionFails, GoesOn, StreamFails, Written, case
from .raw import (
    CANCEL,
    DATA,
    END,
    END_STREAM,
    GOAWAY,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    REQUEST,
    RST_STREAM,
    STREAM_CLOSED,
    call,
    continuation,
    data,
    headers,
    message,
    ping,
    priority,
    request,
    rst,
    window,
)

HELD = request(path="/test.Echo/Hold")  # gets no answer
EARLY = request(path="/test.Echo/Early")  # is answered in full as soon as its headers are there
CLOSED_ERROR = (StreamFails((STREAM_CLOSED,)), ConnectionFails((STREAM_CLOSED,)))
SELF_DEPENDENCY = (StreamFails((PROTOCOL_ERROR,)), ConnectionFails((PROTOCOL_ERROR,)))  # RFC 7540; 9113 no longer asks
CLOSED = call(1)  # both halves are over once it is answered

CASES: list[Case] = [
    # -- 5.1: idle
    *(
        case(
            f"5.1/idle-{name}",
            f"{name} on a stream that nobody opened",
            frames,
            then=ConnectionFails((PROTOCOL_ERROR,)),
        )
        for name, frames in {
            "data": data(1, b"x"),
            "rst-stream": rst(1),
            "window-update": window(1, 100),
            "continuation": continuation(1, b"\x82"),
            "data-even": data(2, b"x"),
            "rst-stream-even": rst(2),
            "window-update-even": window(2, 100),
            "data-above-the-last": call(1) + data(3, b"x"),
        }.items()
    ),
    case("5.1/idle-priority", "PRIORITY is allowed in every state", priority(1) + call(1), then=Answered()),
    case(
        "5.1/implicitly-closed-data",
        "opening 5 closes 1 and 3",
        call(5) + data(3, b"x"),
        then=(StreamFails((STREAM_CLOSED,), 3), ConnectionFails((STREAM_CLOSED, PROTOCOL_ERROR))),
    ),
    case(
        "5.1/implicitly-closed-headers",
        "... for HEADERS too",
        call(5) + headers(3, REQUEST),
        then=ConnectionFails((STREAM_CLOSED, PROTOCOL_ERROR)),
    ),
    # -- 5.1: half-closed (remote)
    case(
        "5.1/half-closed-data",
        "DATA after END_STREAM",
        headers(1, HELD, END) + data(1, b"x"),
        then=StreamFails((STREAM_CLOSED,)),
    ),
    case(
        "5.1/half-closed-headers",
        "HEADERS after END_STREAM",
        headers(1, HELD, END) + headers(1, [("x", "y")], END),
        then=StreamFails((STREAM_CLOSED,)),
    ),
    case(
        "5.1/half-closed-continuation",
        "CONTINUATION after END_STREAM",
        headers(1, HELD, END) + continuation(1, b"\x82"),
        then=ConnectionFails((PROTOCOL_ERROR, STREAM_CLOSED)),
    ),
    case(
        "5.1/half-closed-window-update",
        "WINDOW_UPDATE is allowed",
        headers(1, HELD, END) + window(1, 10),
        then=GoesOn(silent=(1,)),
    ),
    case(
        "5.1/half-closed-priority", "PRIORITY is allowed", headers(1, HELD, END) + priority(1), then=GoesOn(silent=(1,))
    ),
    case(
        "5.1/half-closed-rst-stream", "RST_STREAM is allowed", headers(1, HELD, END) + rst(1), then=GoesOn(silent=(1,))
    ),
    # -- 5.1: closed by the peer's reset
    case(
        "5.1/reset-data",
        "DATA behind the peer's own RST_STREAM",
        headers(1, HELD) + rst(1) + data(1, b"x"),
        then=CLOSED_ERROR,
    ),
    case(
        "5.1/reset-headers",
        "HEADERS behind the peer's own RST_STREAM",
        headers(1, HELD) + rst(1) + headers(1, [("x", "y")], END),
        then=CLOSED_ERROR,
    ),
    case(
        "5.1/reset-continuation",
        "CONTINUATION behind it",
        headers(1, HELD) + rst(1) + continuation(1, b"\x82"),
        then=ConnectionFails((PROTOCOL_ERROR, STREAM_CLOSED)),
    ),
    case(
        "5.1/reset-rst-stream",
        "a second RST_STREAM changes nothing",
        headers(1, HELD) + rst(1) + rst(1),
        then=GoesOn(silent=(1,)),
    ),
    case(
        "5.1/reset-window-update",
        "WINDOW_UPDATE may have been on its way",
        headers(1, HELD) + rst(1) + window(1, 1),
        then=GoesOn(silent=(1,)),
    ),
    case(
        "5.1/reset-priority",
        "PRIORITY may come at any time",
        headers(1, HELD) + rst(1) + priority(1),
        then=GoesOn(silent=(1,)),
    ),
    # -- 5.1: closed by END_STREAM of both
    case("5.1/closed-data", "DATA on a finished stream", CLOSED + data(1, b"x"), then=CLOSED_ERROR),
    case("5.1/closed-headers", "HEADERS on a finished stream", CLOSED + headers(1, REQUEST, END), then=CLOSED_ERROR),
    case(
        "5.1/closed-continuation",
        "CONTINUATION on a finished stream",
        CLOSED + continuation(1, b"\x82"),
        then=ConnectionFails((PROTOCOL_ERROR, STREAM_CLOSED)),
    ),
    case("5.1/closed-window-update", "WINDOW_UPDATE is forgiven", CLOSED + window(1, 100), then=Answered()),
    case(
        "5.1/closed-rst-stream",
        "RST_STREAM is forgiven",
        CLOSED + rst(1),
        Written(RST_STREAM, 1, times=0),
        then=Answered(),
    ),
    case("5.1/closed-priority", "PRIORITY is allowed", CLOSED + priority(1), then=Answered()),
    # -- 5.1: closed by us while the peer still sends
    case(
        "5.1/we-ended-data",
        "what was on its way when we ended the stream is ignored",
        headers(1, EARLY) + data(1, message()) + data(1, message(), END_STREAM),
        then=Answered(),
    ),
    case(
        "5.1/we-ended-trailers", "... trailers too", headers(1, EARLY) + headers(1, [("x", "y")], END), then=Answered()
    ),
    case("5.1/we-ended-rst-stream", "... and a reset", headers(1, EARLY) + rst(1), then=Answered()),
    case("5.1/we-ended-window-update", "... and a window", headers(1, EARLY) + window(1, 1), then=Answered()),
    case(
        "5.1/we-ended-resets-what-is-not-ended",
        "a response before the request's end stops the sender without blame (8.1)",
        headers(1, EARLY),
        Check(lambda frames: all(one.code == 0 for one in frames if one.kind == RST_STREAM)),
        then=Answered(),
    ),
    case(
        "5.1/we-reset-data",
        "DATA on its way when we reset",
        headers(1, request(("TE", "x"))) + data(1, message()) + data(1, b"x", END_STREAM),
        Written(RST_STREAM, 1, times=1),
        then=StreamFails((PROTOCOL_ERROR,)),
    ),
    # -- 5.1.1: identifiers
    case("5.1.1/even", "clients use odd ids", headers(2, REQUEST, END), then=ConnectionFails((PROTOCOL_ERROR,))),
    case("5.1.1/zero", "0 is the connection", headers(0, REQUEST, END), then=ConnectionFails((PROTOCOL_ERROR,))),
    case(
        "5.1.1/decreasing",
        "ids only grow",
        headers(5, HELD) + headers(3, HELD),
        then=ConnectionFails((PROTOCOL_ERROR, STREAM_CLOSED)),
    ),
    case("5.1.1/gaps", "ids may be left out", call(1) + call(77) + call(501), then=Answered(501)),
    case(
        "5.1.1/largest",
        "the largest id works",
        headers(1, HELD),
        call(2**31 - 1),
        Written(DATA, 2**31 - 1),
        then=GoesOn(silent=(1,)),
    ),
    # -- 5.1.2: concurrency
    case(
        "5.1.2/at-the-limit",
        "as many streams as SETTINGS_MAX_CONCURRENT_STREAMS says",
        headers(1, HELD) + headers(3, HELD) + headers(5, REQUEST, 4) + data(5, message(), END_STREAM),
        then=Answered(5),
        max_streams=3,
    ),
    case(
        "5.1.2/over-the-limit",
        "one more is refused, safe to send again",
        b"".join(headers(stream, HELD) for stream in (1, 3, 5, 7)),
        Written(RST_STREAM, 7, times=1),
        rst(1) + rst(3),
        then=StreamFails((REFUSED_STREAM, PROTOCOL_ERROR), 7),
        max_streams=3,
    ),
    case(
        "5.1.2/places-come-back-by-reset",
        "a reset stream frees its place",
        headers(1, HELD) + rst(1) + headers(3, HELD) + rst(3) + call(5),
        then=Answered(5),
        max_streams=1,
    ),
    case(
        "5.1.2/places-come-back-by-end",
        "a finished stream frees its place",
        call(1) + call(3) + call(5),
        then=Answered(5),
        max_streams=1,
    ),
    # -- 5.3: priority fields are read and ignored, except for what cannot be
    case(
        "5.3.1/headers-self",
        "a stream cannot depend on itself",
        headers(1, REQUEST, END, priority=(1, 255)),
        then=SELF_DEPENDENCY,
    ),
    case("5.3.1/priority-self", "... by PRIORITY", headers(1, HELD) + priority(1, 1), then=SELF_DEPENDENCY),
    case("5.3.2/weights", "any weight", priority(3, 0, 0) + priority(5, 0, 255) + call(7), then=Answered(7)),
    case(
        "5.3.2/dependency-on-idle",
        "any dependency",
        priority(9, 11) + priority(11, 1 << 31 | 9) + call(1),
        then=Answered(),
    ),
    case("5.3.2/priority-does-not-open", "PRIORITY on 7 leaves 5 usable", priority(7) + call(5), then=Answered(5)),
    # -- 5.4: errors
    case(
        "5.4.1/goaway-names-the-last-stream",
        "GOAWAY says which streams may have been processed",
        call(1) + call(3) + ping(b"short"),
        Check(lambda frames: frames[-1].kind == GOAWAY and frames[-1].payload[:4] == b"\0\0\0\x03"),
        then=ConnectionFails((6,)),
    ),
    case(
        "5.4.2/stream-errors-are-alone",
        "a stream error leaves its neighbours",
        headers(1, REQUEST) + headers(3, request(("TE", "x"))) + data(1, message(), END_STREAM),
        Written(RST_STREAM, 3),
        then=Answered(),
    ),
    case(
        "5.4.2/no-reset-for-a-reset",
        "RST_STREAM is never answered with RST_STREAM",
        headers(1, HELD) + rst(1, CANCEL),
        Written(RST_STREAM, 1, times=0),
        then=GoesOn(silent=(1,)),
    ),
]
