"""Valid traffic of every shape between ``wire`` and h2, each in both roles: all messages arrive, nothing else does.

Windows from nothing upwards, tables of every size, frames cut to every limit, and the octets that we get cut anywhere.
What one side calls an error the other must not have sent.
"""

from dataclasses import dataclass

import h2.config
import h2.connection
import h2.events
import h2.settings
from hypothesis import given
from hypothesis import settings as run
from hypothesis import strategies as st
from tests.sizes import size

from .client_peer import Call, ClientPeer, Result
from .raw import PREFACE, REQUEST, RESPONSE, TRAILERS, Fields, message
from .server_peer import ServerPeer

Codes = h2.settings.SettingCodes
SIZES = st.sampled_from([0, 1, 5, 100, 16_379, 16_380, 40_000, 70_000])


@dataclass(frozen=True)
class Plan:
    """One conversation: calls as lists of message sizes, what h2 announces at first and later, how octets are cut."""

    calls: list[list[int]]
    announced: dict[int, int]
    changes: list[dict[int, int]]
    cuts: list[int]


announcements = st.fixed_dictionaries(
    {},
    optional={
        Codes.INITIAL_WINDOW_SIZE: st.sampled_from([0, 1, 1000, 65_535, 1 << 20]),
        Codes.HEADER_TABLE_SIZE: st.sampled_from([0, 40, 100, 4096, 65_536]),
        Codes.MAX_FRAME_SIZE: st.sampled_from([16_384, 20_000, 1 << 20]),
    },
)
plans = st.builds(
    Plan,
    calls=st.lists(st.lists(SIZES, max_size=4), min_size=1, max_size=4),
    announced=announcements,
    changes=st.lists(announcements, max_size=3),
    cuts=st.lists(st.integers(1, 30_000), min_size=1, max_size=5),
)


class Talker:
    """h2 with messages to send as windows allow, crediting what it gets one frame late."""

    def __init__(self, plan: Plan, *, client: bool) -> None:
        self.connection = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=client, header_encoding="utf-8")
        )
        self.connection.initiate_connection()
        self.connection.update_settings(plan.announced)
        self.changes = list(plan.changes)
        self.unacknowledged = 2  # h2 takes any acknowledgement for that of all changes, so it makes one at a time
        self.unsent: dict[int, bytes] = {}
        self.ends: dict[int, Fields | None] = {}
        self.received: dict[int, bytes] = {}
        self.fields: dict[int, dict[str, str]] = {}
        self.ended: set[int] = set()
        self.uncredited: list[tuple[int, int]] = []

    def start(
        self, stream: int, fields: list[tuple[str, str]], octets: bytes, end: list[tuple[str, str]] | None
    ) -> None:
        """Headers now, octets as windows allow, then END_STREAM by DATA or by trailers."""
        self.connection.send_headers(stream, fields)
        self.unsent[stream] = octets
        self.ends[stream] = end

    def feed(self, chunk: bytes) -> None:
        for event in [event for one in frames(chunk) for event in self.connection.receive_data(one)]:
            match event:
                case h2.events.RequestReceived() | h2.events.ResponseReceived() | h2.events.TrailersReceived():
                    self.fields.setdefault(event.stream_id, {}).update(event.headers)
                case h2.events.DataReceived():
                    self.received[event.stream_id] = self.received.get(event.stream_id, b"") + event.data
                    self.uncredited.append((event.stream_id, event.flow_controlled_length))
                case h2.events.SettingsAcknowledged():
                    self.unacknowledged -= 1
                case h2.events.StreamEnded():
                    self.ended.add(event.stream_id)
                case h2.events.StreamReset() | h2.events.ConnectionTerminated():
                    raise AssertionError(event)

    def write(self) -> bytes:
        for stream, length in self.uncredited:
            if length:
                self.connection.acknowledge_received_data(length, stream)
        self.uncredited = []
        # A window that starts at 0 has nothing to be acknowledged: open all of them by hand.
        for stream in self.connection.streams:
            if stream not in self.ended and self.connection.remote_flow_control_window(stream) < 20_000:
                self.connection.increment_flow_control_window(20_000, stream)
        if self.changes and not self.unacknowledged:
            self.unacknowledged = 1
            self.connection.update_settings(self.changes.pop())
        for stream, octets in list(self.unsent.items()):
            room = min(self.connection.local_flow_control_window(stream), self.connection.max_outbound_frame_size)
            if octets and room > 0:
                self.connection.send_data(stream, octets[:room])
                self.unsent[stream] = octets[room:]
            elif not octets:
                end = self.ends.pop(stream)
                del self.unsent[stream]
                if end is None:
                    self.connection.end_stream(stream)
                else:
                    self.connection.send_headers(stream, end, end_stream=True)
        return self.connection.data_to_send()


