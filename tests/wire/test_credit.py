"""Windows are given back octet by octet: what was received, once, and no more."""

from dk_trio.wire import ClientConnection, ClientStream, ServerConnection, Stream
from dk_trio.wire.frames import FRAME_HEADER_SIZE, WINDOW_UPDATE

MESSAGES = 2500
SIZE = 10_000


def granted(octets: bytes) -> dict[int, int]:
    """By stream, what the WINDOW_UPDATE frames among these add to its window."""
    grants: dict[int, int] = {}
    while octets:
        length, kind = int.from_bytes(octets[:3], "big"), octets[3]
        stream_id = int.from_bytes(octets[5:FRAME_HEADER_SIZE], "big")
        payload, octets = octets[FRAME_HEADER_SIZE:][:length], octets[FRAME_HEADER_SIZE + length :]
        if kind == WINDOW_UPDATE:
            grants[stream_id] = grants.get(stream_id, 0) + int.from_bytes(payload, "big")
    return grants


def test_a_reader_gives_back_what_it_was_sent_and_no_more() -> None:
    made: list[Stream] = []

    def accept(stream_id: int, head: object) -> Stream:
        made.append(Stream(server, stream_id))
        return made[-1]

    server = ServerConnection(accept)
    client = ClientConnection(authority="test")
    client.receive(server.take())
    call = ClientStream(client, client.next_stream_id)
    client.open(call, "/test/Test")
    server.receive(client.take())
    server.take()
    (stream,) = made
    given = {0: 0, call.id: 0}
    received = 0
    for _ in range(MESSAGES):
        assert call.queue_message(bytes(SIZE))
        server.receive(client.take())
        while (body := stream.next_message()) is not None:
            received += len(body) + 5
        answer = server.take()
        for stream_id, size in granted(answer).items():
            given[stream_id] += size
        client.receive(answer)
        # Windows are given back when half of them is used up.
        assert received - server.stream_window <= given[call.id] <= received
        assert given[0] <= received
    assert received == MESSAGES * (SIZE + 5)
    assert given[0] > received / 2
