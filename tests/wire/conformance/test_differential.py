"""Random traffic, valid and mutated, to ``wire`` and to h2: they see the same events, or the difference is argued.

After each frame both sides are compared: requests and responses with their fields, DATA, ends, resets, pings answered,
and whether the connection or a stream has failed. A run ends when either connection has failed.

Accepted differences (and nothing else):

* h2 fails the whole connection where we reset one stream: RFC 9113 section 5.4 allows it.
* `STRICTER`, `LAXER` and `CODES` below, each with its argument.
* gRPC refusals (405, 415, bad grpc-timeout): HTTP/2 allows the request, so h2 reports it; we answer without a stream.
* h2 joins cookies, as section 8.2.3 allows: they are compared joined.
* h2 ends everything at a GOAWAY, which section 6.8 does not say: a run ends there. `test_oracle` has the cases.
"""

from dataclasses import dataclass

from hypothesis import given, note
from hypothesis import settings as run
from hypothesis import strategies as st
from tests.sizes import size

from dk_trio.wire.client import ClientConnection, ClientStream
from dk_trio.wire.errors import PeerError
from dk_trio.wire.heads import RequestHead
from dk_trio.wire.server import ServerConnection
from dk_trio.wire.stream import Stream

from . import client_peer, server_peer
from .oracle import WINDOW, Oracle
from .raw import (
    COMPRESSION_ERROR,
    CONTINUATION,
    END_HEADERS,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    HEADERS,
    PING,
    PREFACE,
    PROTOCOL_ERROR,
    REQUEST,
    RESPONSE,
    RST_STREAM,
    STREAM_CLOSED,
    TRAILERS,
    FrameReader,
    block,
    data,
    frame,
    headers,
    literal,
    message,
    ping,
    priority,
    request,
    rst,
    settings,
    window,
)

ALTSVC = 10  # h2 knows and checks this frame; to us it is unknown
CALLS = 4  # requests that a client has open before a server's traffic begins


def joined(fields):
    """Cookies in one field, as h2 has them."""
    cookies = [value for name, value in fields if name == "cookie"]
    rest = [field for field in fields if field[0] != "cookie"]
    return [*rest, ("cookie", "; ".join(cookies))] if cookies else rest


class Heard(ClientStream):
    """Collects what arrives on one stream, as octets of DATA."""

    __slots__ = ("hears",)

    def __init__(self, connection, stream_id, hears):
        Stream.__init__(self, connection, stream_id)
        self.head = self.trailers = None
        self.hears = hears
        if isinstance(connection, ClientConnection):
            self.expected_bytes = -1

    def receive_data(self, data, start, end):
        self.hears.data[self.id] = self.hears.data.get(self.id, b"") + data[start:end]
        self._consumed += end - start
        self._credit(self._consumed)
        self._consumed = 0

    def on_readable(self):
        if self.head is not None and self.id not in self.hears.opened:
            self.hears.opened[self.id] = joined(self.head.fields)
        if self.remote_ended:
            self.hears.ended.add(self.id)

    def on_reset(self, code, *, remote, reason):
        if remote:
            self.hears.reset_by_peer[self.id] = code
        else:
            self.hears.reasons[self.id] = reason


class Ours:
    """The same view of our connection as `Oracle` gives of h2's."""

    def __init__(self, *, client=False):
        self.opened, self.data, self.ended, self.reset_by_peer, self.resets = {}, {}, set(), {}, {}
        self.reasons, self.failed, self.reason, self.pongs, self.refused = {}, None, "", [], set()
        self._reader = FrameReader(PREFACE if client else b"")
        options = {"stream_window": WINDOW, "connection_window": WINDOW}
        if client:
            self.connection = ClientConnection(authority="localhost", **options)
            for number in range(1, 2 * CALLS, 2):
                self.connection.open(Heard(self.connection, number, self), "/test.Echo/Say")
        else:
            self.connection = ServerConnection(self._accept, **options)
        self._written()

    def _accept(self, stream_id, head):
        self.opened[stream_id] = joined(head.fields)
        return Heard(self.connection, stream_id, self)

    def feed(self, chunk):
        if self.failed is not None:
            return
        try:
            self.connection.receive(chunk)
        except PeerError as error:
            self.failed, self.reason = int(error.code), error.reason
        self._written()

    def _written(self):
        for one in self._reader.feed(self.connection.take()):
            if one.kind == RST_STREAM:
                self.resets.setdefault(one.stream, one.code)
            elif one.kind == PING and one.flags:
                self.pongs.append(one.payload)
            elif one.kind == HEADERS and dict(one.fields).get(":status"):
                self.refused.add(one.stream)


