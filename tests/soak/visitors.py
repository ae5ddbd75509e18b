"""Who comes to a server in a soak: callers of every kind, each told in one function, and strangers.

Each visitor asserts what it is promised, so a soak also finds a wrong status.
"""

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any

import trio
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from dk_trio import ModuleClient, rpc
from dk_trio.chance import utc_now
from dk_trio.pb.agentic_mesh_protocol.task_manager.v1 import SendSignalsRequest, Task, TaskManagerServiceStub

Connect = Callable[[], Awaitable[trio.abc.Stream]]
Cut = Callable[[trio.abc.Stream, str], Awaitable[None]]
"""Breaks a connection: `fin` as a process does that ends in good order, `reset` as one that is killed."""

# A full server says so, and a slow machine may let a deadline pass before a job begins.
FULL = frozenset({Status.RESOURCE_EXHAUSTED})
ENDED_BY = {
    "end": frozenset({Status.OK}),
    "raise": frozenset({Status.INTERNAL}),
    "raise group": frozenset({Status.INTERNAL}),
    "raise in cleanup": frozenset({Status.INTERNAL}),
}
LARGE = 20_000


def no_retries(**options: Any) -> rpc.ChannelOptions:
    """Who retries would hide what a server does."""
    return rpc.ChannelOptions(retry=None, **options)


@dataclass
class Place:
    """Where visitors come to, and a tally of what has become of them."""

    connect: Connect
    """To the server."""
    cut: Cut
    clients: list[ModuleClient]
    """That everybody may use."""
    tasks: TaskManagerServiceStub
    """Of the provider."""
    setup_id: str
    random: Random
    statuses: Counter[str] = field(default_factory=Counter)

    def client(self) -> ModuleClient:
        return self.random.choice(self.clients)


@dataclass
class Told:
    """What a caller got."""

    job_id: str = ""
    numbers: list[int] = field(default_factory=list)
    status: Status | None = None


async def call(
    place: Place,
    client: ModuleClient,
    root: dict[str, Any],
    *,
    after: int | None = None,
    then: Callable[[Told], Awaitable[bool]] | None = None,
    timeout: float | None = None,
) -> Told:
    """Run a job; with the first output after `after` others call `then`, which says whether to read on."""
    told = Told()
    try:
        data = {"root": {"protocol": "visit", **root}}
        async with client.start(data, setup_id=place.setup_id, mission_id="missions:soak", timeout=timeout) as outputs:
            async for output in outputs:
                told.job_id = outputs.job_id
                if output["root"]["protocol"] == "said":
                    told.numbers.append(output["root"]["i"])
                if then is not None and len(told.numbers) == after and not await then(told):
                    place.statuses["left"] += 1
                    return told
        told.status = Status.OK
    except GRPCError as error:
        told.status = error.status
    assert told.numbers == [*range(len(told.numbers))], told
    place.statuses[told.status.name] += 1
    return told


def ended(told: Told, *statuses: Status) -> None:
    assert told.status in {*statuses, *FULL}, told


# --- callers of shared connections -----------------------------------------------------------------------------------


async def reads_everything(place: Place) -> None:
    n = place.random.randrange(20)
    told = await call(place, place.client(), {"n": n, "size": place.random.randrange(200)})
    ended(told, Status.OK)
    assert told.status is not Status.OK or len(told.numbers) == n


async def keeps_things(place: Place) -> None:
    """While the provider is away what is kept may fail, and then the job does."""
    ended(await call(place, place.client(), {"keep": True}), Status.OK, Status.UNAVAILABLE)


async def has_a_bad_author(place: Place) -> None:
    how = place.random.choice(["raise", "raise group", "raise in cleanup"])
    ended(await call(place, place.client(), {"then": how}), *ENDED_BY[how])


async def asks_for_nonsense(place: Place) -> None:
    ended(await call(place, place.client(), {"protocol": "nonsense"}), Status.INVALID_ARGUMENT)


async def leaves(place: Place) -> None:
    async def go(told: Told) -> bool:
        return False

    await call(place, place.client(), {"n": 5, "then": "wait"}, after=place.random.randrange(5), then=go)


async def is_cancelled(place: Place) -> None:
    """At any moment, before its job has begun or after."""
    with trio.move_on_after(place.random.uniform(0, 0.05)):
        await call(place, place.client(), {"n": 3, "then": place.random.choice(["wait", "swallow"])})
    place.statuses["cancelled"] += 1


