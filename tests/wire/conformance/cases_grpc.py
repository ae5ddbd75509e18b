"""gRPC over HTTP/2: requests that HTTP/2 allows and gRPC does not, and framing of messages.

Sources: gRPC's PROTOCOL-HTTP2.md (requests, length-prefixed messages), its compression.md, its statuscodes.md.
"""

import gzip
import zlib

from .case import Answered, Case, Check, case
from .raw import (
    DATA,
    END,
    END_STREAM,
    data,
    headers,
    message,
    request,
)

UNKNOWN, UNIMPLEMENTED, INTERNAL, EXHAUSTED = 2, 12, 13, 8
BODY = data(1, message(), END_STREAM)
GZIP = ("grpc-encoding", "gzip")


def echoed(*bodies: bytes) -> Check:
    wanted = b"".join(message(body) for body in bodies)
    return Check(
        lambda frames: b"".join(one.payload for one in frames if one.kind == DATA and one.stream == 1) == wanted
    )


CASES: list[Case] = [
    # -- requests
    *(
        case(f"grpc/content-type-{label}", text, headers(1, request(content_type=value)) + BODY, then=Answered())
        for label, text, value in [
            ("proto", "application/grpc+proto", "application/grpc+proto"),
            ("parameter", "with a parameter", "application/grpc; charset=utf-8"),
            ("proto-parameter", "... behind +proto", "application/grpc+proto;x=y"),
        ]
    ),
    *(
        case(
            f"grpc/content-type-{label}",
            text,
            headers(1, request(content_type=value)) + BODY,
            then=Answered(status=INTERNAL, http=415),
        )
        for label, text, value in [
            ("json", "no gRPC at all", "application/json"),
            ("web", "gRPC-Web is another protocol", "application/grpc-web"),
            ("web-text", "... in both forms", "application/grpc-web-text"),
            ("grpcx", "a longer word", "application/grpcx"),
            ("empty", "nothing", ""),
        ]
    ),
    case(
        "grpc/content-type-missing",
        "no content-type",
        headers(1, request(without="content-type")) + BODY,
        then=Answered(status=INTERNAL, http=415),
    ),
    *(
        case(
            f"grpc/method-{name.lower()}",
            "calls are POST requests",
            headers(1, request(method=name), END),
            then=Answered(status=INTERNAL, http=405, fields=(("allow", "POST"),)),
        )
        for name in ("GET", "HEAD", "PUT", "DELETE", "OPTIONS", "post")
    ),
    case(
        "grpc/te-missing",
        "te: trailers only finds bad proxies; servers go on without it (as C core and Go do)",
        headers(1, request(without="te")) + BODY,
        then=Answered(),
    ),
    case(
        "grpc/unknown-service",
        "a service nobody serves",
        headers(1, request(path="/no.Such/Say")) + BODY,
        then=Answered(status=UNIMPLEMENTED),
    ),
    case(
        "grpc/unknown-path",
        "a path of no method",
        headers(1, request(path="/")) + BODY,
        then=Answered(status=UNIMPLEMENTED),
    ),
    case(
        "grpc/path-asterisk",
        "a request for the server itself",
        headers(1, request(path="*", method="OPTIONS"), END),
        then=Answered(status=INTERNAL, http=405),
    ),
    # -- deadlines
    *(
        case(
            f"grpc/timeout-{value}",
            "at most eight digits and a unit",
            headers(1, request(("grpc-timeout", value))) + BODY,
            then=Answered(),
        )
        for value in ("1H", "10M", "100S", "99999999m", "99999999u", "99999999n")
    ),
    *(
        case(
            f"grpc/timeout-bad-{label}",
            "a timeout that cannot be read",
            headers(1, request(("grpc-timeout", value))) + BODY,
            then=Answered(status=INTERNAL),
        )
        for label, value in [
            ("unit", "10x"),
            ("no-unit", "10"),
            ("no-digits", "S"),
            ("nine-digits", "123456789S"),
            ("negative", "-1S"),
            ("plus", "+1S"),
            ("fraction", "1.5S"),
            ("empty", ""),
            ("space", "1 S"),
            ("other-digits", "\xb2S"),
        ]
    ),
    # -- messages
    case(
        "grpc/no-message",
        "a call of no messages",
        headers(1, request()) + data(1, b"", END_STREAM),
        echoed(),
        then=Answered(),
    ),
    case(
        "grpc/empty-message",
        "a message of no octets",
        headers(1, request()) + data(1, message(b""), END_STREAM),
        echoed(b""),
        then=Answered(),
    ),
    case(
        "grpc/two-in-one-frame",
        "messages need no frames of their own",
        headers(1, request()) + data(1, message(b"a") + message(b"bc"), END_STREAM),
        echoed(b"a", b"bc"),
        then=Answered(),
    ),
    case(
        "grpc/prefix-octet-by-octet",
        "a prefix may be cut anywhere",
        headers(1, request())
        + b"".join(data(1, bytes((octet,))) for octet in message(b"abc") + message(b"d"))
        + data(1, b"", END_STREAM),
        echoed(b"abc", b"d"),
        then=Answered(),
    ),
    case(
        "grpc/tail-and-head",
        "one frame with the end of one and the beginning of the next",
        headers(1, request())
        + data(1, message(b"abc")[:6])
        + data(1, message(b"abc")[6:] + message(b"defg")[:7])
        + data(1, message(b"defg")[7:] + message(b"h"), END_STREAM),
        echoed(b"abc", b"defg", b"h"),
        then=Answered(),
    ),
    case(
        "grpc/truncated-prefix",
        "a stream that ends inside a prefix",
        headers(1, request()) + data(1, b"\0\0\0", END_STREAM),
        then=Answered(status=INTERNAL),
    ),
    case(
        "grpc/truncated-message",
        "... or inside a message",
        headers(1, request()) + data(1, message()[:-1], END_STREAM),
        then=Answered(status=INTERNAL),
    ),
    case(
        "grpc/truncated-by-trailers",
        "... by trailers",
        headers(1, request()) + data(1, message()[:-1]) + headers(1, [("x", "y")], END),
        then=Answered(status=INTERNAL),
    ),
    case(
        "grpc/flag-2",
        "only 0 and 1 are flags",
        headers(1, request()) + data(1, message(b"x", 2), END_STREAM),
        then=Answered(status=INTERNAL),
    ),
    case(
        "grpc/flag-255",
        "... whatever grpc-encoding says",
        headers(1, request(GZIP)) + data(1, message(b"x", 255), END_STREAM),
        then=Answered(status=INTERNAL),
    ),
    case(
        "grpc/too-large",
        "a message over the limit",
        headers(1, request()) + data(1, message(bytes(1001)), END_STREAM),
        then=Answered(status=EXHAUSTED),
        max_message_bytes=1000,
    ),
    case(
        "grpc/exactly-large",
        "... and at it",
        headers(1, request()) + data(1, message(bytes(1000)), END_STREAM),
        then=Answered(),
        max_message_bytes=1000,
    ),
    case(
        "grpc/too-large-by-prefix",
        "the prefix alone says so: nothing is waited for, nothing allocated",
        headers(1, request()) + data(1, b"\0\xff\xff\xff\xff"),
        then=Answered(status=EXHAUSTED),
    ),
    case(
        "grpc/too-large-second",
        "messages before it were read",
        headers(1, request()) + data(1, message(b"abc") + b"\0\x7f\xff\xff\xff"),
        then=Answered(status=EXHAUSTED),
    ),
    # -- compression
    case(
        "grpc/gzip",
        "a gzip message",
        headers(1, request(GZIP)) + data(1, message(gzip.compress(b"abc"), 1), END_STREAM),
        echoed(b"abc"),
        then=Answered(),
    ),
    case(
        "grpc/deflate",
        "a deflate message (zlib's format)",
        headers(1, request(("grpc-encoding", "deflate"))) + data(1, message(zlib.compress(b"abc"), 1), END_STREAM),
        echoed(b"abc"),
        then=Answered(),
    ),
    case(
        "grpc/gzip-and-plain",
        "each message says for itself",
        headers(1, request(GZIP)) + data(1, message(b"a") + message(gzip.compress(b"b"), 1), END_STREAM),
        echoed(b"a", b"b"),
        then=Answered(),
    ),
    case(
        "grpc/gzip-empty",
        "an empty message, compressed",
        headers(1, request(GZIP)) + data(1, message(gzip.compress(b""), 1), END_STREAM),
        echoed(b""),
        then=Answered(),
    ),
    case(
        "grpc/identity",
        "identity may be named",
        headers(1, request(("grpc-encoding", "identity"))) + BODY,
        then=Answered(),
    ),
    case(
        "grpc/compressed-without-encoding",
        "a set flag without grpc-encoding",
        headers(1, request()) + data(1, message(gzip.compress(b"x"), 1), END_STREAM),
        then=Answered(status=INTERNAL),
    ),
    case(
        "grpc/compressed-identity",
        "... with identity",
        headers(1, request(("grpc-encoding", "identity"))) + data(1, message(b"x", 1), END_STREAM),
        then=Answered(status=INTERNAL),
    ),
    case(
        "grpc/unknown-encoding",
        "an encoding that nobody offered: the answer says what there is",
        headers(1, request(("grpc-encoding", "snappy"))) + BODY,
        then=Answered(status=UNIMPLEMENTED, fields=(("grpc-accept-encoding", "identity,gzip,deflate"),)),
    ),
    case(
        "grpc/not-gzip",
        "octets that are no gzip",
        headers(1, request(GZIP)) + data(1, message(b"not gzip", 1), END_STREAM),
        then=Answered(status=INTERNAL),
    ),
    case(
        "grpc/gzip-truncated",
        "a gzip stream cut short",
        headers(1, request(GZIP)) + data(1, message(gzip.compress(b"abc" * 9)[:-9], 1), END_STREAM),
        then=Answered(status=INTERNAL),
    ),
    case(
        "grpc/gzip-bomb",
        "small on the wire, over the limit once decompressed",
        headers(1, request(GZIP)) + data(1, message(gzip.compress(bytes(1 << 20)), 1), END_STREAM),
        then=Answered(status=EXHAUSTED),
        max_message_bytes=1 << 19,
    ),
    case(
        "grpc/deflate-bomb",
        "... in deflate",
        headers(1, request(("grpc-encoding", "deflate")))
        + data(1, message(zlib.compress(bytes(1 << 20)), 1), END_STREAM),
        then=Answered(status=EXHAUSTED),
        max_message_bytes=1 << 19,
    ),
    case(
        "grpc/metadata-binary",
        "binary metadata",
        headers(1, request(("x-bin", "AAEC"), ("y-bin", "AAECAw"))) + BODY,
        then=Answered(),
    ),
    case(
        "grpc/neighbours-of-a-bad-call",
        "a call that fails leaves the others",
        headers(1, request()) + headers(3, request()) + data(3, message(b"x", 9)) + BODY,
        echoed(b"hello"),
        then=Answered(),
    ),
]
