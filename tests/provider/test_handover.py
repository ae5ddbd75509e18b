"""Servers of one module at different addresses: who is found when the registered one leaves, or dies."""

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
import trio
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from dk_trio import extensions, rpc
from dk_trio.pb.agentic_mesh_protocol.module_registry.v1 import DeregisterRequest, ModuleRegistryServiceStub
from dk_trio.pb.agentic_mesh_protocol.registry.v1 import (
    DiscoverModulesRequest,
    GetModuleRequest,
    HeartbeatRequest,
    ModuleStatus,
    RegisterModuleRequest,
    RegistryServiceStub,
)
from dk_trio.provider import _siblings
from dk_trio.rpc import Peer
from dk_trio.services.stores.sqlite import SqliteDatabase

from .kit import Provided, provided
from .registry_kit import registry

LEASE = 30
MODULE = "modules:a"


def clock() -> float:
    return 1_000_000 + trio.current_time()


class Server:
    """One server of the module, with a connection of its own."""

    def __init__(self, peer: Provided, host: str, instance: str = "", *, foreign: bool = False) -> None:
        self.peer = peer
        self.host = host
        self.instance = instance or host
        self.foreign = foreign
        self.registered = 0
        self.away = False
        self.streams: list[trio.abc.Stream] = []
        self.channel = rpc.open_channel("memory", connect=self.connect)

    async def connect(self) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        if self.away:
            raise OSError("it is dead")
        self.streams.append(await self.peer.connect())
        return self.streams[-1]

    @property
    def metadata(self) -> dict[str, str | bytes]:
        if self.foreign:
            return {}
        return {extensions.INSTANCE: self.instance, extensions.SERVED_AT: f"{self.host}:50051".encode()}

    async def register(self) -> None:
        told = {} if self.foreign else {extensions.MODULE: json.dumps({"name": f"A of {self.host}"}).encode()}
        request = RegisterModuleRequest(MODULE, self.host, 50051, f"1.{self.host}")
        await RegistryServiceStub(self.channel).register_module(request, metadata={**self.metadata, **told})
        self.registered += 1

    async def beat(self) -> None:
        """As `Registration` does it."""
        try:
            await RegistryServiceStub(self.channel).heartbeat(HeartbeatRequest(MODULE), metadata=self.metadata)
        except GRPCError as error:
            assert error.status is Status.NOT_FOUND
            await self.register()

    async def leave(self) -> None:
        stub = ModuleRegistryServiceStub(self.channel)
        assert (await stub.deregister_module(DeregisterRequest(MODULE), metadata=self.metadata)).success

    async def die(self) -> None:
        """Its process is killed: the system closes its connection."""
        self.away = True
        for stream in self.streams:
            await trio.aclose_forcefully(stream)
        await trio.testing.wait_all_tasks_blocked()


async def found(peer: Provided) -> tuple[str, str | None]:
    """Where it is, in both ways to ask."""
    module = await registry(peer).get_module(GetModuleRequest(MODULE))
    listed = await registry(peer).discover_modules(DiscoverModulesRequest(status=[module.status]))
    assert [row.address for row in listed.modules] == [module.address]
    return module.address, module.status.name


@asynccontextmanager
async def servers(*hosts: str, **options: Any) -> AsyncIterator[tuple[Any, ...]]:
    """A provider and servers that have registered in this order, so that the last one counts. The provider ends first.

    A host is `NAME`, or `NAME/INSTANCE`; `foreign` has not registered.
    """
    async with provided(now=clock, lease=LEASE, **options) as peer, AsyncExitStack() as stack:
        started = []
        for host in hosts:
            server = Server(peer, *host.split("/"), foreign=host == "foreign")
            await stack.enter_async_context(server.channel)
            if not server.foreign:
                await server.register()
            started.append(server)
        yield peer, *started
        await peer.provider.drain(0)


async def test_one_that_leaves_hands_over_to_one_that_stays(autojump_clock: Any) -> None:
    async with servers("one", "two") as (peer, one, two):
        await two.leave()
        assert await found(peer) == ("one", "ACTIVE")
        await trio.sleep(10)
        await one.beat()
        await one.leave()
        assert await found(peer) == ("one", "READY")


