"""Hosts by name, connections between them, and all that may go wrong on the way."""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from random import Random
from typing import Any, Final, Literal, TypeAlias

import trio

from ._conditions import ANY, Conditions, Rules, fits
from ._connection import Connection, NetworkStatistics
from ._link import Mark
from ._stream import NetworkListener, NetworkStream

BACKLOG: Final = 128
"""Connections that may wait to be accepted at one host; more are refused."""
CONNECT_TIMEOUT: Final = 127.0
"""Seconds until nobody's silence is told to who connects: Linux's six repetitions of a SYN."""

Direction: TypeAlias = Literal["both", "to", "from"]
Ending: TypeAlias = Literal["reset", "fin", "vanish"]


class Network:
    """A network in memory, for hosts by name. Its delays and faults are in virtual time, and a function of a seed.

    ```python
    network = Network(Random(7))
    network.conditions("*", "*", Conditions(latency=0.02, jitter=0.01, slice_max=500))
    async with network.host("server", serve_stream):
        async with await network.connect("client", "server") as stream:
            await stream.send_all(b"hello")
            network.cut("client", "server")
    ```

    All names of hosts in what concerns a pair may be `"*"`, which is any host; the order of the two says what a
    `direction` means and nothing else. Of several things that were said about a pair, the last holds.

    Each connection draws from a generator of its own, made of the seed, the names of both hosts and how many
    connections the one has opened to the other: what happens to one changes no number of another. With the same order
    of tasks (`dk_trio.testing.seed_scheduler`), a run is repeated exactly.

    Args:
        random: One number is drawn from it: the seed.
        note: Told of each connection, its end, and each fault: `note("connect", source=..., destination=..., ...)`.
    """

    def __init__(self, random: Random, *, note: Callable[..., object] | None = None) -> None:
        self._seed = f"{random.getrandbits(64):x}"
        self._tell = note or _ignore
        self._conditions = Rules(Conditions())
        self._held = Rules(False)
        self._corrupting = Rules(0.0)
        self._refusing = Rules(False)
        self._down: dict[str, Ending] = {}
        self._listening: dict[str, tuple[NetworkListener, trio.MemorySendChannel[NetworkStream]]] = {}
        self._connections: dict[Connection, None] = {}
        self._owned: dict[NetworkStream, None] = {}
        self._numbers: Counter[tuple[str, str]] = Counter()
        self._opened = self._failed = self._sent = self._corrupted = 0

    def __repr__(self) -> str:
        return f"<Network of {sorted(self._listening)}, {len(self._connections)} connections>"

    def statistics(self) -> NetworkStatistics:
        """What is going on now."""
        links = [link for connection in self._connections for link in connection.links]
        return NetworkStatistics(
            opened=self._opened,
            failed=self._failed,
            streams=len(self._owned),
            buffered=sum(link.buffered for link in links if not link.deaf),
            sent=self._sent + sum(link.sent for link in links),
            corrupted=self._corrupted + sum(link.corrupted for link in links),
        )

    def streams(self) -> list[NetworkStream]:
        """The ends that their owners have got and not closed."""
        return list(self._owned)

    # -- hosts ------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def host(
        self, name: str, serve: Callable[[NetworkStream], Awaitable[object]] | None = None, *, how: Ending = "reset"
    ) -> AsyncGenerator[NetworkListener]:
        """A machine that is up within this block; leaving it is the machine's death, see `kill`.

        Args:
            name: The host's.
            serve: Runs for each connection to it, in a nursery of the block; what it raises ends the block, other than
                that its connection is broken. The stream is closed afterwards. None: connections are accepted by
                whoever uses the listener, if anyone.
            how: In which way it dies.

        Raises:
            OSError: The name is in use.
        """
        async with self.listening(name) as listener, trio.open_nursery() as nursery:
            try:
                if serve is not None:
                    nursery.start_soon(trio.serve_listeners, _closing(serve), [listener])
                yield listener
            finally:
                if self._listening.get(name, (listener,))[0] is listener:  # else another one of this name is up
                    self.kill(name, how=how)
                nursery.cancel_scope.cancel()

    @asynccontextmanager
    async def listening(self, name: str) -> AsyncGenerator[NetworkListener]:
        """Accept connections to this host within this block, for servers that take a listener.

        Leaving it, or closing the listener, ends nothing that was accepted.

        Raises:
            OSError: The name is in use.
        """
        if name in self._listening:
            raise OSError(errno.EADDRINUSE, f"{name} listens already")
        self.revive(name)
        incoming, accepting = trio.open_memory_channel[NetworkStream](BACKLOG)
        listener = NetworkListener(name, accepting, accepted=self._own, closed=self._stop_listening)
        self._listening[name] = listener, incoming
        try:
            yield listener
        finally:
            listener.close()

    def kill(self, name: str, *, how: Ending = "reset") -> None:
        """End a host at once: nothing that its tasks still do reaches anyone.

        Its streams raise BrokenResourceError, and so do attempts to connect from it. The tasks are not cancelled:
        cancel them before or after, without a checkpoint in between.

        Args:
            name: The host's. It is up again with the next `host` or `listening` of this name, or `revive`.
            how: What its peers see. `"reset"`: what was under way from it is lost, as when a process is killed.
                `"fin"`: it arrives, and then the end of the stream. `"vanish"`: nothing at all, as without power;
                when the host is up again, its peers' connections are reset.
        """
        if name in self._down:
            return
        self._down[name] = how
        self._configure(*self._connections)
        self._note("kill", host=name, how=how)
        for connection in list(self._connections):
            for end in connection.ends:
                if end.host == name:
                    end.die(Mark.CLOSED if how == "fin" else Mark.RESET)
        self._listening.pop(name, None)

    def revive(self, name: str) -> None:
        """Let a host that was killed be up again; nothing happens to others."""
        if name in self._down:
            del self._down[name]
            self._configure(*self._connections)
            self._note("revive", host=name)

    # -- connecting -------------------------------------------------------------------------------------------------

    async def connect(self, source: str, destination: str) -> NetworkStream:
        """Connect two hosts: a way there and a way back.

        Raises:
            ConnectionRefusedError: Nobody accepts there, which is known after a way there and back.
            ConnectionResetError: The connection was cut while it was made.
            TimeoutError: Nothing came back within 127 s.
            OSError: The source was killed.
        """
        await trio.lowlevel.checkpoint()
        if source in self._down:
            raise OSError(errno.ENETDOWN, f"{source} is down")
        self._numbers[source, destination] += 1
        number = self._numbers[source, destination]
        connection = Connection(self._seed, source, destination, number, self._end_of)
        self._connections[connection] = None
        self._configure(connection)
        there, back = connection.links
        taken = made = False
        try:
            with trio.move_on_after(CONNECT_TIMEOUT) as waiting:
                taken = await there.handshake() and self._reach(connection)
                made = not there.end and await back.handshake() and taken
            if waiting.cancelled_caught:
                raise _error(TimeoutError, errno.ETIMEDOUT, source, destination)
            if not made and (there.end or back.end):
                raise _error(ConnectionResetError, errno.ECONNRESET, source, destination)
            if not made:
                raise _error(ConnectionRefusedError, errno.ECONNREFUSED, source, destination)
        finally:
            if not made:
                self._failed += 1
                self._note("failed", **connection.names)
                connection.client.die(Mark.RESET)
            if not taken:
                connection.server.die(Mark.RESET)
        self._own(connection.client)
        return connection.client

    def dial(self, source: str) -> Callable[[str], Awaitable[NetworkStream]]:
        """A function that connects this host to `HOST:PORT` or `HOST`, as `connect` does. Ports mean nothing here."""

        async def connect(target: str) -> NetworkStream:
            return await self.connect(source, target.partition(":")[0])

        return connect

    # -- conditions and faults --------------------------------------------------------------------------------------

    def conditions(self, a: str, b: str, conditions: Conditions, *, direction: Direction = "both") -> None:
        """Change what the way between two hosts is like, for all that is sent from now on.

        Args:
            a: A host, or `"*"`.
            b: Another.
            conditions: What it is like.
            direction: `"to"`: from a to b only; `"from"`: from b to a only.
        """
        self._rule(self._conditions, a, b, conditions, direction)

    def blackhole(self, a: str, b: str, *, direction: Direction = "both") -> None:
        """Let nothing arrive between two hosts until `heal`, also of what is under way. Nobody is told.

        With one `direction` only, the other one goes on as before: acknowledgements, without which TCP would stop
        there too once its buffer is full, are not part of this network.
        """
        self._rule(self._held, a, b, True, direction)
        self._note("blackhole", a=a, b=b, direction=direction)

    def heal(self, a: str = ANY, b: str = ANY) -> None:
        """End blackholes and corruption between two hosts: what was held arrives, in order."""
        self._rule(self._held, a, b, False, "both")
        self._rule(self._corrupting, a, b, 0.0, "both")
        self._note("heal", a=a, b=b)

    def corrupt(self, a: str, b: str, share: float, *, direction: Direction = "both") -> None:
        """Flip one bit in this share (0 to 1) of the segments that are sent from now on, until `heal`.

        TCP's checksum misses one broken segment in 65,536. Streams say so of themselves: `stream.corrupted`.
        """
        if not 0 <= share <= 1:
            raise ValueError(f"share must be between 0 and 1, not {share!r}")
        self._rule(self._corrupting, a, b, share, direction)
        self._note("corrupt", a=a, b=b, share=share, direction=direction)

    def refuse(self, b: str) -> None:
        """Refuse connections to a host, or to any, until `accept`; those that exist stay."""
        self._refusing.set(ANY, b, True)
        self._note("refuse", b=b)

    def accept(self, b: str) -> None:
        """End `refuse`."""
        self._refusing.set(ANY, b, False)
        self._note("accept", b=b)

    def cut(self, a: str, b: str, *, how: Literal["reset", "fin"] = "reset") -> int:
        """Cut the connections between two hosts, from wherever on the way; both ends hear of it after the latency.

        Args:
            a: A host, or `"*"`.
            b: Another.
            how: `"reset"`: what is under way is lost. `"fin"`: it arrives before, and the end of the stream after it.

        Returns:
            How many connections that were.
        """
        found = list(self._between(a, b))
        self._note("cut", a=a, b=b, how=how, connections=len(found))
        for connection in found:
            for link in connection.links:
                link.finish(Mark.RESET if how == "reset" else Mark.CLOSED)
        return len(found)

    # -- bookkeeping ------------------------------------------------------------------------------------------------

    def _reach(self, connection: Connection) -> bool:
        """A connection has arrived at its destination; whether it is taken in."""
        destination = connection.destination
        listening = self._listening.get(destination)
        if listening is None or self._refusing.get(connection.source, destination):
            return False
        try:
            listening[1].send_nowait(connection.server)
        except trio.WouldBlock:
            return False
        connection.opened = True
        self._opened += 1
        self._note("connect", **connection.names)
        return True

    def _own(self, stream: NetworkStream) -> None:
        self._owned[stream] = None

    def _end_of(self, connection: Connection) -> None:
        for end in connection.ends:
            if end.closed:
                self._owned.pop(end, None)
        if connection in self._connections and connection.client.dead and connection.server.dead:
            del self._connections[connection]
            there, back = connection.links
            self._sent += there.sent + back.sent
            self._corrupted += there.corrupted + back.corrupted
            if connection.opened:
                self._note("end", **connection.names, sent=there.sent, received=back.sent)

    def _stop_listening(self, listener: NetworkListener) -> None:
        if self._listening.get(listener.host, (None,))[0] is listener:
            del self._listening[listener.host]

    def _between(self, a: str, b: str) -> Iterator[Connection]:
        for each in self._connections:
            one, other = each.source, each.destination
            if (fits(a, one) and fits(b, other)) or (fits(a, other) and fits(b, one)):
                yield each

    def _rule(self, rules: Rules[Any], a: str, b: str, value: Any, direction: Direction) -> None:
        if direction != "from":
            rules.set(a, b, value)
        if direction != "to":
            rules.set(b, a, value)
        self._configure(*self._connections)

    def _configure(self, *connections: Connection) -> None:
        """Tell their links what holds for them."""
        for connection in connections:
            for link in connection.links:
                way = link.source, link.destination
                link.conditions = self._conditions.get(*way)
                link.corrupting = self._corrupting.get(*way)
                link.hold(self._held.get(*way) or any(self._down.get(host) == "vanish" for host in way))

    def _note(self, what: str, **fields: Any) -> None:
        self._tell(what, **fields)


def _closing(
    serve: Callable[[NetworkStream], Awaitable[object]],
) -> Callable[[NetworkStream], Awaitable[None]]:
    async def serve_and_close(stream: NetworkStream) -> None:
        async with stream:
            try:
                await serve(stream)
            except trio.BrokenResourceError:
                if not stream.broken:
                    raise

    return serve_and_close


def _error(kind: type[OSError], number: int, source: str, destination: str) -> OSError:
    return kind(number, f"{os.strerror(number)}: {source} to {destination}")


def _ignore(what: str, **fields: Any) -> None:
    pass
