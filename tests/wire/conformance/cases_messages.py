"""RFC 9113 section 8: what makes a request malformed, and what does not."""

from .case import Answered, Case, GoesOn, StreamFails, case
from .raw import (
    END,
    END_STREAM,
    PROTOCOL_ERROR,
    Fields,
    block,
    data,
    headers,
    literal,
    message,
    request,
)

MALFORMED = StreamFails((PROTOCOL_ERROR,))
BODY = data(1, message(), END_STREAM)


def moved(name: str) -> Fields:
    """The usual request with one pseudo field behind the regular ones."""
    return [*request(without=name), *(field for field in request() if field[0] == name)]


CASES: list[Case] = [
    # -- 8.1: framing of messages
    case(
        "8.1/trailers",
        "trailers may follow the messages",
        headers(1, request()) + data(1, message()) + headers(1, [("x-t", "1")], END),
        then=Answered(),
    ),
    case(
        "8.1/trailers-without-data",
        "... or stand for them",
        headers(1, request()) + headers(1, [("x-t", "1")], END),
        then=Answered(),
    ),
    case(
        "8.1/empty-trailers",
        "trailers may be empty",
        headers(1, request()) + data(1, message()) + headers(1, b"", END),
        then=Answered(),
    ),
    case(
        "8.1/second-headers",
        "a second HEADERS must end the request",
        headers(1, request()) + headers(1, [("x", "y")]),
        then=MALFORMED,
    ),
    case(
        "8.1/second-request",
        "... and is no second request",
        headers(1, request()) + headers(1, request()),
        then=MALFORMED,
    ),
    case(
        "8.1/pseudo-in-trailers",
        "trailers have no pseudo fields",
        headers(1, request()) + data(1, message()) + headers(1, [(":method", "POST")], END),
        then=MALFORMED,
    ),
    case(
        "8.1/status-in-trailers",
        "... none at all",
        headers(1, request()) + data(1, message()) + headers(1, [(":status", "200")], END),
        then=MALFORMED,
    ),
    # -- 8.2.1: field names and values
    *(
        case(f"8.2.1/name-{label}", text, headers(1, request((name, "x"))) + BODY, then=MALFORMED)
        for label, text, name in [
            ("upper-case", "names are lower case", "X-TEST"),
            ("upper-case-inside", "... in each letter", "x-Test"),
            ("space", "no space in a name", "x test"),
            ("colon-inside", "no colon in a name", "x:test"),
            ("control", "no control character", "x\x01"),
            ("del", "no DEL", "x\x7f"),
            ("high", "nothing above ASCII", "x\xff"),
            ("nul", "no NUL", "x\0y"),
            ("empty", "a name has octets", ""),
        ]
    ),
    *(
        case(f"8.2.1/value-{label}", text, headers(1, request(("x-test", value))) + BODY, then=MALFORMED)
        for label, text, value in [
            ("nul", "no NUL in a value", "a\0b"),
            ("lf", "no LF", "a\nb"),
            ("cr", "no CR", "a\rb"),
            ("crlf", "no line of HTTP/1.1 smuggled", "a\r\nx-other: b"),
            ("leading-space", "no space before", " a"),
            ("trailing-space", "no space behind", "a "),
            ("leading-tab", "no tab before", "\ta"),
            ("trailing-tab", "no tab behind", "a\t"),
        ]
    ),
    *(
        case(f"8.2.1/value-{label}", text, headers(1, request(("x-test", value))) + BODY, then=Answered())
        for label, text, value in [
            ("empty", "an empty value", ""),
            ("inner-space", "spaces and tabs inside", "a \t b"),
            ("high", "octets above ASCII", "\xc3\xa4\xff"),
            ("long", "8,000 octets", "x" * 8000),
        ]
    ),
    case(
        "8.2.1/bad-pseudo-value",
        "values of pseudo fields too",
        headers(1, request(path="/test.Echo/Say\r\nx: y")) + BODY,
        then=MALFORMED,
    ),
    case(
        "8.2.1/bad-trailer-name",
        "names in trailers too",
        headers(1, request()) + data(1, message()) + headers(1, [("X-T", "1")], END),
        then=MALFORMED,
    ),
    case(
        "8.2.1/bad-trailer-value",
        "values in trailers too",
        headers(1, request()) + data(1, message()) + headers(1, [("x-t", "1\n")], END),
        then=MALFORMED,
    ),
    # -- 8.2.2: fields of the connection
    *(
        case(
            f"8.2.2/{name}",
            "fields that speak of an HTTP/1.1 connection",
            headers(1, request((name, value))) + BODY,
            then=MALFORMED,
        )
        for name, value in [
            ("connection", "keep-alive"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "close"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
        ]
    ),
    case(
        "8.2.2/connection-in-trailers",
        "... in trailers too",
        headers(1, request()) + data(1, message()) + headers(1, [("connection", "x")], END),
        then=MALFORMED,
    ),
    case("8.2.2/te-trailers", "te may say trailers", headers(1, request()) + BODY, then=Answered()),
    case("8.2.2/te-other", "... and nothing else", headers(1, request(te="trailers, deflate")) + BODY, then=MALFORMED),
    case("8.2.2/te-gzip", "... nothing else", headers(1, request(te="gzip")) + BODY, then=MALFORMED),
    # -- 8.2.3
    case(
        "8.2.3/cookies",
        "cookies may come in pieces",
        headers(1, request(("cookie", "a=b"), ("cookie", "c=d"))) + BODY,
        then=Answered(),
    ),
    # -- 8.3: pseudo fields
    case(
        "8.3/unknown-pseudo",
        "unknown pseudo fields",
        headers(1, [*request()[:4], (":test", "x"), *request()[4:]]) + BODY,
        then=MALFORMED,
    ),
    case(
        "8.3/status-in-request",
        "pseudo fields of responses",
        headers(1, [*request()[:4], (":status", "200"), *request()[4:]]) + BODY,
        then=MALFORMED,
    ),
    case(
        "8.3/protocol",
        "extended CONNECT was not offered",
        headers(1, [*request()[:4], (":protocol", "websocket"), *request()[4:]]) + BODY,
        then=MALFORMED,
    ),
    case(
        "8.3/colon-alone",
        "a name of one colon",
        headers(1, [*request()[:4], (":", "x"), *request()[4:]]) + BODY,
        then=MALFORMED,
    ),
    *(
        case(
            f"8.3/{name[1:]}-behind-regular", "pseudo fields come first", headers(1, moved(name)) + BODY, then=MALFORMED
        )
        for name in (":method", ":scheme", ":path", ":authority")
    ),
    *(
        case(
            f"8.3.1/without-{name[1:]}",
            f"a request has {name}",
            headers(1, request(without=name)) + BODY,
            then=MALFORMED,
        )
        for name in (":method", ":scheme", ":path")
    ),
    *(
        case(
            f"8.3.1/twice-{name[1:]}",
            f"{name} comes once",
            headers(1, [(name, value), *request()]) + BODY,
            then=MALFORMED,
        )
        for name, value in request()[:4]
    ),
    case("8.3.1/empty-path", ":path is not empty", headers(1, request(path="")) + BODY, then=MALFORMED),
    case(
        "8.3.1/relative-path",
        ":path starts with a slash",
        headers(1, request(path="test.Echo/Say")) + BODY,
        then=MALFORMED,
    ),
    case(
        "8.3.1/without-authority",
        ":authority may be absent",
        headers(1, request(without=":authority")) + BODY,
        then=Answered(),
    ),
    case(
        "8.3.1/host",
        "host in its place",
        headers(1, request(("host", "localhost"), without=":authority")) + BODY,
        then=Answered(),
    ),
    case(
        "8.3.1/any-order",
        "pseudo fields in any order",
        headers(1, [*reversed(request()[:4]), *request()[4:]]) + BODY,
        then=Answered(),
    ),
    case("8.3.1/no-fields", "an empty header block", headers(1, b"", END), then=MALFORMED),
    # -- 8.1.1: content-length
    *(
        case(f"8.1.1/length-{label}", text, headers(1, request(("content-length", value))) + frames, then=outcome)
        for label, text, value, frames, outcome in [
            ("right", "it adds up", "10", BODY, Answered()),
            (
                "right-in-pieces",
                "... over several frames",
                "10",
                data(1, message()[:3]) + data(1, message()[3:], END_STREAM),
                Answered(),
            ),
            ("right-with-padding", "... padding apart", "10", data(1, message(), END_STREAM, pad=50), Answered()),
            (
                "right-with-trailers",
                "... and trailers behind",
                "10",
                data(1, message()) + headers(1, [("x", "y")], END),
                Answered(),
            ),
            ("zero", "nothing", "0", data(1, b"", END_STREAM), Answered()),
            ("too-small", "more DATA than declared", "9", BODY, MALFORMED),
            ("too-small-early", "... seen before the end", "9", data(1, message()), MALFORMED),
            ("too-large", "less DATA than declared", "11", BODY, MALFORMED),
            ("too-large-in-pieces", "... over several frames", "100", data(1, message()) + BODY, MALFORMED),
            (
                "too-large-with-trailers",
                "... ended by trailers",
                "11",
                data(1, message()) + headers(1, [("x", "y")], END),
                MALFORMED,
            ),
            ("no-number", "no number", "ten", BODY, MALFORMED),
            ("negative", "a sign", "-10", BODY, MALFORMED),
            ("plus", "... of either kind", "+10", BODY, MALFORMED),
            ("fraction", "no integer", "10.0", BODY, MALFORMED),
            ("huge", "a number of 30 digits", "9" * 30, BODY, MALFORMED),
        ]
    ),
    case(
        "8.1.1/length-without-body",
        "END_STREAM on headers that declare a body",
        headers(1, request(("content-length", "10")), END),
        then=MALFORMED,
    ),
    case(
        "8.1.1/length-zero-without-body",
        "... or none",
        headers(1, request(("content-length", "0")), END),
        then=Answered(),
    ),
    case(
        "8.1.1/two-lengths-differ",
        "two different lengths",
        headers(1, request(("content-length", "10"), ("content-length", "11"))) + BODY,
        then=MALFORMED,
    ),
    # -- limits on lists
    case(
        "6.5.2/list-too-large",
        "a list over SETTINGS_MAX_HEADER_LIST_SIZE is answered with 431; the connection stays in step",
        headers(1, request(("x-a", "x" * 8_000), ("x-b", "y" * 8_200)), 0) + b"\0\0\0\x09\x04\0\0\0\x01" + BODY,
        then=Answered(status=8, http=431),
    ),
    case(
        "6.5.2/list-too-large-by-overhead",
        "... 32 octets count for each field",
        headers(1, request(*[("a", "")] * 500)) + BODY,
        then=Answered(status=8, http=431),
    ),
    case(
        "6.5.2/list-too-large-in-trailers",
        "trailers over the limit end their stream",
        headers(1, request()) + data(1, message()) + headers(1, [("a", "")] * 600, END),
        then=StreamFails((11, 1)),
    ),
    case(
        "8.2/literal-repeats",
        "the same field may come many times",
        headers(1, block(request()) + literal("x-many", "v") * 100) + BODY,
        then=Answered(),
    ),
    case("8/no-body", "a request of headers alone", headers(1, request(), END), then=Answered()),
    case("8/nothing-sent", "no request at all", then=GoesOn()),
]
