"""Responses as a client gets them: which are good, which are malformed, which are no gRPC.

Call 1 has been sent ("hello", and the end of the request); call 3 is held back for the probe.
"""

import gzip

from .case import Case, ConnectionFails, StreamFails, Written, case
from .client_peer import Pending, Result, response
from .raw import (
    ACK,
    CANCEL,
    END,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    FRAME_SIZE_ERROR,
    NO_ERROR,
    PROTOCOL_ERROR,
    RESPONSE,
    RST_STREAM,
    SETTINGS,
    TRAILERS,
    Fields,
    block,
    continuation,
    data,
    frame,
    headers,
    message,
    rst,
)

MALFORMED = StreamFails((PROTOCOL_ERROR,))
BROKEN = ConnectionFails((PROTOCOL_ERROR,))
OK = Result()
BODY = data(1, message())
END_OF_CALL = headers(1, TRAILERS, END)
HEAD = headers(1, RESPONSE)


def head(*extra: tuple[str, str], status: str = "200") -> Fields:
    return [(":status", status), *RESPONSE[1:], *extra]


def trailers(code: str, *extra: tuple[str, str]) -> bytes:
    return headers(1, [("grpc-status", code), *extra], END)


CASES: list[Case] = [
    # -- the handshake
    case(
        "client/3.4/first-frames",
        "the preface, SETTINGS without push, then requests",
        Written(SETTINGS, flags=0),
        then=Pending(),
    ),
    case("client/3.4/no-settings", "a server's first frame is SETTINGS too", response(1), then=BROKEN, preface=b""),
    case("client/3.4/ack-first", "... not its acknowledgement", frame(SETTINGS, ACK), then=BROKEN, preface=b""),
    case(
        "client/3.4/http-1",
        "a server that speaks HTTP/1.1",
        then=ConnectionFails((PROTOCOL_ERROR, FRAME_SIZE_ERROR)),
        preface=b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n",
    ),
    case("client/6.5.3/ack", "SETTINGS is acknowledged", Written(SETTINGS, flags=ACK, times=1), then=Pending()),
    # -- good responses
    case("client/8.1/whole", "headers, data, trailers", response(1), then=OK),
    case(
        "client/8.1/several-messages",
        "many messages",
        response(1, b"a", b"", b"bc"),
        then=Result(messages=(b"a", b"", b"bc")),
    ),
    case("client/8.1/no-messages", "trailers at once behind the headers", HEAD + END_OF_CALL, then=Result(messages=())),
    case(
        "client/8.1/trailers-only",
        "one block for all",
        headers(1, head(("grpc-status", "5"), ("grpc-message", "no")), END),
        then=Result(5, (), None, "no"),
    ),
    case(
        "client/8.1/padded",
        "padding everywhere",
        headers(1, RESPONSE, pad=9) + data(1, message(), pad=20) + headers(1, TRAILERS, END, pad=0),
        then=OK,
    ),
    case(
        "client/8.1/priority",
        "priority fields in a response",
        headers(1, RESPONSE, priority=(3, 1)) + BODY + END_OF_CALL,
        then=OK,
    ),
    case(
        "client/6.10/continued",
        "blocks in pieces",
        headers(1, block(RESPONSE)[:5], 0)
        + continuation(1, block(RESPONSE)[5:])
        + BODY
        + headers(1, b"", END_STREAM)
        + continuation(1, block(TRAILERS)),
        then=OK,
    ),
    case(
        "client/8.1/interleaved", "two responses interleaved", HEAD + headers(3, RESPONSE) + BODY + END_OF_CALL, then=OK
    ),
    case(
        "client/8.1/reset-behind-trailers",
        "NO_ERROR behind the trailers is no error",
        response(1) + rst(1, NO_ERROR),
        then=OK,
    ),
    case(
        "client/8.1/early",
        "a response before the request has ended; the server stops it",
        response(1) + rst(1, NO_ERROR),
        then=OK,
        half_open=True,
    ),
    # -- interim responses
    case("client/8.1/100", "100 before the headers", headers(1, [(":status", "100")]) + response(1), then=OK),
    case(
        "client/8.1/103-twice",
        "103, more than once",
        headers(1, [(":status", "103"), ("link", "x")]) * 2 + response(1),
        then=OK,
    ),
    case(
        "client/8.1/1xx-ends",
        "an interim response does not end a stream",
        headers(1, [(":status", "100")], END),
        then=MALFORMED,
    ),
    case("client/8.6/101", "there is no 101 in HTTP/2", headers(1, [(":status", "101")]) + response(1), then=MALFORMED),
    case(
        "client/8.1/1xx-behind-headers",
        "... nor follow the final headers",
        HEAD + headers(1, [(":status", "100")]),
        then=MALFORMED,
    ),
    # -- malformed responses
    case(
        "client/8.3.2/no-status",
        "a response has :status",
        headers(1, RESPONSE[1:]) + BODY + END_OF_CALL,
        then=MALFORMED,
    ),
    case("client/8.3.2/two", "one of them", headers(1, [(":status", "200"), *RESPONSE]), then=MALFORMED),
    *(
        case(f"client/8.3.2/status-{label}", "three digits", headers(1, head(status=value)), then=MALFORMED)
        for label, value in [
            ("word", "abc"),
            ("short", "20"),
            ("long", "0200"),
            ("empty", ""),
            ("zero", "000"),
            ("sign", "+20"),
            ("unicode", "20\xb2"),
        ]
    ),
    case(
        "client/8.3/request-pseudo",
        "pseudo fields of requests",
        headers(1, [(":status", "200"), (":path", "/"), *RESPONSE[1:]]),
        then=MALFORMED,
    ),
    case(
        "client/8.3/behind-regular", "pseudo fields come first", headers(1, [RESPONSE[1], RESPONSE[0]]), then=MALFORMED
    ),
    case("client/8.2.1/upper-case", "names are lower case", headers(1, head(("X-A", "1"))), then=MALFORMED),
    case("client/8.2.1/crlf", "no line breaks in values", headers(1, head(("x-a", "1\r\nx: y"))), then=MALFORMED),
    case(
        "client/8.2.2/connection",
        "fields of an HTTP/1.1 connection",
        headers(1, head(("transfer-encoding", "chunked"))),
        then=MALFORMED,
    ),
    case(
        "client/8.1/status-in-trailers",
        "trailers have no pseudo fields",
        HEAD + BODY + headers(1, [(":status", "200"), *TRAILERS], END),
        then=MALFORMED,
    ),
    case(
        "client/8.1/trailers-do-not-end", "trailers end the stream", HEAD + BODY + headers(1, TRAILERS), then=MALFORMED
    ),
    case(
        "client/8.1/bad-trailer",
        "trailers are fields too",
        HEAD + BODY + headers(1, [*TRAILERS, ("X", "y")], END),
        then=MALFORMED,
    ),
    case("client/8.1/data-first", "DATA before the headers", BODY, then=MALFORMED),
    case(
        "client/8.1/data-between",
        "... also behind an interim response",
        headers(1, [(":status", "100")]) + BODY,
        then=MALFORMED,
    ),
    *(
        case(f"client/8.1.1/length-{label}", text, headers(1, head(("content-length", value))) + frames, then=outcome)
        for label, text, value, frames, outcome in [
            ("right", "it adds up", "10", BODY + END_OF_CALL, OK),
            ("too-small", "more DATA than declared", "9", BODY, MALFORMED),
            ("too-large", "less DATA than declared", "11", BODY + END_OF_CALL, MALFORMED),
            ("no-number", "no number", "x", BODY, MALFORMED),
            ("huge", "thousands of digits", "9" * 5000, BODY, MALFORMED),
        ]
    ),
    case(
        "client/8.1.1/length-twice",
        "two lengths",
        headers(1, head(("content-length", "10"), ("content-length", "11"))),
        then=MALFORMED,
    ),
    case(
        "client/8.1.1/length-trailers-only",
        "a body declared where none can be",
        headers(1, head(("content-length", "10"), *TRAILERS), END),
        then=MALFORMED,
    ),
    case(
        "client/6.5.2/list-too-large",
        "response headers over the limit",
        headers(1, head(*[("a", "")] * 600)),
        then=StreamFails((ENHANCE_YOUR_CALM, CANCEL, PROTOCOL_ERROR)),
    ),
    # -- what is no gRPC
    *(
        case(
            f"client/grpc/http-{code}",
            "an HTTP status instead of a gRPC one is translated",
            headers(1, [(":status", code), ("content-type", "text/html")], END),
            then=Result(None, (), status),
        )
        for code, status in [
            ("400", 13),
            ("401", 16),
            ("403", 7),
            ("404", 12),
            ("429", 14),
            ("500", 2),
            ("502", 14),
            ("503", 14),
            ("504", 14),
            ("302", 2),
            ("204", 2),
        ]
    ),
    case(
        "client/grpc/http-error-with-status",
        "a gRPC status counts, whatever the HTTP status",
        headers(1, head(("grpc-status", "8"), status="503"), END),
        then=Result(8, ()),
    ),
    case(
        "client/grpc/content-type",
        "no gRPC content",
        headers(1, [(":status", "200"), ("content-type", "text/html")]),
        then=Result(None, (), 2),
    ),
    case("client/grpc/no-content-type", "no content-type", headers(1, [(":status", "200")]), then=Result(None, (), 2)),
    case(
        "client/grpc/no-status",
        "trailers without grpc-status",
        HEAD + BODY + headers(1, [("x", "y")], END),
        then=Result(None),
    ),
    case(
        "client/grpc/no-trailers",
        "a response that ends with DATA",
        HEAD + data(1, message(), END_STREAM),
        then=Result(None),
    ),
    *(
        case(
            f"client/grpc/status-{label}",
            "a status that is none is UNKNOWN",
            HEAD + BODY + trailers(value),
            then=Result(2, text=f"the peer sent grpc-status {value!r}, which is no status"),
        )
        for label, value in [
            ("17", "17"),
            ("word", "OK"),
            ("negative", "-1"),
            ("empty", ""),
            ("underscore", "1_0"),
            ("plus", "+1"),
            ("long", "9" * 5000),
        ]
    ),
    case(
        "client/grpc/status-message",
        "a percent-encoded message",
        HEAD + trailers("3", ("grpc-message", "50%25 na%C3%AFve %zz%E4")),
        then=Result(3, (), None, "50% na\xefve %zz\ufffd"),
    ),
    # -- messages
    case(
        "client/grpc/truncated",
        "a response that ends inside a message",
        HEAD + data(1, message()[:7]) + END_OF_CALL,
        then=Result(None, (), 13),
    ),
    case(
        "client/grpc/too-large",
        "a message over the limit",
        HEAD + data(1, b"\0\x7f\xff\xff\xff"),
        Written(RST_STREAM, 1),
        then=Result(None, (), 8),
    ),
    case("client/grpc/flag", "a flag that is none", HEAD + data(1, message(b"x", 7)), then=Result(None, (), 13)),
    case(
        "client/grpc/gzip",
        "a compressed message",
        headers(1, head(("grpc-encoding", "gzip"))) + data(1, message(gzip.compress(b"hello"), 1)) + END_OF_CALL,
        then=OK,
    ),
    case(
        "client/grpc/gzip-unannounced",
        "... without grpc-encoding",
        HEAD + data(1, message(gzip.compress(b"hello"), 1)) + END_OF_CALL,
        then=Result(None, (), 13),
    ),
    case(
        "client/grpc/gzip-bomb",
        "... that is a bomb",
        headers(1, head(("grpc-encoding", "gzip"))) + data(1, message(gzip.compress(bytes(1 << 20)), 1)),
        then=Result(None, (), 8),
        max_message_bytes=1 << 19,
    ),
    case(
        "client/grpc/unknown-encoding",
        "an encoding that was not offered",
        headers(1, head(("grpc-encoding", "snappy"))),
        then=Result(None, (), 13),
    ),
]
