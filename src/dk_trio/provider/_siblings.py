"""Servers of one module: replicas behind one address, such as a name, and servers at addresses of their own.

The registry has one registration for each module. When one of several replicas behind an address leaves, the others
still serve, so its deregistration must not take the module away. When the last one there leaves, or is not heard of any
more, the registration goes to a server at another address that lives, at once and not with that one's next heartbeat.

It can do no harm to hand over to a server that lives. So a connection that is lost is reason enough, for it may be that
of a server that was killed; whoever was taken for dead by mistake is one of the others from its next heartbeat on. For
the same reason nothing is handed to a server whose connection is lost.

Who is there is kept in memory: after a restart of the provider the heartbeats of a few seconds tell it again. Of one
that does not tell its instance nothing is kept, and to it nothing is handed over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

import trio

from dk_trio.rpc import Peer

SIBLINGS_MAX: Final = 1000
"""Servers that are kept for one module; more than any deployment has."""


class Heir(NamedTuple):
    """A place that may take over.

    Attributes:
        heard: When it was heard of last.
        place: `ADDRESS:PORT`.
    """

    heard: int
    place: str


@dataclass(slots=True)
class _Server:
    heard: int
    peer: Peer | None
    """None once the connection is gone."""


class Siblings:
    """Who was heard of, by module.

    Args:
        length: Microseconds after which one that was not heard of is gone.
        now: The wall clock in microseconds.
    """

    def __init__(self, *, length: int, now: Callable[[], int]) -> None:
        self._length = length
        self._now = now
        self._servers: dict[str, dict[tuple[str, str], _Server]] = {}  # by place and instance, newest last
        self._modules: dict[Peer, set[str]] = {}
        self._stand_ins: dict[str, str] = {}
        self._due: dict[str, int] = {}
        self._added = trio.Event()

    def heard(self, module_id: str, place: str, instance: str, peer: Peer) -> None:
        """A server has registered, or sent a heartbeat. One that does not tell its instance is not kept."""
        if not instance or not place:
            return
        servers = self._servers.setdefault(module_id, {})
        servers.pop((place, instance), None)
        servers[place, instance] = _Server(self._now(), peer)
        self._forget(servers)
        if peer not in self._modules:
            self._modules[peer] = set()
            peer.on_gone(self._lost)
        self._modules[peer].add(module_id)

    def left(self, module_id: str, place: str, instance: str) -> bool:
        """A server stops. Whether others serve the module at the same address."""
        servers = self._servers.get(module_id, {})
        servers.pop((place, instance), None)
        self._forget(servers)
        if not servers:
            self._servers.pop(module_id, None)
        return any(True for _ in self._at(module_id, place))

    def heir(self, module_id: str, place: str, now: int) -> Heir | None:
        """Where to hand the module to from this place: to whoever is connected and was heard of last.

        A unit of work may ask, in its thread: who stops says so here before it writes, so nobody who stops inherits.
        """
        others = (
            Heir(server.heard, other)
            for (other, _), server in list(self._servers.get(module_id, {}).items())
            if other != place and server.peer is not None and self._lives(server, now)
        )
        return max(others, default=None)

    def cut_off(self, module_id: str, place: str) -> bool:
        """Whether there were connections to the servers of this place, and none is left."""
        servers = list(self._at(module_id, place))
        return bool(servers) and all(server.peer is None for server in servers)

    # --- what was handed over -----------------------------------------------------------------------------------------

    def handed(self, module_id: str, place: str) -> None:
        """The module was handed to this place, with what the one before it has told of the module."""
        self._stand_ins[module_id] = place

    def registered(self, module_id: str) -> None:
        """Its server has told of the module itself."""
        self._stand_ins.pop(module_id, None)

    def stood_in(self, module_id: str, place: str) -> bool:
        """Whether the server of this place has to tell of the module itself; once."""
        if self._stand_ins.get(module_id) != place:
            return False
        del self._stand_ins[module_id]
        return True

    # --- when to look -------------------------------------------------------------------------------------------------

    def watch(self, module_id: str, due: int) -> None:
        """A module that is served at another place than the registered: look after it then, if not before."""
        if due < self._due.get(module_id, due + 1):
            self._due[module_id] = due
            self._added.set()

    async def next_due(self) -> str:
        """Wait for the next module that is to be looked after."""
        while True:
            module_id = min(self._due, key=self._due.__getitem__, default=None)
            self._added = trio.Event()
            if module_id is None:
                await self._added.wait()
                continue
            left = self._due[module_id] - self._now()
            if left <= 0:
                del self._due[module_id]
                return module_id
            with trio.move_on_after(left / 1_000_000 + 0.001):  # never a moment too early, which would spin
                await self._added.wait()

    def _lost(self, peer: Peer) -> None:
        for module_id in self._modules.pop(peer):
            servers = self._servers.get(module_id, {})
            for (place, _), server in servers.items():
                if server.peer is peer:
                    server.peer = None
                    if any(other != place for other, _ in servers):
                        self.watch(module_id, 0)

    def _at(self, module_id: str, place: str) -> Iterator[_Server]:
        servers, now = self._servers.get(module_id, {}), self._now()
        return (server for (other, _), server in servers.items() if other == place and self._lives(server, now))

    def _lives(self, server: _Server, now: int) -> bool:
        return abs(now - server.heard) < self._length  # of a clock that was set back, see `Lease`

    def _forget(self, servers: dict[tuple[str, str], _Server]) -> None:
        now = self._now()
        while servers and (len(servers) > SIBLINGS_MAX or not self._lives(servers[next(iter(servers))], now)):
            del servers[next(iter(servers))]
