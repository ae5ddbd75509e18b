"""RFC 9113 sections 3 and 4: the preface, the frame layout, frame sizes, header blocks as frames."""

from .case import Answered, Case, ConnectionFails, GoesOn, Written, case
from .raw import (
    COMPRESSION_ERROR,
    CONTINUATION,
    DATA,
    END,
    END_HEADERS,
    END_STREAM,
    FRAME_SIZE_ERROR,
    HEADERS,
    PADDED,
    PING,
    PREFACE,
    PROTOCOL_ERROR,
    REQUEST,
    SETTINGS,
    block,
    call,
    continuation,
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
    window,
)

BLOCK = block(REQUEST)
WHOLE = 16_384
FULL = request(("x-big", "x" * 16_020))

CASES: list[Case] = [
    # -- 3.4: what comes first
    case("3.4/server-preface", "our first frame is SETTINGS without ACK", Written(SETTINGS, flags=0), then=GoesOn()),
    case("3.4/settings-with-request", "requests may follow the preface at once", call(1), then=Answered()),
    case(
        "3.4/http-1",
        "text of HTTP/1.1 is no preface",
        then=ConnectionFails((PROTOCOL_ERROR,)),
        preface=b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ),
    case(
        "3.4/wrong-last-octet",
        "all 24 octets count",
        then=ConnectionFails((PROTOCOL_ERROR,)),
        preface=PREFACE[:-1] + b"\r" + settings(),
    ),
    case(
        "3.4/no-settings",
        "SETTINGS must be the first frame",
        call(1),
        then=ConnectionFails((PROTOCOL_ERROR,)),
        preface=PREFACE,
    ),
    case(
        "3.4/ping-before-settings",
        "... whatever the other frame is",
        ping(),
        then=ConnectionFails((PROTOCOL_ERROR,)),
        preface=PREFACE,
    ),
    case(
        "3.4/ack-before-settings",
        "an acknowledgement is not the preface's SETTINGS",
        settings(),
        then=ConnectionFails((PROTOCOL_ERROR,)),
        preface=PREFACE + frame(SETTINGS, 1),
    ),
    # -- 4.1: the frame header
    case("4.1/unknown-type", "frames of unknown types are ignored", frame(0x16, 0, 0, b"x" * 8), then=GoesOn()),
    case("4.1/unknown-type-on-stream", "... on idle streams too", frame(0xFF, 0xFF, 7, b"x"), then=GoesOn(silent=(7,))),
    case(
        "4.1/unknown-type-on-open-stream",
        "... and on open ones",
        headers(1, REQUEST) + frame(0x20, 5, 1, b"x") + data(1, message(), END_STREAM),
        then=Answered(),
    ),
    case(
        "4.1/undefined-flags",
        "flags without a meaning are ignored",
        frame(PING, 0x16, 0, b"undefind"),
        Written(PING, payload=b"undefind", flags=1),
        then=GoesOn(),
    ),
    case(
        "4.1/undefined-flags-data",
        "... on DATA",
        headers(1, REQUEST) + data(1, message(), END_STREAM | 0xF6 & ~PADDED),
        then=Answered(),
    ),
    case(
        "4.1/undefined-flags-headers",
        "... on HEADERS",
        headers(1, REQUEST, END_HEADERS | 0xD2) + data(1, message(), END_STREAM),
        then=Answered(),
    ),
    case(
        "4.1/undefined-flags-settings",
        "... on SETTINGS",
        frame(SETTINGS, 0xFE),
        Written(SETTINGS, flags=1, times=2),
        then=GoesOn(),
    ),
    case(
        "4.1/reserved-bit-connection",
        "the reserved bit of the stream id is ignored",
        frame(PING, 0, 1 << 31, b"reserved"),
        Written(PING, payload=b"reserved", flags=1),
        then=GoesOn(),
    ),
    case(
        "4.1/reserved-bit-stream",
        "... on a request's frames",
        frame(HEADERS, END_HEADERS, 1 << 31 | 1, BLOCK) + frame(DATA, END_STREAM, 1 << 31 | 1, message()),
        then=Answered(),
    ),
    case(
        "4.1/reserved-bit-dependency",
        "the exclusive bit is no part of the dependency",
        headers(1, REQUEST, priority=(1 << 31 | 3, 0)) + data(1, message(), END_STREAM),
        then=Answered(),
    ),
    case(
        "4.1/reserved-bit-window-update",
        "the reserved bit of an increment is ignored",
        call(1) + window(0, 1 << 31 | 1),
        then=Answered(),
    ),
    # -- 4.2: sizes
    case(
        "4.2/data-16384",
        "frames of 16,384 octets need no permission",
        headers(1, REQUEST) + data(1, message(b"x" * (WHOLE - 5)), END_STREAM),
        then=Answered(),
    ),
    case(
        "4.2/data-16385",
        "one octet more does",
        headers(1, REQUEST) + data(1, message(b"x" * (WHOLE - 4)), END_STREAM),
        then=ConnectionFails((FRAME_SIZE_ERROR,)),
    ),
    case(
        "4.2/headers-16385",
        "a larger HEADERS frame desynchronises compression: connection error",
        headers(1, request(("x-big", "x" * WHOLE))),
        then=ConnectionFails((FRAME_SIZE_ERROR,)),
    ),
    case(
        "4.2/headers-16384",
        "a HEADERS frame of exactly the limit",
        headers(1, FULL, pad=WHOLE - 1 - len(block(FULL))) + data(1, message(), END_STREAM),
        then=Answered(),
    ),
    case(
        "4.2/continuation-16385",
        "... so does CONTINUATION",
        headers(1, REQUEST, 0) + continuation(1, b"\0" * (WHOLE + 1)),
        then=ConnectionFails((FRAME_SIZE_ERROR,)),
    ),
    case(
        "4.2/settings-16386",
        "... and SETTINGS",
        frame(SETTINGS, 0, 0, b"\0\x99\0\0\0\0" * 2731),
        then=ConnectionFails((FRAME_SIZE_ERROR,)),
    ),
    case(
        "4.2/unknown-16385",
        "... and frames of unknown types",
        frame(0x42, 0, 0, b"x" * (WHOLE + 1)),
        then=ConnectionFails((FRAME_SIZE_ERROR,)),
    ),
    case(
        "4.2/length-alone",
        "a length over the limit is judged from the header, before the payload is there",
        frame(DATA, 0, 1, length=0xFFFFFF),
        then=ConnectionFails((FRAME_SIZE_ERROR,)),
    ),
    # -- 4.3: header blocks
    case(
        "4.3/bad-block",
        "an undecodable block is a compression error",
        headers(1, b"\x00\x85\xf2\xb2\x4a\x84\xff\x84\x49\x50\x9f\xff"),
        then=ConnectionFails((COMPRESSION_ERROR,)),
    ),
    case(
        "4.3/truncated-block",
        "a block that ends inside a field",
        headers(1, BLOCK[:-4]),
        then=ConnectionFails((COMPRESSION_ERROR,)),
    ),
    case(
        "4.3/bad-block-on-refused-stream",
        "blocks of requests that are refused are decoded all the same",
        headers(1, request(method="GET"), END) + headers(3, b"\x80", END),
        then=ConnectionFails((COMPRESSION_ERROR,)),
    ),
    case(
        "4.3/split-inside-field",
        "a block may be cut anywhere",
        headers(1, BLOCK[:7], 0)
        + continuation(1, BLOCK[7:20], 0)
        + continuation(1, BLOCK[20:])
        + data(1, message(), END_STREAM),
        then=Answered(),
    ),
    *(
        case(
            f"4.3/interleaved-{name}",
            f"{name} inside a header block",
            headers(1, BLOCK[:9], 0) + between,
            then=ConnectionFails((PROTOCOL_ERROR,)),
        )
        for name, between in {
            "data": data(1, b"x"),
            "headers": headers(3, REQUEST),
            "headers-same-stream": headers(1, REQUEST),
            "priority": priority(1),
            "priority-other": priority(3),
            "rst-stream": rst(1),
            "settings": settings(),
            "ping": ping(),
            "goaway": goaway(0),
            "window-update": window(0, 1),
            "continuation-other-stream": continuation(3, BLOCK[9:]),
            "unknown": frame(0x16, 0, 1, b"x"),
            "unknown-connection": frame(0x16, 0, 0, b""),
        }.items()
    ),
    # -- 5.5: extensions
    case(
        "5.5/unknown-setting-and-type",
        "unknown settings and frames are ignored together",
        settings((0x99, 1), (0xFFFF, 0xFFFFFFFF)) + frame(0x55, 1, 0, b"") + call(1),
        then=Answered(),
    ),
    # -- 6.10: CONTINUATION
    case(
        "6.10/one",
        "HEADERS and one CONTINUATION",
        headers(1, BLOCK[:20], 0) + continuation(1, BLOCK[20:]) + data(1, message(), END_STREAM),
        then=Answered(),
    ),
    case(
        "6.10/several",
        "HEADERS and several, one of them empty",
        headers(1, BLOCK[:20], 0)
        + continuation(1, BLOCK[20:30], 0)
        + continuation(1, b"", 0)
        + continuation(1, BLOCK[30:])
        + data(1, message(), END_STREAM),
        then=Answered(),
    ),
    case(
        "6.10/empty-headers",
        "a HEADERS frame may carry nothing of its block",
        headers(1, b"", 0) + continuation(1, BLOCK) + data(1, message(), END_STREAM),
        then=Answered(),
    ),
    case(
        "6.10/end-stream-counts-from-headers",
        "END_STREAM stands on HEADERS; on CONTINUATION the bit means nothing",
        headers(1, BLOCK[:20], 0)
        + continuation(1, BLOCK[20:], END_HEADERS | END_STREAM)
        + data(1, message(), END_STREAM),
        then=Answered(),
    ),
    case(
        "6.10/trailers-continued",
        "trailers may be continued",
        headers(1, REQUEST) + data(1, message()) + headers(1, b"", END_STREAM) + continuation(1, block([("x", "y")])),
        then=Answered(),
    ),
    *(
        case(f"6.10/{name}", text, before + continuation(1, b"\x82"), then=ConnectionFails((PROTOCOL_ERROR,)))
        for name, text, before in [
            ("after-end-headers", "nothing to continue", headers(1, REQUEST)),
            ("after-end-stream", "nothing to continue, request over", call(1)),
            ("after-continuation", "the block is over", headers(1, BLOCK[:9], 0) + continuation(1, BLOCK[9:])),
            ("after-data", "DATA is between", headers(1, REQUEST) + data(1, message())),
        ]
    ),
    case(
        "6.10/stream-0",
        "CONTINUATION belongs to a stream",
        headers(1, BLOCK[:9], 0) + frame(CONTINUATION, 4, 0, BLOCK[9:]),
        then=ConnectionFails((PROTOCOL_ERROR,)),
    ),
    case(
        "6.10/out-of-nothing", "no HEADERS before it", continuation(1, BLOCK), then=ConnectionFails((PROTOCOL_ERROR,))
    ),
]
