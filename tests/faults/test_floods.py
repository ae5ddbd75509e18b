"""Floods against a whole module server with the limits that it has by default, and users who hardly notice.

What single frames cost is tested below, against the wire and against `rpc.Server` (`tests/wire/conformance`). Here
floods reach jobs: their admission, their slots, their outputs, the probes beside them. In each test a user's job goes
on sending an output a second, and in the end nothing of the attackers is left: no job, slot, call or connection.
"""

from __future__ import annotations

import gzip
import itertools
from collections import Counter

import pytest
import trio
from grpclib.const import Status
from tests.properties.acts import Plan
from tests.properties.world import Caller
from tests.wire.conformance import raw
from tests.wire.conformance.floods import FLOODS

from dk_trio.client import START_MODULE
from dk_trio.lifecycle import Reason
from dk_trio.rpc.transport import READ_SIZE
from dk_trio.settings import LifecycleSettings, ServerSettings, Settings, TaskSettings

from .fortress import CHECK, GRACE, WATCH, Raw, besieged, held, start_module

HOLD = Plan(acts=("send", 100_000.0), cleanup=0.5)
HANDSHAKE_TIME = 20.0
MOST_PASSES = 20
"""Passes of the scheduler in which a user's probe is answered, whatever others do: twice those without them."""


async def settle() -> None:
    await trio.testing.wait_all_tasks_blocked()


# -- before there is a connection -------------------------------------------------------------------------------------

GARBAGE = {
    "nothing": b"",
    "half of a preface": raw.PREFACE[:10],
    "a preface and nothing": raw.PREFACE,
    "half of SETTINGS": raw.PREFACE + raw.settings((1, 1))[:11],
    "HTTP/1.1": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
    "noise": bytes(range(256)) * 40,
    "a preface and noise": raw.PREFACE + bytes(range(255, 0, -1)) * 40,
}


@pytest.mark.parametrize("said", GARBAGE)
async def test_a_hundred_connections_that_never_begin(autojump_clock: object, said: str) -> None:
    async with besieged() as (fortress, client):
        began = trio.current_time()
        attackers = [Raw(fortress, greets=False) for _ in range(100)]
        for attacker in attackers:
            await attacker.send(GARBAGE[said])
        await fortress.works(client)
        await trio.sleep(HANDSHAKE_TIME + 3)
        assert all(attacker.closed for attacker in attackers)
        assert max(attacker.ended_at or 0 for attacker in attackers) <= began + HANDSHAKE_TIME + 2
        assert fortress.server.statistics().rpc.connections == 1
        assert sum(attacker.octets for attacker in attackers) < 100 * 300
        await fortress.works(client)


# -- frames around a job ----------------------------------------------------------------------------------------------

AROUND_A_JOB = [
    flood
    for flood in FLOODS
    if flood.name
    in {
        "ping", "ping-acks", "settings", "settings-acks", "goaway", "priority", "unknown", "mixture",
        "window-updates-connection", "continuation-empty",
    }
]  # fmt: skip


@pytest.mark.parametrize("flood", AROUND_A_JOB, ids=[flood.name for flood in AROUND_A_JOB])
async def test_a_flood_ends_its_own_jobs_alone(autojump_clock: object, flood: object) -> None:
    """Frames without a call's worth on a connection that has a job: the job is cancelled, and cleans up."""
    async with besieged() as (fortress, client):
        attacker = Raw(fortress)
        name = fortress.job(HOLD)
        fields, message = start_module(name)
        await attacker.send(raw.headers(99, fields) + raw.data(99, message, raw.END_STREAM))
        await trio.sleep(0.5)
        assert fortress.ledger[name].sent == [0]
        frames = itertools.islice(flood.frames(), 1000)
        await attacker.send(flood.opening if flood.name == "mixture" else b"")
        while not attacker.closed and (bunch := b"".join(itertools.islice(frames, 50))):
            await attacker.send(bunch)
            await settle()
            await fortress.alive(client)
        await trio.sleep(GRACE)
        assert attacker.closed
        assert fortress.ledger[name].cleaned
        await fortress.works(client)