# -- traffic ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Op:
    text: str
    octets: bytes


GOOD = [
    REQUEST,
    request(("x-test", "1")),
    request(("content-length", "10")),
    request(("cookie", "a=b"), ("cookie", "c")),
    request(("host", "elsewhere"), without=":authority"),
    [*REQUEST[1:4], REQUEST[0], *REQUEST[4:]],
]
BAD = [
    request(("X-Test", "1")),
    request(("x test", "1")),
    request(("x-test", " 1")),
    request(("x-test", "a\r\nb")),
    request(("connection", "close")),
    request(te="gzip"),
    request(without=":path"),
    request(without=":method"),
    request(path=""),
    request((":path", "/x")),
    [(":status", "200"), *REQUEST],
    request(("content-length", "x")),
]
REFUSED = [request(method="GET"), request(content_type="text/plain"), request(("grpc-timeout", "x"))]
ANSWERS = [RESPONSE, [*RESPONSE, ("x-test", "1")], [(":status", "100")], [(":status", "503")]]
BAD_ANSWERS = [RESPONSE[1:], [*RESPONSE, ("X", "1")], [(":path", "/"), *RESPONSE], [RESPONSE[1], RESPONSE[0]], REQUEST]
ENDINGS = [TRAILERS, [], [("x-t", "1")], [("X-T", "1")], [(":status", "200")], [("connection", "x")]]


@st.composite
def blocks(draw, lists):
    """A header list as octets: plain, indexed for later, or spoilt."""
    fields = draw(st.sampled_from(lists))
    how = draw(st.sampled_from(["plain"] * 6 + ["insert", "insert", "shrink", "refer", "spoil"]))
    if how == "insert":
        return b"".join(literal(name, value, 0x40) for name, value in fields)
    if how == "shrink":
        return b"\x3f\x21" + block(fields)
    if how == "refer":
        return block(fields) + b"\xbe"
    return block(fields)[: draw(st.integers(0, 40))] if how == "spoil" else block(fields)


@st.composite
def head_frames(draw, lists, streams):
    stream = draw(streams)
    coded = draw(blocks(lists))
    flags = draw(st.sampled_from([0, 0, END_STREAM]))
    shape = draw(st.sampled_from(["whole"] * 5 + ["padded", "priority", "continued", "interrupted"]))
    text = f"headers {stream} {shape} {flags} {coded!r}"
    if shape == "continued":
        cut = draw(st.integers(0, len(coded)))
        return Op(text, headers(stream, coded[:cut], flags) + frame(CONTINUATION, END_HEADERS, stream, coded[cut:]))
    if shape == "interrupted":
        return Op(
            text,
            headers(stream, coded[:10], flags)
            + draw(st.sampled_from([ping(), data(stream, b"x"), frame(0xEE, 0, stream)])),
        )
    flags |= END_HEADERS
    if shape == "padded":
        return Op(text, headers(stream, coded, flags, pad=draw(st.integers(0, 255))))
    if shape == "priority":
        return Op(text, headers(stream, coded, flags, priority=(draw(st.sampled_from([0, 1, 3, 1 << 31])), 9)))
    return Op(text, headers(stream, coded, flags))


@st.composite
def data_frames(draw, streams):
    stream, size = draw(streams), draw(st.sampled_from([0, 1, 5, 10, 300, 16_384]))
    flags = draw(st.sampled_from([0, 0, END_STREAM]))
    pad = draw(st.sampled_from([None, None, None, 0, 255])) if size < 16_000 else None
    return Op(
        f"data {stream} {size} {flags} {pad}", data(stream, (message(bytes(max(size - 5, 0))))[:size], flags, pad=pad)
    )


