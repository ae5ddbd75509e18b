"""However the bytes are cut, the same happens: hooks, their order, and every octet written.

The exchanges are the cases of the tables, good and bad, and longer ones of many calls. The application here reads in
its hooks and answers nothing, so what is written comes from the connection alone and cannot depend on when the
application runs.
"""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import settings as run
from hypothesis import strategies as st
from tests.sizes import size

from dk_trio.wire.client import ClientConnection, ClientStream
from dk_trio.wire.errors import PeerError
from dk_trio.wire.server import ServerConnection
from dk_trio.wire.stream import MessageFault, Stream

from . import client_peer, server_peer, test_client, test_server
from .raw import (
    CANCEL,
    DATA,
    END,
    END_STREAM,
    PADDED,
    REQUEST,
    Fields,
    block,
    call,
    continuation,
    data,
    frame,
    headers,
    message,
    ping,
    request,
    rst,
    settings,
    window,
)


class Recorded(ClientStream):
    """Writes down each hook, and what a reader finds in it."""

    __slots__ = ("log",)

    def __init__(self, connection, stream_id, log):
        Stream.__init__(self, connection, stream_id)
        self.head = self.trailers = None
        self.log = log

    def on_readable(self):
        found = []
        try:
            while (body := self.next_message()) is not None:
                found.append(body)
        except MessageFault as fault:
            found.append(str(fault))
        fields = [head and head.fields for head in (self.head, self.trailers)]
        self.log.append(("readable", self.id, found, self.remote_ended, str(self.fault), fields))

    def on_writable(self):
        self.log.append(("writable", self.id))
        self.pump()

    def on_reset(self, code, *, remote, reason):
        self.log.append(("reset", self.id, code, remote, reason))


class Events:
    def __init__(self, log):
        self.log = log

    def on_settings(self):
        self.log.append(("settings",))

    def on_pong(self, payload):
        self.log.append(("pong", payload))

    def on_goaway(self, last_stream_id, code, debug):
        self.log.append(("goaway", last_stream_id, code, debug))


def server(log, options):
    def accept(stream_id, head):
        log.append(("accept", stream_id, head.fields))
        return Recorded(connection, stream_id, log)

    connection = ServerConnection(accept, events=Events(log), **options)
    return connection


def client(log, options):
    options = {name: value for name, value in options.items() if name not in {"half_open", "cancelled"}}
    connection = ClientConnection(authority="localhost", events=Events(log), **options)
    for number in (1, 3):
        stream = Recorded(connection, number, log)
        connection.open(stream, "/test.Echo/Say")
        stream.queue_message(b"x" * 40_000, end=True)
    return connection


def play(make, options, chunks):
    """Hooks, octets written, and the connection error, if there was one."""
    log = []
    connection = make(log, options)
    written = [connection.take()]
    for chunk in chunks:
        try:
            connection.receive(chunk)
        except PeerError as error:
            log.append(("error", error.code, error.reason))
        written.append(connection.take())
    return log, b"".join(written)


def octets(case, handshake):
    start = handshake if case.preface is None else case.preface
    return start + b"".join(step for step in case.steps if isinstance(step, bytes))


def huffman_call(stream: int, fields: Fields) -> bytes:
    return headers(stream, fields) + data(stream, message(b"x" * 300)) + data(stream, message(b""), END_STREAM, pad=7)


EXCHANGE = b"".join(
    [
        server_peer.HANDSHAKE,
        settings((4, 100_000), (1, 0), (5, 20_000)),
        call(1, b"one", b"two" * 100),
        headers(3, block(REQUEST)[:11], 0),
        continuation(3, block(REQUEST)[11:30], 0),
        continuation(3, block(REQUEST)[30:]),
        data(3, message(b"a" * 20_000)[:16_000]),
        ping(b"between!"),
        window(0, 1000),
        data(3, message(b"a" * 20_000)[16_000:] + message(b"b") + message(b"c")[:3]),
        frame(0xAA, 3, 3, b"grease"),
        data(3, message(b"c")[3:]),
        headers(5, request(("x-bin", "AAEC"), ("grpc-timeout", "10S")), pad=30, priority=(3, 9)),
        rst(5, CANCEL),
        huffman_call(7, request(("user-agent", "cut/1.0"))),
        headers(3, [("x-trailer", "1")], END),
        headers(9, request(method="GET"), END),
        headers(11, request(("TE", "x"))),
        data(11, b"late"),
        frame(DATA, PADDED | END_STREAM, 11, b"\x02xx"),
        window(7, 5),
        call(13),
        frame(7, 0, 0, bytes(8)),
    ]
)

SERVER = {case.name: (server, case.options, octets(case, server_peer.HANDSHAKE)) for case in test_server.CASES}
CLIENT = {case.name: (client, case.options, octets(case, client_peer.HANDSHAKE)) for case in test_client.CASES}
ALL = {"exchange": (server, {}, EXCHANGE), **SERVER, **CLIENT}
SHORT = sorted(name for name, (_, _, sent) in ALL.items() if len(sent) < 3_000)
LONG = sorted(set(ALL) - set(SHORT))


def test_the_exchange_is_eventful():
    log, written = play(*ALL["exchange"][:2], [EXCHANGE])
    assert {entry[0] for entry in log} == {"accept", "readable", "reset", "settings", "goaway"}
    assert len(log) > 15
    assert len(written) > 150


@pytest.mark.parametrize("name", ["exchange", *SHORT])
def test_octet_by_octet(name):
    make, options, sent = ALL[name]
    whole = play(make, options, [sent])
    assert play(make, options, [sent[at : at + 1] for at in range(len(sent))]) == whole


@run(deadline=None, max_examples=size(300, 6000))
@given(name=st.sampled_from(["exchange", *SHORT, *LONG]), cuts=st.lists(st.floats(0, 1), max_size=12))
def test_cut_anywhere(name, cuts):
    make, options, sent = ALL[name]
    marks = sorted({0, len(sent), *(int(cut * len(sent)) for cut in cuts)})
    chunks = [sent[start:end] for start, end in pairwise(marks)]
    assert play(make, options, chunks) == play(make, options, [sent])


@run(deadline=None)
@given(cuts=st.lists(st.integers(0, len(EXCHANGE)), max_size=40))
def test_the_exchange_cut_anywhere(cuts):
    marks = sorted({0, len(EXCHANGE), *cuts})
    chunks = [EXCHANGE[start:end] for start, end in pairwise(marks)]
    assert play(server, {}, chunks) == play(server, {}, [EXCHANGE])


@pytest.mark.parametrize("size", [2, 3, 8, 9, 10, 17, 1000, 16_383, 16_393])
def test_cut_evenly(size):
    for name in ["exchange", *LONG]:
        make, options, sent = ALL[name]
        chunks = [sent[start : start + size] for start in range(0, min(len(sent), 2000 * size), size)]
        assert play(make, options, chunks) == play(make, options, [b"".join(chunks)]), name