async def test_jobs_that_are_reset_at_once(autojump_clock: object) -> None:
    """Rapid reset with whole StartModule requests: the connection ends, and whatever had begun is cleaned up."""
    async with besieged() as (fortress, client):
        attacker = Raw(fortress)
        stream, began = 1, 0
        while not attacker.closed and began < 1000:
            for _ in range(20):
                fields, message = start_module(fortress.job(HOLD))
                await attacker.send(raw.headers(stream, fields) + raw.data(stream, message, raw.END_STREAM))
                await trio.sleep(0.02 if stream % 40 == 1 else 0)
                await attacker.send(raw.rst(stream))
                stream, began = stream + 2, began + 1
            await trio.sleep(0.01)
            await fortress.alive(client)
        assert attacker.closed
        assert attacker.goaway == [raw.ENHANCE_YOUR_CALM]
        assert began < 500
        await trio.sleep(GRACE)
        ended = fortress.server.statistics().jobs.ended
        assert ended.keys() <= {Reason.CLIENT_GONE, Reason.REFUSED, Reason.COMPLETED}
        await fortress.works(client)


# -- more jobs and calls than there is room for -----------------------------------------------------------------------


async def test_a_storm_of_jobs_beyond_admission(autojump_clock: object) -> None:
    """Slots and queue fill, all else is refused, each call with its reason; when the storm has gone all is free."""
    tasks = TaskSettings(max_concurrent_tasks=10, max_queued_tasks=10)
    server = ServerSettings(max_concurrent_rpcs=200)
    async with besieged(Settings(tasks=tasks, server=server)) as (fortress, client):
        attacker = Raw(fortress)
        for stream in range(1, 801, 2):
            fields, message = start_module(fortress.job(HOLD))
            await attacker.send(raw.headers(stream, fields) + raw.data(stream, message, raw.END_STREAM))
        await settle()
        await fortress.alive(client)
        statistics = fortress.server.statistics()
        assert statistics.rpc.rpcs <= 200
        assert attacker.statuses() == {Status.RESOURCE_EXHAUSTED.value: 400 - (200 - 1)}
        await trio.sleep(6)  # the admission timeout is 5 s
        now = fortress.server.statistics().admission
        assert (now.running, now.queued) == (10, 10)
        assert attacker.statuses() == {Status.RESOURCE_EXHAUSTED.value: 400 - 9 - 10}
        refused = Caller(fortress.job())
        await refused.call(client)
        assert refused.status is Status.RESOURCE_EXHAUSTED
        attacker.leave()
        await trio.sleep(GRACE)
        await fortress.works(client)


async def test_calls_that_never_say_what_they_want(autojump_clock: object) -> None:
    """Headers without a message hold a place each; probes are answered all the same, and the places come back."""
    async with besieged(Settings(server=ServerSettings(max_concurrent_rpcs=100))) as (fortress, client):
        attacker = Raw(fortress)
        fields, message = start_module("nobody")
        streams = range(1, 401, 2)
        await attacker.send(b"".join(raw.headers(stream, fields) for stream in streams))
        for octet in message[:20]:
            await attacker.send(b"".join(raw.data(stream, bytes((octet,))) for stream in streams[:99]))
            await settle()
            await fortress.alive(client)
        assert fortress.server.statistics().rpc.rpcs == 100
        assert held(fortress) < 100_000
        attacker.leave()
        await trio.sleep(1)
        await fortress.works(client)