async def test_one_that_leaves_and_was_not_registered_changes_nothing(autojump_clock: Any) -> None:
    async with servers("one", "two") as (peer, one, two):
        await one.leave()
        assert await found(peer) == ("two", "ACTIVE")
        await two.leave()  # the other one has gone before
        assert await found(peer) == ("two", "READY")


async def test_the_heir_was_heard_of_last(autojump_clock: Any) -> None:
    async with servers("one", "two", "three") as (peer, one, two, three):
        await trio.sleep(10)
        await two.beat()
        await trio.sleep(5)
        await one.beat()
        await three.leave()
        assert await found(peer) == ("one", "ACTIVE")
        await one.leave()
        assert await found(peer) == ("two", "ACTIVE")
        await trio.sleep(26)  # more than a lease after its heartbeat, less than that after it has taken over
        assert await found(peer) == ("two", "READY")


async def test_nothing_is_handed_to_one_that_was_not_heard_of_for_a_lease(autojump_clock: Any) -> None:
    async with servers("one", "two") as (peer, _, two):
        for _ in range(4):
            await trio.sleep(10)
            await two.beat()
        await two.leave()
        assert await found(peer) == ("two", "READY")


async def test_all_leave_at_once(autojump_clock: Any) -> None:
    async with servers("one", "two", "three") as (peer, *those):
        async with trio.open_nursery() as nursery:
            for server in those:
                nursery.start_soon(server.leave)
        assert (await found(peer))[1] == "READY"


async def test_one_that_is_silent_is_replaced_when_its_lease_runs_out(autojump_clock: Any) -> None:
    """Its machine may be cut off: its connection seems to be there."""
    async with servers("one", "two") as (peer, one, _):
        for _ in range(2):
            await trio.sleep(10)
            await one.beat()
        await trio.sleep(9.9)
        assert await found(peer) == ("two", "ACTIVE")
        await trio.sleep(0.2)
        assert await found(peer) == ("one", "ACTIVE")
        await trio.sleep(19.8)  # its lease goes from its own heartbeat on
        assert await found(peer) == ("one", "ACTIVE")
        await trio.sleep(0.3)
        assert await found(peer) == ("one", "READY")


async def test_one_that_lives_stays(autojump_clock: Any) -> None:
    async with servers("one", "two") as (peer, one, two):
        for _ in range(100):
            await trio.sleep(7)
            await one.beat()
            await two.beat()
            assert await found(peer) == ("two", "ACTIVE")
        assert (one.registered, two.registered) == (1, 1)


async def test_one_whose_connection_is_lost_is_replaced_at_once(autojump_clock: Any) -> None:
    async with servers("one", "two", "three") as (peer, one, two, three):
        await three.die()
        assert await found(peer) == ("two", "ACTIVE")
        await one.die()
        assert await found(peer) == ("two", "ACTIVE")
        await two.die()  # nobody is left: it may come back
        assert await found(peer) == ("two", "ACTIVE")


async def test_one_that_was_taken_for_dead_is_one_of_the_others(autojump_clock: Any) -> None:
    async with servers("one", "two") as (peer, one, two):
        await two.die()
        assert await found(peer) == ("one", "ACTIVE")
        two.away = False
        await two.beat()
        assert (await found(peer), two.registered) == (("one", "ACTIVE"), 1)
        await one.leave()
        assert await found(peer) == ("two", "ACTIVE")


async def test_nobody_is_replaced_by_one_whose_connection_is_lost_too(autojump_clock: Any) -> None:
    """All are lost when the network of the provider is; who comes back first says nothing."""
    async with servers("one", "two") as (peer, one, two):
        await one.die()
        await two.die()
        assert await found(peer) == ("two", "ACTIVE")


async def test_nothing_is_handed_to_one_whose_connection_is_lost(autojump_clock: Any) -> None:
    """It is probably dead; if not, its next heartbeat is told to register it."""
    async with servers("one", "two") as (peer, one, two):
        await one.die()
        await two.leave()
        assert await found(peer) == ("two", "READY")
        one.away = False
        await one.beat()
        assert (await found(peer), one.registered) == (("one", "ACTIVE"), 2)


async def test_an_address_with_several_instances_lives_until_the_last_has_gone(autojump_clock: Any) -> None:
    async with servers("one", "two", "two/another", "two/third") as (peer, _, two, another, third):
        await two.die()
        await another.leave()
        assert await found(peer) == ("two", "ACTIVE")
        await third.die()
        assert await found(peer) == ("one", "ACTIVE")


