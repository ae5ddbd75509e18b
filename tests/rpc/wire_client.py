"""A gRPC client without opinions, for tests of the server: the wire's client half on a stream, and every step by hand.

It never retries, never hides a reset, and does what it is told: leave a window shut, forget END_STREAM, fall silent.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager

import trio
import trio.testing
from grpclib.const import Cardinality, Handler, Status
from multidict import MultiDict
from tests._pb.dk_trio.test.v1 import Message

from dk_trio import rpc
from dk_trio.wire import ClientConnection, ClientStream, PeerError
from dk_trio.wire.frames import PREFACE, SETTINGS_ACK, settings_frame
from dk_trio.wire.metadata import decode_metadata, encode_metadata, encode_timeout

DAY = 86_400
"""Seconds of virtual time within which every test must be done; a deadlock gets there at once."""


class Reset(Exception):
    """The server reset the stream, or the connection was lost; the code is the argument."""


class Call(ClientStream):
    """One call. `messages` holds what has come and was not read."""

    __slots__ = ("changed", "client")

    def __init__(self, client: WireClient) -> None:
        super().__init__(client.wire, client.wire.next_stream_id)
        self.client = client
        self.changed = trio.Event()

    def _change(self) -> None:
        self.changed.set()
        self.changed = trio.Event()

    def on_readable(self) -> None:
        self._change()

    def on_writable(self) -> None:
        self._change()

    def on_reset(self, code: int, *, remote: bool, reason: str) -> None:
        self._change()

    async def send(self, message: Message, *, end: bool = False, compressed: bool = False) -> None:
        """Send one message, waiting for windows; one that was cut off before is finished first."""
        await self._pump()
        self.queue_message(bytes(message), end=end, compressed=compressed)
        await self._pump()

    async def _pump(self) -> None:
        while not self.pump():
            await self.client.flush()
            if self in self.connection.blocked:
                await self.changed.wait()
        await self.client.flush()

    async def send_end(self) -> None:
        self.queue_end()
        await self.client.flush()

    async def reset_by_client(self, code: int = 8) -> None:
        self.reset(code)
        await self.client.flush()

    async def headers(self) -> MultiDict[str | bytes]:
        """Initial metadata, once it has come."""
        while self.head is None:
            self._check()
            await self.changed.wait()
        return decode_metadata(self.head.fields)

    async def receive(self) -> Message | None:
        """The next message, None after the last; gives its window back."""
        data = await self.receive_bytes()
        return None if data is None else Message.FromString(data)

    async def receive_bytes(self) -> bytes | None:
        """The next message of whatever type."""
        while True:
            data = self.next_message()
            if data is not None:
                await self.client.flush()
                return data
            if self.remote_ended:
                return None
            self._check()
            changed = self.changed  # before anything else may run
            self.starve()
            await self.client.flush()
            await changed.wait()

    async def status(self) -> tuple[Status, str | None]:
        """How the call ended. Messages that have come stay where they are."""
        while self.trailers is None:
            self._check()
            await self.changed.wait()
        status = self.trailers.status
        assert status is not None, self.trailers
        return status, self.trailers.message

    async def answer(self) -> Message:
        """The message of a unary answer, which must be OK."""
        message = await self.receive()
        assert await self.status() == (Status.OK, None)
        assert message is not None
        return message

    def trailing(self) -> MultiDict[str | bytes]:
        assert self.trailers is not None
        return decode_metadata(self.trailers.fields)

    def _check(self) -> None:
        if self.reset_code is not None and self.trailers is None:
            raise Reset(self.reset_code)


class WireClient:
    """One connection. It reads while `read` runs, and answers settings and pings only then."""

    def __init__(
        self,
        stream: trio.abc.Stream,
        fields: Iterable[tuple[bytes, bytes]] = (),
        stream_window: int = 1 << 20,
        connection_window: int = 1 << 24,
    ) -> None:
        self.stream = stream
        self.goaways: list[tuple[int, int, bytes]] = []
        self.pongs: list[bytes] = []
        self.answer_pings = True
        self.lost = trio.Event()
        self._lock = trio.Lock()
        self.wire = ClientConnection(
            authority="test",
            fields=list(fields),
            events=self,
            stream_window=stream_window,
            connection_window=connection_window,
        )

    def on_settings(self) -> None:
        pass

    def on_pong(self, payload: bytes) -> None:
        self.pongs.append(payload)

    def on_goaway(self, last_stream_id: int, code: int, debug: bytes) -> None:
        self.goaways.append((last_stream_id, code, debug))

    async def flush(self) -> None:
        """Write what is queued."""
        async with self._lock:
            if self.wire.out:
                await self.stream.send_all(self.wire.take())

    async def read(self) -> None:
        """Read until the server closes the connection, then `lost` is set."""
        try:
            while data := await self.stream.receive_some(65536):
                self.wire.receive(bytes(data), trio.current_time())
                if self.answer_pings:
                    await self.flush()
        except (trio.BrokenResourceError, trio.ClosedResourceError, PeerError):
            pass
        self.wire.close(2, "lost", remote=True)
        self.lost.set()

    async def call(
        self,
        method: str,
        *messages: Message,
        end: bool = True,
        timeout: float | bytes | None = None,
        metadata: Mapping[str, str | bytes] | None = None,
    ) -> Call:
        """Begin a call of "/test.Service/{method}" and send its messages; `end` ends the request.

        `timeout` is in seconds, or bytes to be sent as grpc-timeout.
        """
        call = Call(self)
        path = method if method.startswith("/") else f"/test.Service/{method}"
        fields = encode_metadata(metadata or {})
        encoded = encode_timeout(timeout) if isinstance(timeout, float | int) else timeout
        self.wire.open(call, path, timeout=encoded, metadata=fields, end=end and not messages)
        for index, message in enumerate(messages):
            await call.send(message, end=end and index == len(messages) - 1)
        await self.flush()
        return call

    async def unary(self, method: str, message: Message | None = None) -> Message:
        """A whole unary call that must succeed."""
        return await (await self.call(method, message or Message())).answer()


SHAPES = {
    "unary": Cardinality.UNARY_UNARY,
    "server_stream": Cardinality.UNARY_STREAM,
    "client_stream": Cardinality.STREAM_UNARY,
    "bidi": Cardinality.STREAM_STREAM,
}


class TestService:
    """A service object from bare handlers: `TestService(unary=handler, bidi_name=...)`.

    The name's beginning says the cardinality (see `SHAPES`). Paths are "/test.Service/{name}".
    """

    __test__ = False

    def __init__(self, **handlers) -> None:
        self.handlers = handlers

    def __mapping__(self) -> dict[str, Handler]:
        mapping = {}
        for name, function in self.handlers.items():
            shape = next(shape for prefix, shape in SHAPES.items() if name.startswith(prefix))
            mapping[f"/test.Service/{name}"] = Handler(function, shape, Message, Message)
        return mapping


async def echo(stream: rpc.ServerCall) -> None:
    """A handler for all four shapes: what came goes back; with one answer, the last of what came."""
    last = None
    async for message in stream:
        if stream.handler.cardinality.server_streaming:
            await stream.send_message(message)
        last = message
    if not stream.handler.cardinality.server_streaming:
        await stream.send_message(last or Message())


@asynccontextmanager
async def connected(
    server: rpc.Server, *, pair=trio.testing.memory_stream_pair, read: bool = True, **options
) -> AsyncIterator[WireClient]:
    """A client of `server` over memory. Everything must be over within a day of virtual time."""
    ours, theirs = pair()
    with trio.fail_after(DAY):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.serve_stream, theirs)
            client = WireClient(ours, **options)
            await client.flush()
            if read:
                nursery.start_soon(client.read)
                await trio.testing.wait_all_tasks_blocked()  # the settings of both sides hold
            yield client
            await client.stream.aclose()
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def serving(
    options: rpc.ServerOptions | None = None, *, interceptors=(), client=None, **handlers
) -> AsyncIterator[tuple[WireClient, rpc.Server]]:
    """A server with these handlers, and a client of it. Afterwards nothing may be left of either."""
    server = rpc.Server([TestService(**handlers)], options=options, interceptors=interceptors)
    async with connected(server, **(client or {})) as connection:
        yield connection, server
    assert server.statistics().rpcs == 0
    assert server.statistics().connections == 0
    assert server.idle_workers == 0


def bare_preface() -> bytes:
    """What a client must say first, and the acknowledgement of the server's settings."""
    return PREFACE + settings_frame({}) + SETTINGS_ACK