def cut(octets: bytes, cuts: list[int]) -> list[bytes]:
    """Pieces whose sizes go round in ``cuts``, never more than a few hundred of them."""
    smallest = len(octets) // 200
    pieces, at, turn = [], 0, 0
    while at < len(octets):
        size = max(cuts[turn % len(cuts)], smallest)
        pieces.append(octets[at : at + size])
        at += size
        turn += 1
    return pieces


def frames(octets: bytes) -> list[bytes]:
    """Whole frames: h2 applies a raised frame size only with the next octets it is given."""
    at, found = len(PREFACE) if octets.startswith(PREFACE) else 0, []
    start = 0
    while at < len(octets):
        at += 9 + int.from_bytes(octets[at : at + 3], "big")
        found.append(octets[start:at])
        start = at
    return found


def bodies(sizes: list[int]) -> list[bytes]:
    return [bytes([65 + number]) * size for number, size in enumerate(sizes)]


@run(deadline=None, max_examples=size(400, 8000))
@given(plans)
def test_h2_calls_our_server(plan):
    talker = Talker(plan, client=True)
    peer = ServerPeer()
    wanted = {}
    for number, sizes in enumerate(plan.calls):
        stream = 2 * number + 1
        wanted[stream] = b"".join(message(body) for body in bodies(sizes))
        talker.start(
            stream, [*REQUEST, ("x-call", str(number))], wanted[stream], [("x-end", "1")] if number % 2 else None
        )
    for _ in range(200):
        for piece in cut(talker.write(), plan.cuts):
            peer.receive(piece)
        assert peer.error is None
        talker.feed(peer.written())
        if talker.ended == set(wanted):
            break
    assert talker.ended == set(wanted)
    for stream, octets in wanted.items():
        assert talker.received.get(stream, b"") == octets
        assert talker.fields[stream]["grpc-status"] == "0"
    assert not peer.connection.streams


@run(deadline=None, max_examples=size(400, 8000))
@given(plans)
def test_our_client_calls_h2(plan):
    talker = Talker(plan, client=False)
    peer = ClientPeer(calls=False)
    calls: dict[int, Call] = {}
    waiting: dict[int, list[bytes]] = {}
    for sizes in plan.calls:
        call = peer.open()
        calls[call.id], waiting[call.id] = call, bodies(sizes)
    wanted = {stream: tuple(sent) for stream, sent in waiting.items()}
    answered = set()
    for _ in range(200):
        for stream, call in calls.items():
            # END_STREAM goes with the last message: h2 refuses an empty frame while a window is negative.
            while not call.local_ended and call.pump():
                if not waiting[stream]:
                    call.queue_end()
                elif not call.queue_message(waiting[stream].pop(0), end=len(waiting[stream]) == 0):
                    break
        talker.feed(peer.written())
        for stream in talker.ended - answered:
            answered.add(stream)
            talker.start(stream, RESPONSE, talker.received.get(stream, b""), TRAILERS)
        for piece in cut(talker.write(), plan.cuts):
            peer.receive(piece)
        assert peer.error is None
        if all(call.trailers for call in calls.values()):
            break
    for stream, call in calls.items():
        assert call.result == Result(0, wanted[stream])
    assert not peer.connection.streams