async def test_whoever_takes_over_tells_of_the_module_with_its_next_heartbeat(autojump_clock: Any) -> None:
    async with servers("one", "two") as (peer, one, two):
        await two.leave()
        module = await registry(peer).get_module(GetModuleRequest(MODULE))
        assert (module.address, module.version, module.name) == ("one", "1.two", "A of two")
        for _ in range(3):
            await one.beat()
        module = await registry(peer).get_module(GetModuleRequest(MODULE))
        assert (module.address, module.version, module.name) == ("one", "1.one", "A of one")
        assert one.registered == 2


async def test_a_foreign_server_neither_inherits_nor_hands_over(autojump_clock: Any) -> None:
    async with servers("one", "foreign") as (peer, one, foreign):
        await foreign.register()
        await trio.sleep(10)
        await one.beat()
        await foreign.leave()
        assert await found(peer) == ("foreign", "READY")
        await foreign.register()
        await one.register()
        await one.leave()
        assert await found(peer) == ("one", "READY")
        await foreign.register()
        await one.beat()
        await foreign.die()
        assert await found(peer) == ("foreign", "ACTIVE")  # of its connections nothing is known
        for _ in range(3):
            await trio.sleep(10.1)
            await one.beat()
        assert await found(peer) == ("one", "ACTIVE")


@pytest.mark.parametrize("place", [b"one", b"one:", b":1", b"one:x", b"one:0", b"one:70000", b"\xff:1\x00", b"x" * 999])
async def test_a_place_that_nobody_could_register_inherits_nothing(autojump_clock: Any, place: bytes) -> None:
    async with servers("two") as (peer, two):
        metadata = {extensions.INSTANCE: "one", extensions.SERVED_AT: place}
        reply = await registry(peer).heartbeat(HeartbeatRequest(MODULE), metadata=metadata)
        assert reply.status is ModuleStatus.ACTIVE
        await two.leave()
        assert await found(peer) == ("two", "READY")


class Kept(SqliteDatabase):
    """In memory, and open longer than the providers that use it."""

    held = False

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        if self.held:
            yield
            return
        self.held = True
        async with super().opened():
            yield


@pytest.mark.parametrize("leaves", [True, False])
async def test_a_provider_that_comes_back_learns_who_is_there(autojump_clock: Any, leaves: bool) -> None:
    database = Kept(None)
    async with database.opened():
        async with servers("one", "two", database=database):
            pass
        await trio.sleep(100)
        async with servers(database=database) as (peer,):
            one, two = Server(peer, "one"), Server(peer, "two")
            async with one.channel, two.channel:
                assert await found(peer) == ("two", "ACTIVE")
                await trio.sleep(5)
                await one.beat()
                if leaves:
                    await two.leave()
                else:  # it died while nobody looked
                    await trio.sleep(24.9)
                    assert await found(peer) == ("two", "ACTIVE")
                    await trio.sleep(0.2)
                assert await found(peer) == ("one", "ACTIVE")
                assert one.registered == 0
                await one.beat()
                assert one.registered == 1


async def test_a_provider_that_ends_hands_nothing_over(autojump_clock: Any) -> None:
    database = Kept(None)
    async with database.opened():
        async with servers("one", "two", database=database) as (peer, *_):
            await peer.provider.drain(0)
            await trio.testing.wait_all_tasks_blocked()
        async with provided(now=clock, lease=LEASE, database=database) as peer:
            assert await found(peer) == ("two", "ACTIVE")


async def test_what_is_kept_is_bounded(autojump_clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_siblings, "SIBLINGS_MAX", 3)
    siblings = _siblings.Siblings(length=30, now=lambda: now)
    ours, _ = trio.testing.memory_stream_pair()
    peer, now = Peer(ours), 0
    for number in range(10):
        siblings.heard("a", f"host{number}:1", "", peer)
        siblings.heard("a", f"host{number}:1", "x", peer)
    assert [host for host, _ in siblings._servers["a"]] == ["host7:1", "host8:1", "host9:1"]
    now = 30
    siblings.heard("a", "host:1", "x", peer)
    assert [host for host, _ in siblings._servers["a"]] == ["host:1"]
    assert not siblings.left("a", "host:1", "x")
    assert not siblings._servers