async def stops(place: Place) -> None:
    client = place.client()

    async def stop(told: Told) -> bool:
        await client.stop(told.job_id)
        return True

    told = await call(place, place.client(), {"then": place.random.choice(["wait", "swallow"])}, after=1, then=stop)
    ended(told, Status.CANCELLED)


async def sends_a_signal(place: Place) -> None:
    """By way of the provider. While that is away the caller gives up and leaves."""

    async def signal(told: Told) -> bool:
        task = Task(
            task_id=told.job_id,
            mission_id="missions:soak",
            setup_id="setups:soak",
            setup_version_id="setup_versions:soak",
            action="cancel",
            cancellation_reason="none",
            created_at=utc_now(),
        )
        try:
            await place.tasks.send_signals(SendSignalsRequest(tasks=[task]))
        except GRPCError as error:
            assert error.status is Status.UNAVAILABLE, error
            return False
        return True

    ended(await call(place, place.client(), {"then": "wait"}, after=1, then=signal), Status.CANCELLED, None)


async def has_a_deadline(place: Place) -> None:
    timeout = place.random.uniform(0.01, 0.1)
    ended(await call(place, place.client(), {"then": "wait"}, timeout=timeout), Status.DEADLINE_EXCEEDED)


async def reads_slowly(place: Place) -> None:
    """Until its window is shut; some read on then, some leave."""
    stay = place.random.random() < 0.5

    async def pause(told: Told) -> bool:
        await trio.sleep(place.random.uniform(0.02, 0.1))
        return stay

    ended(await call(place, place.client(), {"n": 80, "size": LARGE}, after=2, then=pause), Status.OK, None)


# --- those with a connection of their own ----------------------------------------------------------------------------


@asynccontextmanager
async def own(place: Place, streams: list[trio.abc.Stream]) -> AsyncIterator[ModuleClient]:
    """A client of one's own, and the connections that it makes."""

    async def connect() -> trio.abc.Stream:
        streams.append(await place.connect())
        return streams[-1]

    async with rpc.open_channel("own", connect=connect, options=no_retries(stream_window=65_535)) as channel:
        yield ModuleClient(channel)


async def is_cut(place: Place) -> None:
    """Its connection breaks while one of its jobs waits and another one sends more than it reads."""
    streams: list[trio.abc.Stream] = []
    how = place.random.choice(["fin", "reset"])

    async def breaks(told: Told) -> bool:
        await trio.sleep(place.random.uniform(0, 0.02))
        await place.cut(streams[-1], how)
        return True

    async with own(place, streams) as client, trio.open_nursery() as nursery:

        async def reads_nothing() -> None:
            await call(place, client, {"n": 80, "size": LARGE}, after=1, then=lambda _: stays())

        async def stays() -> bool:
            await trio.sleep_forever()
            return False

        nursery.start_soon(reads_nothing)
        ended(await call(place, client, {"then": "wait"}, after=1, then=breaks), Status.UNAVAILABLE)
        nursery.cancel_scope.cancel()


async def opens_a_connection_for_one_call(place: Place) -> None:
    async with own(place, []) as client:
        ended(await call(place, client, {"n": 2}), Status.OK)


async def is_a_stranger(place: Place) -> None:
    """Says nothing, or something that is no HTTP/2, or half of the greeting, and goes."""
    stream = await place.connect()
    text = place.random.choice([b"", b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n", b"\0" * 100])
    try:
        if text:
            await stream.send_all(text)
        with trio.move_on_after(place.random.uniform(0, 0.05)):
            while await stream.receive_some():
                pass
        await place.cut(stream, place.random.choice(["fin", "reset"]))
    except trio.BrokenResourceError:
        pass
    finally:
        await trio.aclose_forcefully(stream)
    place.statuses["strangers"] += 1


VISITORS: dict[Callable[[Place], Awaitable[None]], int] = {
    reads_everything: 20,
    keeps_things: 10,
    has_a_bad_author: 8,
    asks_for_nonsense: 4,
    leaves: 10,
    is_cancelled: 10,
    stops: 10,
    sends_a_signal: 8,
    has_a_deadline: 6,
    reads_slowly: 4,
    is_cut: 6,
    opens_a_connection_for_one_call: 3,
    is_a_stranger: 3,
}
"""Kinds, with how many of a hundred are of each."""
