"""What goes wrong in a simulation: the faults of its script, and strikes at the points of `dk_trio.buggify`."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Final

import trio

from dk_trio.log_context import CURRENT

from .authors import PREFIX, STAGE
from .servers import PROVIDER, Incarnation

if TYPE_CHECKING:
    from .callers import Call
    from .scripts import Fault
    from .world import World

CORRUPTED: Final = 0.2
"""Share of segments that a bad link changes."""
WAITS: Final = ("wait", "wait", "wait", "cancel", "cut")
"""What happens at a point where a task may wait."""
GARBAGE: Final = 4_096
"""Bytes that a stranger sends, at most."""
ANY: Final = "*"
"""Any host, for the network."""
TO_PROVIDER: Final = frozenset({"setup.fetch", "signals.flush", "signals.flushed", "signals.poll"})
"""Points at which a server speaks with its provider."""
STRANGER: Final = "stranger"
"""The host that garbage comes from."""
PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


class Strikes:
    """The `Striker` of a simulation: at some visits of some points it waits, or lets something happen.

    Args:
        world: Where.
        dice: Decides.
    """

    def __init__(self, world: World, dice: Random) -> None:
        self._world = world
        self._dice = dice
        self.quiet = True
        """Nothing happens: not yet, or not any more."""
        self._mute = ""

    def lose_reply(self, server: str) -> None:
        """Cut the way to a server as soon as the provider has committed something, before it can say so."""
        self._mute = server

    async def at(self, point: str) -> None:
        """See `buggify.Striker`."""
        if not self._chosen(point):
            return
        what = self._dice.choice(WAITS)
        job, server = _place()
        if what == "wait":
            seconds = round(self._dice.uniform(0, self._world.script.strike), 3)
            self._note(point, what, job, server, seconds=seconds)
            await trio.sleep(seconds)
        else:
            self._harm(point, what, job, server)
            await trio.lowlevel.checkpoint()

    def fails(self, point: str) -> bool:
        """See `buggify.Striker`."""
        if point == "database.committed" and self._mute and not self.quiet:
            server, self._mute = self._mute, ""
            self._cut(point, "", server, (server, PROVIDER))
            return False
        if not self._chosen(point):
            return False
        job, server = _place()
        if point == "database.commit":
            self._note(point, "fail", job, server)
            return True
        self._harm(point, self._dice.choice(("cancel", "cut")), job, server)
        return False

    def _chosen(self, point: str) -> bool:
        share = self._world.script.points.get(point)
        if share is None or self.quiet:
            return False
        if STAGE.get(None) is None:  # the provider: it is visited much more often, and what strikes it strikes all
            share /= 4
        return self._dice.random() < share

    def _harm(self, point: str, what: str, job: str, server: str) -> None:
        """Let the client of the job leave, or cut what the current task works for."""
        world = self._world
        if not server:
            self._cut(point, job, server, (ANY, PROVIDER))
        elif point in TO_PROVIDER:
            if world.script.provider:
                self._cut(point, job, server, (server, PROVIDER))
        elif (call := world.call_of(job) if job else self._any_call(server)) is None:
            return
        elif what == "cancel" and job:
            self._note(point, what, job, server)
            call.leave()
        else:
            self._cut(point, job, server, (call.errand.client, call.errand.server))

    def _any_call(self, server: str) -> Call | None:
        calls = self._world.open_calls(server)
        return self._dice.choice(calls) if calls else None

    def _cut(self, point: str, job: str, server: str, where: tuple[str, str]) -> None:
        self._note(point, "cut", job, server, where=[host for host in where if host != ANY])
        self._world.network.cut(*where)

    def _note(self, point: str, what: str, job: str, server: str, **fields: object) -> None:
        told = {"job": job} if job else {}
        if server:
            told["server"] = server
        self._world.note("world", "strike", point=point, what=what, **told, **fields)


def _place() -> tuple[str, str]:
    """The job and the server that the current task works for; empty where there is none."""
    stage = STAGE.get(None)
    server = stage.name if isinstance(stage, Incarnation) else ""
    ids = CURRENT.get()
    if not server or "job" not in ids:
        return "", server
    assert isinstance(stage, Incarnation)
    return stage.run_name(ids["mission"].removeprefix(PREFIX), ids["job"]), server


class Faults:
    """Lets the faults of the script come, each at its time, and ends those that last.

    Args:
        world: Where.
        dice: Decides what garbage is.
    """

    def __init__(self, world: World, dice: Random) -> None:
        self._world = world
        self._dice = dice

    async def run(self) -> None:
        """Return when all faults have ended."""
        async with trio.open_nursery() as nursery:
            for fault in self._world.script.faults:
                nursery.start_soon(self._come, fault)

    async def _come(self, fault: Fault) -> None:
        world, network = self._world, self._world.network
        await trio.sleep_until(fault.at)
        match fault.kind:
            case "reset" | "fin":
                self._note(fault, lasts=False)
                network.cut(*_two(fault), how=fault.kind)
            case "blackhole":
                self._note(fault)
                network.blackhole(*_two(fault))
                await trio.sleep(fault.seconds)
                self._heal(fault)
            case "corrupt":
                self._note(fault)
                network.corrupt(*_two(fault), CORRUPTED)
                await trio.sleep(fault.seconds)
                self._heal(fault)
                network.cut(*_two(fault))  # what was changed must not be believed for ever
            case "outage":
                self._note(fault)
                network.refuse(PROVIDER)
                network.cut("*", PROVIDER)
                await trio.sleep(fault.seconds)
                network.accept(PROVIDER)
                world.note("world", "heal", what=fault.kind, where=list(fault.where))
            case "hang":
                self._note(fault)
                network.blackhole("*", PROVIDER)
                await trio.sleep(fault.seconds)
                network.heal("*", PROVIDER)
                world.note("world", "heal", what=fault.kind, where=list(fault.where))
            case "provider crash":
                self._note(fault)
                await world.crash_provider(fault.seconds)
            case "kill" | "drain":
                self._note(fault, lasts=False)
                world.end_server(fault.where[0], kill=fault.kind == "kill")
            case "client dies":
                self._note(fault, lasts=False)
                world.clients[fault.where[0]].die()
            case "garbage":
                self._note(fault, lasts=False)
                await self._send_garbage(fault.where[0])

    def _note(self, fault: Fault, *, lasts: bool = True) -> None:
        until = {"until": round(fault.at + fault.seconds, 3)} if lasts else {}
        self._world.note("world", "fault", what=fault.kind, where=list(fault.where), **until)

    def _heal(self, fault: Fault) -> None:
        self._world.network.heal(*_two(fault))
        self._world.note("world", "heal", what=fault.kind, where=list(fault.where))

    async def _send_garbage(self, server: str) -> None:
        """A stranger connects, and says what no client says."""
        dice = self._dice
        try:
            stream = await self._world.network.connect(STRANGER, server)
        except OSError:
            return
        async with stream:
            garbage = dice.randbytes(dice.randint(1, GARBAGE))
            if dice.random() < 0.7:  # let it get behind the door
                garbage = PREFACE + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00" + garbage
            try:
                await stream.send_all(garbage)
                with trio.move_on_after(dice.uniform(0, 5)):
                    while await stream.receive_some():
                        pass
            except trio.BrokenResourceError:
                return


def _two(fault: Fault) -> tuple[str, str]:
    first, second = fault.where
    return first, second