def control(streams):
    """Frames that are neither HEADERS nor DATA, most of them good."""
    increments = st.sampled_from([1, 1, 100, 65_535, (1 << 31) - 1, (1 << 30), 0])
    numbers = st.sampled_from(
        [
            (1, 0),
            (1, 4096),
            (2, 0),
            (3, 0),
            (4, 0),
            (4, 65_535),
            (4, 1 << 30),
            (5, 16_384),
            (5, 100),
            (2, 2),
            (4, 1 << 31),
            (99, 9),
        ]
    )
    return st.one_of(
        st.builds(
            lambda stream, code: Op(f"rst {stream}", rst(stream, code)), streams, st.sampled_from([0, 8, 0xBEEF])
        ),
        st.builds(lambda stream, by: Op(f"window {stream} {by}", window(stream, by)), st.just(0) | streams, increments),
        st.builds(lambda stream, on: Op(f"priority {stream} {on}", priority(stream, on)), streams, streams),
        st.builds(lambda pairs: Op(f"settings {pairs}", settings(*pairs)), st.lists(numbers, max_size=3)),
        st.builds(lambda octets: Op(f"ping {octets!r}", ping(octets)), st.binary(min_size=8, max_size=8)),
        st.builds(lambda stream: Op(f"unknown {stream}", frame(0x99, 0xFF, stream, b"?")), st.just(0) | streams),
        st.builds(
            lambda kind, flags, stream, octets: Op(
                f"raw {kind} {flags} {stream} {octets!r}", frame(kind, flags, stream, octets)
            ),
            st.integers(0, 6),
            st.sampled_from([0, 1, 4, 5, 8, 12, 32, 40]),
            st.just(0) | streams,
            st.binary(max_size=9),
        ),
    )


@st.composite
def traffic(draw, heads, endings, streams, orderly):
    """Frames in some order; ``orderly`` ones open streams with rising ids first, so that much of it is valid."""
    ops = []
    if orderly:
        count = draw(st.integers(1, 4))
        ops += [Op(f"good {stream}", headers(stream, heads[0])) for stream in range(1, 2 * count, 2)]
    some = st.one_of(
        head_frames(heads, streams),
        head_frames(endings, streams),
        data_frames(streams),
        data_frames(streams),
        control(streams),
    )
    ops += draw(st.lists(some, max_size=12))
    if ops and draw(st.integers(0, 3)) == 0:
        at = draw(st.integers(0, len(ops) - 1))
        octets = bytearray(ops[at].octets)
        where = draw(st.integers(0, min(len(octets), 60) - 1))
        octets[where] ^= 1 << draw(st.integers(0, 7))
        if octets[3] == ALTSVC:
            octets[3] = 0xAA
        ops[at] = Op(f"mutated at {where}: {ops[at].text}", bytes(octets))
    return ops


# -- judgement ----------------------------------------------------------------------------------------------------


STRICTER = {  # part of our reason -> why h2 has none
    "bytes, the limit is 16384": "h2 waits for the whole frame before it looks at its length",
    "RST_STREAM on idle stream": "section 6.4: MUST be a connection error",
    "HEADERS on idle stream": "only PUSH_PROMISE opens streams of a server (section 8.4); h2 takes them",
    "HEADERS on closed stream": "section 5.1 allows the connection error; h2 resets the stream",
    "PUSH_PROMISE, which nobody allowed": "h2 waits for its CONTINUATION first",
    "SETTINGS_": "section 6.5.3: each value counts; h2 sees the last of several for one setting",
    "depends on itself": "RFC 7540 section 5.3.1, in any state; h2 does not look at priorities of closed streams",
    "DATA does not add up": "h2 holds content-length only against END_STREAM on DATA",
    "is not a status": "h2 leaves the value of :status to its user",
    "status 101": "section 8.6: HTTP/2 has none",
    "is not absolute": "section 8.3.1: a path starts with a slash",
    "END_STREAM on headers that declare a body": "h2 holds content-length only against END_STREAM on DATA",
    "more than two table size updates": "RFC 7541 section 4.2 needs two",
}
LAXER = {  # part of h2's reason -> why we have none
    "frame with invalid padding": "section 6.2: padding may fill HEADERS; hyperframe wants an octet of block besides",
    "Received frame with invalid header": "h2 judges the frame's header; we wait for the whole frame",
    "frame with non-compliant data": "WINDOW_UPDATE of 0 on a closed stream: nothing is left to fail; see test_oracle",
    "does not have an :authority or Host": "RFC 9113 says SHOULD, and gRPC clients may omit it",
}
CODES = {  # where both fail: our code, h2's code -> why they differ
    (COMPRESSION_ERROR, PROTOCOL_ERROR): "section 4.3: MUST be COMPRESSION_ERROR; h2 reports PROTOCOL_ERROR",
    (STREAM_CLOSED, PROTOCOL_ERROR): "an id that is too low is a closed stream or a protocol error (section 5.1.1)",
    (FRAME_SIZE_ERROR, PROTOCOL_ERROR): "two errors in one frame: h2 looks at ids and flags first",
    (COMPRESSION_ERROR, ENHANCE_YOUR_CALM): "a block too large and broken: h2 stops at the first, we decode on",
    (FLOW_CONTROL_ERROR, PROTOCOL_ERROR): "two errors in one SETTINGS frame",
    (PROTOCOL_ERROR, FLOW_CONTROL_ERROR): "two errors in one SETTINGS frame",
    (PROTOCOL_ERROR, FRAME_SIZE_ERROR): "... or at the payload, before it asks whether the frame may come at all",
}