async def test_endless_watches(autojump_clock: object) -> None:
    """Watches of health hold places up to a number, cost nothing while they last, and are gone with their caller."""
    async with besieged(Settings(server=ServerSettings(max_concurrent_rpcs=100))) as (fortress, client):
        attackers = [Raw(fortress) for _ in range(5)]
        watch = raw.request(path=WATCH)
        for attacker in attackers:
            for stream in range(1, 401, 2):
                await attacker.send(raw.headers(stream, watch) + raw.data(stream, raw.message(b""), raw.END_STREAM))
        await trio.sleep(1)
        refused = sum((attacker.statuses() for attacker in attackers), Counter())
        assert fortress.server.statistics().rpc.rpcs == 200, "VITAL_RPCS more than the limit"
        assert refused == {Status.RESOURCE_EXHAUSTED.value: 1000 - 199}
        received = sum(attacker.octets for attacker in attackers)
        await trio.sleep(100)
        assert sum(attacker.octets for attacker in attackers) == received
        for attacker in attackers:
            attacker.leave()
        await trio.sleep(1)
        await fortress.works(client)


# -- those who do not read --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("reads", "reason"), [(True, Reason.TIMEOUT), (False, Reason.CLIENT_GONE)])
async def test_readers_that_do_not_read(autojump_clock: object, reads: bool, reason: Reason) -> None:
    """Fifty jobs whose outputs nobody takes: their `send` waits, little is held, and in the end they are cancelled.

    One who reads frames and opens no window is a slow reader, for as long as those may be. One who reads nothing does
    not answer a ping, and is gone.
    """
    async with besieged() as (fortress, client):
        attacker = Raw(fortress, reads=reads)
        names = [fortress.job(Plan(acts=("large",) * 20, cleanup=0.5)) for _ in range(50)]
        for number, name in enumerate(names):
            fields, message = start_module(name)
            stream = 2 * number + 1
            await attacker.send(raw.headers(stream, fields) + raw.data(stream, message, raw.END_STREAM))
        await trio.sleep(1)
        assert {len(fortress.ledger[name].sending) for name in names} <= {0, 1}
        assert held(fortress) < 50 * 100_000
        await fortress.works(client)
        await trio.sleep(LifecycleSettings().stream_drain_timeout + GRACE)
        assert all(job.cleanups == job.initialized for job in map(fortress.ledger.__getitem__, names))
        assert fortress.server.statistics().jobs.ended == {reason: 50, Reason.COMPLETED: 1}
        attacker.leave()
        await fortress.works(client)


# -- requests that are not what they seem -----------------------------------------------------------------------------


async def test_giant_metadata(autojump_clock: object) -> None:
    """Lists over the limit are refused one by one, and end their connection when they go on; no job begins."""
    async with besieged() as (fortress, client):
        attacker = Raw(fortress)
        fields, _ = start_module("nobody", *[(f"x-{number}", "y" * 900) for number in range(15)])
        sent = 0
        while not attacker.closed and sent < 1000:
            await attacker.send(raw.headers(2 * sent + 1, [*fields, ("x-last", "z" * 2000)], raw.END))
            sent += 1
            await settle()
        assert sent < 500
        assert attacker.goaway == [raw.ENHANCE_YOUR_CALM]
        assert fortress.server.statistics().jobs.ended == {}
        await fortress.works(client)


BOMBS = {
    "gzip of zeros": raw.message(gzip.compress(bytes(20 << 20), 1), 1),
    "no gzip": raw.message(b"zip!" * 10, 1),
    "no message": raw.message(b"\xff" * 100),
    "a deep Struct": raw.message(b""),
    "a large prefix": b"\0" + (1 << 30).to_bytes(4, "big"),
}


def deep() -> bytes:
    """A StartModule whose input has lists in lists, 200 deep."""
    octets = b""
    for _ in range(200):
        inner = b"\x0a" + _length(octets) + octets  # ListValue.values
        octets = b"\x32" + _length(inner) + inner  # Value.list_value
    entry = b"\x0a\x04root" + b"\x12" + _length(octets) + octets
    struct = b"\x0a" + _length(entry) + entry
    return b"\x0a" + _length(struct) + struct


def _length(octets: bytes) -> bytes:
    out, value = bytearray(), len(octets)
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes((*out, value))


