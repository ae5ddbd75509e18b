"""A ClientConnection with two calls under way, fed frame by frame as by a server, and everything it wrote."""

from __future__ import annotations

from dataclasses import dataclass

from dk_trio.wire.client import ClientConnection, ClientStream
from dk_trio.wire.errors import PeerError
from dk_trio.wire.stream import MessageFault

from .raw import ACK, PREFACE, RESPONSE, SETTINGS, TRAILERS, Frame, FrameReader, data, frame, headers, message, settings

HANDSHAKE = settings() + frame(SETTINGS, ACK)


def response(stream: int, *bodies: bytes) -> bytes:
    """A whole good response."""
    return (
        headers(stream, RESPONSE)
        + data(stream, b"".join(map(message, bodies or (b"hello",))))
        + headers(stream, TRAILERS, 5)
    )


@dataclass(frozen=True)
class Result:
    """How call 1 ended for the caller: messages, then a status of the server's or a fault found here."""

    status: int | None = 0
    messages: tuple[bytes, ...] = (b"hello",)
    fault: int | None = None
    text: str | None = None


@dataclass(frozen=True)
class Reset:
    """Call 1 was ended by the server, with this code, and nothing is written about it."""

    code: int


@dataclass(frozen=True)
class Pending:
    """Call 1 still waits."""


class Call(ClientStream):
    """One call as its caller sees it."""

    __slots__ = ("ended", "failure", "seen")

    def __init__(self, connection: ClientConnection, stream_id: int) -> None:
        super().__init__(connection, stream_id)
        self.seen: list[bytes] = []
        self.failure: MessageFault | None = None
        self.ended: tuple[int, bool] | None = None

    def on_reset(self, code: int, *, remote: bool, reason: str) -> None:
        assert self.ended is None, "a stream ends once"
        self.ended = (code, remote)

    @property
    def result(self) -> Result | Reset | Pending | None:
        """None when the call was ended by this side's reset."""
        head = self.trailers or self.head
        if self.failure is not None:
            return Result(None, tuple(self.seen), self.failure.status.value)
        if self.head is not None and self.head.fault is not None:
            return Result(None, tuple(self.seen), self.head.fault[0].value)
        if self.trailers is not None and head is not None:
            status = None if head.status is None else head.status.value
            return Result(status, tuple(self.seen), None, head.message)
        if self.ended is not None:
            return Reset(self.ended[0]) if self.ended[1] else None
        return Result(None, tuple(self.seen)) if self.remote_ended else Pending()


class ClientPeer:
    """Call 1 sends "hello" and, unless ``half_open``, ends; call 3 shows whether the connection works.

    Without ``calls`` there are none of them.
    """

    def __init__(
        self, *, calls: bool = True, half_open: bool = False, cancelled: bool = False, **options: object
    ) -> None:
        self.connection = ClientConnection(authority="localhost", **options)
        self.frames: list[Frame] = []
        self.error: PeerError | None = None
        self._reader = FrameReader(PREFACE)
        self._rest = b""
        self._octets = b""
        self.calls: dict[int, Call] = {}
        for ends in (not half_open, True) if calls else ():
            call = self.open()
            call.queue_message(b"hello", end=ends)
        self._take()
        if cancelled:
            self.connection.finish(self.calls[1])
            self._take()

    def open(self) -> Call:
        call = Call(self.connection, self.connection.next_stream_id)
        self.connection.open(call, "/test.Echo/Say")
        self.calls[call.id] = call
        return call

    def feed(self, chunk: bytes, now: float = 0.0) -> None:
        """Whole frames one at a time, and what is left over as it is."""
        self._rest += chunk
        while self._rest and self.error is None:
            size = len(self._rest)
            if size >= 9:
                size = min(size, 9 + int.from_bytes(self._rest[:3], "big"))
            piece, self._rest = self._rest[:size], self._rest[size:]
            self.receive(piece, now)

    def receive(self, chunk: bytes, now: float = 0.0) -> None:
        try:
            self.connection.receive(chunk, now)
        except PeerError as error:
            self.error = error
        for call in self.calls.values():
            self._read(call)
        self._take()

    def _read(self, call: Call) -> None:
        if call.failure is not None:
            return
        try:
            while (body := call.next_message()) is not None:
                call.seen.append(body)
            if call.fault is not None:
                raise call.fault
        except MessageFault as fault:
            call.failure = fault
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
