"""What tests of the channel stand on: pretend networks in memory, and a server whose every step is made by hand."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import trio
import trio.testing
from grpclib.const import Cardinality, Status
from tests._pb.dk_trio.test.v1 import Message

from dk_trio import rpc
from dk_trio.wire import PeerError, RequestHead, ServerConnection, Stream

from .wire_client import DAY, TestService

STEADY = rpc.RetryPolicy(jitter=0.0)
ONCE = rpc.RetryPolicy(max_attempts=1)
AT_ONCE = False


class HandCall(Stream):
    """One call as the hand-made server sees it; answer with `reply`, `finish`, `reset`, or not at all."""

    __slots__ = ("changed", "gone", "head", "server", "started")

    def __init__(self, server: HandServer, stream_id: int, head: RequestHead) -> None:
        super().__init__(server.wire, stream_id)
        self.server = server
        self.head = head
        self.changed = trio.Event()
        self.gone: int | None = None
        self.started = False

    def _change(self) -> None:
        self.changed.set()
        self.changed = trio.Event()

    def on_readable(self) -> None:
        self._change()

    def on_writable(self) -> None:
        self._change()

    def on_reset(self, code: int, *, remote: bool, reason: str) -> None:
        self.gone = code
        self._change()

    @property
    def fields(self) -> dict[str, str]:
        return dict(self.head.fields)

    async def receive(self) -> Message | None:
        """The next request message, None after the last or a reset."""
        while True:
            data = self.next_message()
            if data is not None:
                await self.server.flush()
                return Message.FromString(data)
            if self.remote_ended or self.gone is not None:
                return None
            self.starve()
            await self.server.flush()
            await self.changed.wait()

    async def until_gone(self) -> int:
        """Wait for the client's reset; its code."""
        while self.gone is None:
            await self.changed.wait()
        return self.gone

    async def headers(self, *extra: tuple[bytes, bytes]) -> None:
        self.started = True
        self.queue_headers(self.server.wire.response_block(extra))
        await self.server.flush()

    async def raw_headers(self, *fields: tuple[bytes, bytes], end: bool = False) -> None:
        """Any header list at all."""
        encoder = self.server.wire.encoder
        self.started = True
        self.queue_headers(encoder.begin() + b"".join([encoder.field(*field) for field in fields]), end=end)
        await self.server.flush()

    async def reply(self, message: Message | None = None, *, data: bytes | None = None) -> None:
        if not self.started:
            await self.headers()
        sent = self.queue_message(bytes(message or Message()) if data is None else data)
        await self.server.flush()
        while not sent and self.gone is None:
            if self in self.connection.blocked:
                await self.changed.wait()
            sent = self.pump()
            await self.server.flush()

    async def finish(self, status: Status = Status.OK, text: str | None = None, *extra: tuple[bytes, bytes]) -> None:
        """Trailers; alone when nothing was sent before."""
        wire = self.server.wire
        self.queue_headers(wire.trailers_block(status, text, extra, only=not self.started), end=True)
        wire.finish(self)
        await self.server.flush()

    async def answer(self, message: Message | None = None) -> None:
        await self.reply(message)
        await self.finish()

    async def reset_by_server(self, code: int) -> None:
        self.reset(code)
        await self.server.flush()


class HandServer:
    """One connection of a server without any behaviour of its own beyond HTTP/2."""

    def __init__(self, stream: trio.StapledStream[Any, Any], options: dict[str, Any]) -> None:
        self.stream = stream
        self._lock = trio.Lock()
        self._send_calls, self.calls = trio.open_memory_channel[HandCall](1000)
        self.goaways: list[tuple[int, int, bytes]] = []
        self.pongs: list[bytes] = []
        self.pings = 0
        self.deaf = False
        self.closed = trio.Event()
        self.wire = ServerConnection(self._accept, events=self, **options)

    def _accept(self, stream_id: int, head: RequestHead) -> HandCall:
        call = HandCall(self, stream_id, head)
        self._send_calls.send_nowait(call)
        return call

    def on_settings(self) -> None:
        pass

    def on_pong(self, payload: bytes) -> None:
        self.pongs.append(payload)

    def on_goaway(self, last_stream_id: int, code: int, debug: bytes) -> None:
        self.goaways.append((last_stream_id, code, debug))

    async def next_call(self) -> HandCall:
        return await self.calls.receive()

    async def flush(self) -> None:
        async with self._lock:
            if self.wire.out:
                try:
                    await self.stream.send_all(self.wire.take())
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    return

    async def run(self) -> None:
        try:
            await self.flush()
            while data := await self.stream.receive_some(65536):
                if self.deaf:
                    continue
                self.wire.receive(bytes(data), trio.current_time())
                await self.flush()
        except (trio.BrokenResourceError, trio.ClosedResourceError, PeerError):
            pass
        finally:
            self.wire.close(8, "the client has gone", remote=True)
            self.closed.set()
            self.stream.send_stream.close()
            self.stream.receive_stream.close()

    async def goaway(self, last: int | None = None, code: int = 0, debug: bytes = b"") -> None:
        self.wire.goaway(code, debug, last_stream_id=last)
        await self.flush()

    async def lose(self) -> None:
        """Cut the connection."""
        await trio.aclose_forcefully(self.stream)


