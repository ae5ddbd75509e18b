"""A ServerConnection with a tiny application behind it, fed frame by frame, and everything it wrote."""

from __future__ import annotations

from grpclib.const import Status

from dk_trio.wire.errors import PeerError
from dk_trio.wire.heads import Refusal, RequestHead
from dk_trio.wire.server import ServerConnection
from dk_trio.wire.stream import MessageFault, Stream

from .raw import ACK, PREFACE, SETTINGS, Frame, FrameReader, frame, settings

HANDSHAKE = PREFACE + settings() + frame(SETTINGS, ACK)


class Call(Stream):
    """Notes what the connection tells it; the application below acts on it between two frames."""

    __slots__ = ("ended", "path", "replies", "seen", "served", "started")

    def __init__(self, connection: ServerConnection, stream_id: int, path: str) -> None:
        super().__init__(connection, stream_id)
        self.path = path
        self.seen: list[bytes] = []
        self.replies: list[bytes] | None = None
        self.started = self.served = False
        self.ended: tuple[int, bool] | None = None

    def on_reset(self, code: int, *, remote: bool, reason: str) -> None:
        assert self.ended is None, "a stream ends once"
        self.ended = (code, remote)


class ServerPeer:
    """The connection and its application of four methods.

    ``Say`` echoes all messages at the end of the request, ``Early`` answers at once, ``Hold`` reads and never answers,
    ``Stall`` does not even read.
    """

    def __init__(self, **options: object) -> None:
        self.connection = ServerConnection(self._accept, **options)
        self.calls: list[Call] = []
        self.frames: list[Frame] = []
        self.error: PeerError | None = None
        self._reader = FrameReader()
        self._rest = b""
        self._octets = b""
        self._preface = len(PREFACE)
        self._take()

    def _accept(self, stream_id: int, head: RequestHead) -> Stream | Refusal:
        if not head.path.startswith("/test.Echo/"):
            return Refusal(200, Status.UNIMPLEMENTED, f"no method {head.path}")
        call = Call(self.connection, stream_id, head.path.rpartition("/")[2])
        self.calls.append(call)
        return call

    def feed(self, chunk: bytes, now: float = 0.0) -> None:
        """Whole frames one at a time, and what is left over as it is."""
        self._rest += chunk
        while self._rest and self.error is None:
            size = len(self._rest)
            if self._preface:
                size = self._preface = min(size, self._preface)
                self._preface = 0
            elif size >= 9:
                size = min(size, 9 + int.from_bytes(self._rest[:3], "big"))
            piece, self._rest = self._rest[:size], self._rest[size:]
            self.receive(piece, now)

    def receive(self, chunk: bytes, now: float = 0.0) -> None:
        try:
            self.connection.receive(chunk, now)
        except PeerError as error:
            self.error = error
        else:
            for call in self.calls:
                if call.ended is None and not call.served:
                    self._serve(call)
            self.calls = [call for call in self.calls if call.ended is None and not call.served]
        self._take()

    def _serve(self, call: Call) -> None:
        if call.path == "Stall":
            return
        try:
            while (body := call.next_message()) is not None:
                call.seen.append(body)
            if call.fault is not None:
                raise call.fault
        except MessageFault as fault:
            self._finish(call, fault.status, fault.message)
            return
        if call.replies is None and (call.path == "Early" or (call.path == "Say" and call.remote_ended)):
            call.replies = list(call.seen)
            call.started = True
            call.queue_headers(self.connection.response_block())
        if call.replies is None or not call.pump():
            return
        while call.replies:
            if not call.queue_message(call.replies.pop(0)):
                return
        self._finish(call, Status.OK, None)

    def _finish(self, call: Call, status: Status, message: str | None) -> None:
        call.served = True
        call.queue_headers(self.connection.trailers_block(status, message, only=not call.started), end=True)
        self.connection.finish(call)

    def written(self) -> bytes:
        """The octets written since the last call."""
        self._take()
        octets, self._octets = self._octets, b""
        return octets

    def _take(self) -> None:
        octets = self.connection.take()
        self._octets += octets
        self.frames += self._reader.feed(octets)
