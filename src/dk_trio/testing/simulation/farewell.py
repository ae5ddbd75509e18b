"""How a simulation with a provider may end: nothing is wrong any more, so everything has to go well, and at once.

A job begins beside another and is cancelled by the platform; the other is on its server when that drains, so that what
the server has to tell is told at the very last moment. Then a server dies, and the registry must not find it for ever.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import trio

from .callers import Call
from .servers import AWAY, DRAIN_GRACE, HEARTBEAT, LEASE

if TYPE_CHECKING:
    from .provision import ProviderHost
    from .world import World

APART: Final = 1.0
"""Seconds between the two jobs."""
LONG: Final = 12.0
"""Seconds after which the one that is cancelled has ended."""


async def last_jobs(world: World) -> None:
    """Let the last jobs of the script run, and drain their server."""
    client = next((each for each in world.clients.values() if not each.dead), None)
    if client is None:
        return
    await trio.sleep(world.script.detect)  # what was cut long ago is noticed by then
    name = world.script.servers[-1]
    host = world.servers[name]
    async with trio.open_nursery() as nursery:
        for number, errand in enumerate(world.script.farewell):
            at = round(trio.current_time() + number * APART, 3)
            call = Call(client, replace(errand, client=client.name, server=name, at=at))
            world.know(call)
            nursery.start_soon(call.run)
        await trio.sleep(LONG)
        world.end_server(name, kill=False)
    await trio.sleep(DRAIN_GRACE + AWAY)
    await world.until(lambda: host.serves)


async def last_look(world: World, provider: ProviderHost) -> None:
    """Look whom the registry finds, some time after one server is no more."""
    world.servers[world.script.servers[0]].vanish()
    await trio.sleep(LEASE + HEARTBEAT)
    await provider.note_registered()