@pytest.mark.parametrize("name", BOMBS)
async def test_requests_that_explode(autojump_clock: object, name: str) -> None:
    """Forty of them are refused, each by its own status; nothing of them stays, and no job begins."""
    server = ServerSettings(max_receive_message_bytes=1 << 20)
    body = raw.message(deep()) if name == "a deep Struct" else BOMBS[name]
    async with besieged(Settings(server=server)) as (fortress, client):
        attacker = Raw(fortress)
        fields = raw.request(("grpc-encoding", "gzip"), path=START_MODULE)
        for stream in range(1, 81, 2):
            pieces = [body[at : at + 16_000] for at in range(0, len(body), 16_000)]
            await attacker.send(raw.headers(stream, fields) + b"".join(raw.data(stream, piece) for piece in pieces))
            await attacker.send(raw.data(stream, b"", raw.END_STREAM))
            if stream % 40 == 1:
                await settle()
                await fortress.alive(client)
        await trio.sleep(1)
        wanted = Status.RESOURCE_EXHAUSTED if name in {"gzip of zeros", "a large prefix"} else Status.INTERNAL
        assert set(attacker.statuses()) <= {wanted.value, Status.INVALID_ARGUMENT.value}
        assert attacker.statuses().total() == 40
        assert held(fortress) < 1 << 20
        assert fortress.server.statistics().jobs.ended == {}
        await fortress.works(client)


# -- honest work, far too much of it ----------------------------------------------------------------------------------

CHEAP = {
    "probes": (raw.request(path=CHECK), raw.message(b"")),
    "no such method": (raw.request(path="/no.Such/Method"), raw.message(b"")),
    "inputs that do not fit": (raw.request(path=START_MODULE), raw.message(b"")),
    "no gRPC at all": (raw.request(method="GET"), b""),
}


@pytest.mark.parametrize("what", CHEAP)
async def test_calls_as_fast_as_they_go(autojump_clock: object, what: str) -> None:
    """Four connections call without a pause; a user's probe waits for a bounded number of passes of the scheduler."""
    fields, message = CHEAP[what]
    async with besieged() as (fortress, client):
        attackers = [Raw(fortress) for _ in range(4)]

        async def attack(attacker: Raw) -> None:
            streams = itertools.count(1, 2)
            while True:
                some = itertools.islice(streams, 10)
                await attacker.send(
                    b"".join(raw.headers(one, fields) + raw.data(one, message, raw.END_STREAM) for one in some)
                )

        async with fortress.counting(), trio.open_nursery() as nursery:
            with fortress.at_once(MOST_PASSES):
                await fortress.alive(client)
            for attacker in attackers:
                nursery.start_soon(attack, attacker)
            for _ in range(2):
                with fortress.at_once(MOST_PASSES):
                    await fortress.alive(client)
            nursery.cancel_scope.cancel()
        assert sum(attacker.octets for attacker in attackers) > 1_000
        for attacker in attackers:
            attacker.leave()
        await settle()
        await fortress.works(client)


async def test_a_megabyte_of_calls_is_read_in_slices(autojump_clock: object) -> None:
    """A user waits behind a slice of it in each pass, and not behind the whole."""
    async with besieged() as (fortress, client):
        attacker = Raw(fortress, reads=False)
        fields = raw.request(path="/no.Such/Method")
        calls = b"".join(raw.headers(stream, fields, raw.END) for stream in range(1, 14_001, 2))
        assert len(calls) > 800_000
        await attacker.send(b"")
        await settle()
        before = fortress.server.statistics().rpc.bytes_received
        async with fortress.counting(), trio.open_nursery() as nursery:
            nursery.start_soon(attacker.send, calls)
            passes = fortress.passes
            await fortress.alive(client)
            received = fortress.server.statistics().rpc.bytes_received - before
            assert received <= (fortress.passes - passes) * READ_SIZE
            assert received < len(calls)
        await fortress.works(client)
