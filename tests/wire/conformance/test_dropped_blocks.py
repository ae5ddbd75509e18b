"""A header block that is made for a stream which is over is not sent, and the tables of both ends stay in step."""

import pytest
from grpclib.const import Status

from .raw import HEADERS, call, headers, request, rst
from .server_peer import HANDSHAKE, ServerPeer

HELD = request(path="/test.Echo/Hold")


def answer(peer, one, *, fields=()):
    """What an application does that has not yet noticed the reset."""
    one.queue_headers(peer.connection.response_block(fields))
    one.queue_message(b"late")
    one.queue_headers(peer.connection.trailers_block(Status.OK, None), end=True)


@pytest.mark.parametrize("before", [0, 1, 3])
@pytest.mark.parametrize("fields", [(), ((b"x", b"y"),)])
def test_answers_to_a_call_that_was_reset(before, fields):
    peer = ServerPeer()
    peer.feed(HANDSHAKE)
    for number in range(before):
        peer.feed(call(2 * number + 1))
    peer.feed(headers(11, HELD))
    (held,) = peer.calls
    peer.feed(rst(11))
    answer(peer, held, fields=fields)
    peer.connection.finish(held)
    for number in range(3):
        peer.feed(call(2 * number + 13))
    answered = [one for one in peer.frames if one.kind == HEADERS]
    assert [dict(one.fields).get("grpc-status") for one in answered[1::2]] == ["0"] * (before + 3)
    assert not [one for one in peer.frames if one.stream == 11]


def test_an_answer_of_which_only_the_headers_were_sent():
    peer = ServerPeer()
    peer.feed(HANDSHAKE + headers(1, HELD))
    (held,) = peer.calls
    held.queue_headers(peer.connection.response_block())
    peer.feed(rst(1))
    held.queue_headers(peer.connection.trailers_block(Status.OK, None), end=True)
    peer.feed(call(3) + call(5))
    trailers = [dict(one.fields) for one in peer.frames if one.kind == HEADERS and one.flags & 1]
    assert trailers == [{"grpc-status": "0"}] * 2