class Network:
    """Where a channel connects to. `plan` says what each attempt gets, in order; afterwards `default`.

    An entry is "hand" (a `HandServer`, taken with `accept`), a `rpc.Server`, "hang", or an exception to raise.
    """

    def __init__(self, nursery: trio.Nursery, default: Any = "hand", wire: dict[str, Any] | None = None) -> None:
        self.nursery = nursery
        self.default = default
        self.plan: list[Any] = []
        self.attempts: list[float] = []
        self.wire = wire or {}
        self._send, self._accepted = trio.open_memory_channel[HandServer](1000)

    async def connect(self) -> trio.abc.Stream:
        self.attempts.append(trio.current_time())
        what = self.plan.pop(0) if self.plan else self.default
        await trio.lowlevel.checkpoint()
        if isinstance(what, BaseException):
            raise what
        if what == "hang":
            await trio.sleep_forever()
        ours, theirs = trio.testing.memory_stream_pair()
        if what == "hand":
            server = HandServer(theirs, self.wire)
            self.nursery.start_soon(server.run)
            self._send.send_nowait(server)
        elif what == "mute":
            self.nursery.start_soon(self._swallow, theirs)
        else:
            self.nursery.start_soon(what.serve_stream, theirs)
        return ours

    @staticmethod
    async def _swallow(stream: trio.abc.Stream) -> None:
        while await stream.receive_some(65536):
            pass
        await stream.aclose()

    async def accept(self) -> HandServer:
        """The server's end of the next connection."""
        return await self._accepted.receive()


@asynccontextmanager
async def channel_to(
    default: Any = "hand", *, interceptors=(), wire: dict[str, Any] | None = None, seed: int = 1, **options: Any
) -> AsyncIterator[tuple[rpc.Channel, Network]]:
    """A channel and the network it connects to. Afterwards no task of either may be left within a day."""
    options.setdefault("retry", ONCE)
    with trio.fail_after(DAY):
        async with trio.open_nursery() as nursery:
            network = Network(nursery, default, wire)
            channel = rpc.open_channel(
                "test",
                options=rpc.ChannelOptions(**options),
                connect=network.connect,
                interceptors=interceptors,
                random=Random(seed),
            )
            async with channel:
                yield channel, network
            statistics = channel.statistics()
            assert (statistics.calls, statistics.waiting, statistics.connections) == (0, 0, 0)
            assert len(channel.deadlines) == 0
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def channel_and_server(
    options: dict[str, Any] | None = None, *, interceptors=(), server_interceptors=(), **handlers: Callable[..., Any]
) -> AsyncIterator[tuple[rpc.Channel, rpc.Server]]:
    """A channel to a real server with these handlers (see `TestService`); no RPC may be left afterwards."""
    server = rpc.Server([TestService(**handlers)], interceptors=server_interceptors)
    async with channel_to(server, interceptors=interceptors, **(options or {})) as (channel, _):
        yield channel, server
    assert server.statistics().rpcs == 0


async def left(channel: rpc.Channel, state: rpc.ConnectivityState) -> None:
    """Wait until the channel is no longer in this state."""
    while channel.state is state:
        await channel._changed.wait()


def unary(channel: rpc.Channel, name: str = "unary", **arguments: Any) -> rpc.ClientCall:
    return request(channel, name, Cardinality.UNARY_UNARY, **arguments)


def request(channel: rpc.Channel, name: str, shape: Cardinality, **arguments: Any) -> rpc.ClientCall:
    return channel.request(f"/test.Service/{name}", shape, Message, Message, **arguments)


async def call(channel: rpc.Channel, message: Message | None = None, name: str = "unary", **arguments: Any) -> Message:
    """A whole unary call, in one of the two ways there are; see the fixture `both_ways`."""
    if AT_ONCE:
        return await unary(channel, name, **arguments).unary(message or Message())
    async with unary(channel, name, **arguments) as stream:
        await stream.send_message(message or Message(), end=True)
        reply = await stream.recv_message()
    assert reply is not None
    return reply