def compare(ops, ours, oracle):
    for op in ops:
        note(op.text)
        ours.feed(op.octets)
        oracle.feed(op.octets)
        note(f"  wire: {ours.failed} {ours.reason} {ours.resets} {ours.reasons}")
        note(f"  h2: {oracle.failed} {oracle.reason} {oracle.resets}")
        if ours.failed is not None or oracle.failed is not None:
            failures(ours, oracle)
            return
        if ours.connection.peer_last_stream is not None:
            return  # a mutation made a GOAWAY of something
        events(ours, oracle)


def failures(ours, oracle):
    """At least one connection has failed."""
    if oracle.failed is None:
        assert any(part in ours.reason for part in STRICTER), f"only wire fails: {ours.reason}"
    elif ours.failed is not None:
        assert ours.failed == oracle.failed or (ours.failed, oracle.failed) in CODES
    elif not ours.resets:
        assert any(part in oracle.reason for part in LAXER), f"only h2 fails: {oracle.reason}"


def events(ours, oracle):
    """Both live: they have seen the same, streams apart that one side has given up."""
    for stream in set(ours.resets) - set(oracle.resets) - ours.refused:
        reason = ours.reasons.get(stream) or malformed(oracle.opened[stream])
        assert any(part in reason for part in STRICTER), f"only wire resets {stream}: {reason}"
    assert set(oracle.resets) <= set(ours.resets), "only h2 resets"
    gone = set(ours.resets) | ours.refused
    for name in ("opened", "data", "reset_by_peer"):
        mine, theirs = getattr(ours, name), getattr(oracle, name)
        assert {key: value for key, value in mine.items() if key not in gone and value} == {
            key: value for key, value in theirs.items() if key not in gone and value
        }, name
    assert ours.ended - gone == oracle.ended - gone
    assert ours.pongs == oracle.pongs


def malformed(fields):
    """Why a request was reset that never became a stream."""
    return RequestHead(fields).malformed or "END_STREAM on headers that declare a body"


STREAMS = st.sampled_from([1, 1, 3, 3, 5, 7, 9, 2, 0])


@run(deadline=None, max_examples=size(300, 6000))
@given(st.booleans().flatmap(lambda orderly: traffic(GOOD + BAD + REFUSED, ENDINGS, STREAMS, orderly)))
def test_as_server(ops):
    ours, oracle = Ours(), Oracle()
    for side in (ours, oracle):
        side.feed(server_peer.HANDSHAKE)
    compare(ops, ours, oracle)


@run(deadline=None, max_examples=size(300, 6000))
@given(st.booleans().flatmap(lambda orderly: traffic(ANSWERS + BAD_ANSWERS, ENDINGS, STREAMS, orderly)))
def test_as_client(ops):
    ours, oracle = Ours(client=True), Oracle(client=True, requests=[REQUEST] * CALLS)
    for side in (ours, oracle):
        side.feed(client_peer.HANDSHAKE)
    compare(ops, ours, oracle)
