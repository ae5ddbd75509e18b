"""What goes between a server and its provider, struck before each single step that any task of both takes.

A strike cuts all connections, so each reply is lost once; or ends the provider, which comes back with what it has kept;
or cancels one side. As in `test_every_checkpoint` the same seed gives the same steps, each struck in a run afresh.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from random import Random
from typing import Any, Self

import pytest
import trio
import trio.testing
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from dk_trio import rpc
from dk_trio.boundary import unwrapped
from dk_trio.pb.agentic_mesh_protocol.cost.v1 import (
    AddCostRequest,
    AddCostResponse,
    CostType,
    GetCostsRequest,
    GetCostsResponse,
)
from dk_trio.pb.agentic_mesh_protocol.task_manager.v1 import Task
from dk_trio.provider import Provider, ProviderOptions
from dk_trio.services.breaker import BreakerState
from dk_trio.services.channels import ChannelCache
from dk_trio.services.provider_clients import ProviderClients
from dk_trio.services.query import ProviderQuery, QueryError
from dk_trio.services.stores.sqlite import SqliteDatabase
from dk_trio.services.stores.work import Statement, Work
from dk_trio.settings import SignalSettings
from dk_trio.signals import RemoteSignals, Signal, SignalAction

from .world import replay, run_seeded, seeds

AWAY = 0.3
"""Seconds for which a provider that was ended is away."""

BOUND = 20.0
"""Seconds within which everything is well again: new connections are tried after 1 s, then 1.6 s."""

STRIDE = 3
"""Of so many steps one is struck with each seed: a run of 3,000 would take a minute, and neighbours are much alike."""

COSTS = "/agentic_mesh_protocol.cost.v1.CostService"


class _Kept:
    """A database that outlives the provider which opens it."""

    def __init__(self, database: SqliteDatabase) -> None:
        self._database = database

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Self]:
        yield self


class Mesh:
    """A provider that can be struck, and ways to it."""

    def __init__(self) -> None:
        self.database = SqliteDatabase(None)
        self.provider: Provider
        self.victim = trio.CancelScope()
        """What a strike cancels; a scenario puts something into it."""
        self.random = Random(1)
        self._nursery: trio.Nursery | None = None
        self._streams: list[trio.StapledStream[Any, Any]] = []

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Self]:
        with trio.fail_after(600):
            async with self.database.opened(), unwrapped(), trio.open_nursery() as nursery:
                await nursery.start(self._provide)
                yield self
                nursery.cancel_scope.cancel()

    async def _provide(self, task_status: trio.TaskStatus[None]) -> None:
        while True:
            database: Any = _Kept(self.database)
            self.provider = Provider(database, options=ProviderOptions(validate="off"))
            async with self.provider.opened(), unwrapped(), trio.open_nursery() as self._nursery:
                task_status.started()
                await trio.sleep_forever()
            self._nursery = None
            task_status = trio.TASK_STATUS_IGNORED
            await trio.sleep(AWAY)

    async def connect(self) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        if self._nursery is None or self._nursery.cancel_scope.cancel_called:
            raise OSError("the provider is away")
        ours, theirs = trio.testing.memory_stream_pair()
        self._streams += [ours, theirs]
        self._nursery.start_soon(self.provider.serve_stream, theirs)
        return ours

    # -- strikes ------------------------------------------------------------------------------------------------------

    def cut(self) -> None:
        """All connections are gone, without a word."""
        streams, self._streams = self._streams, []
        for stream in streams:
            stream.send_stream.close()
            stream.receive_stream.close()

    def crash(self) -> None:
        """The provider is gone; what it has committed is not."""
        if self._nursery is not None:
            self._nursery.cancel_scope.cancel()
        self.cut()

    def cancel(self) -> None:
        """The victim is cancelled."""
        self.victim.cancel()

    async def signals(self, *, pending: bool = False) -> list[Task]:
        """What is kept, in order."""

        def work() -> Work[list[Task]]:
            sql = "SELECT s.message FROM signals s JOIN signal_tasks t ON t.task = s.task"
            where = " WHERE s.request = 1 AND t.ended = 0" if pending else ""
            return [Task.parse(message) for (message,) in (yield Statement(f"{sql}{where} ORDER BY s.place")).rows]

        return await self.database.read(work)


class AtStep(trio.abc.Instrument):
    """Strikes before one step of those in its block; with None it only counts them."""

    def __init__(self, strike: Callable[[], None], step: int | None) -> None:
        self.steps = 0
        self._strike = strike
        self._step = step
        self._error: BaseException | None = None

    def __enter__(self) -> Self:
        trio.lowlevel.add_instrument(self)
        return self

    def __exit__(self, *_: object) -> None:
        trio.lowlevel.remove_instrument(self)
        if self._error is not None:
            raise self._error

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.steps += 1
        if self.steps == self._step:
            try:
                self._strike()
            except BaseException as error:  # noqa: BLE001  Trio would log it and go on
                self._error = error


# -- signals ----------------------------------------------------------------------------------------------------------


async def one_cancelled_job(kind: str, step: int | None) -> int:
    """A job is cancelled by somebody else; the strike may come at any moment of it. Returns the steps."""
    async with Mesh().opened() as mesh:
        instrument = AtStep(getattr(mesh, kind), step)
        settings = SignalSettings(send_retries=0 if kind == "crash" else 3)  # by layer C, or as an outage
        published: list[str] = []
        came: list[float] = []
        over = trio.Event()

        async def job(task_status: trio.TaskStatus[None]) -> None:
            async with rpc.open_channel("mesh", connect=mesh.connect, random=mesh.random) as channel:
                with mesh.victim:
                    async with RemoteSignals(channel, settings, random=mesh.random).opened() as exchange:

                        def publish(action: SignalAction, reason: str = "signal_service_cancel") -> None:
                            published.append(action.value)
                            exchange.publish(Signal(task_id="j", action=action, cancellation_reason=reason))

                        def on_signal(signal: Signal) -> None:
                            came.append(trio.current_time())
                            over.set()
                            publish(SignalAction.ACK_CANCEL)

                        with exchange.listen("j", on_signal):
                            task_status.started()
                            try:
                                publish(SignalAction.START, "none")
                                await over.wait()
                                await trio.sleep(0.5)  # in which the signal must not come again
                            finally:
                                publish(SignalAction.STOP)

        async def platform() -> None:
            async with (
                rpc.open_channel("mesh", connect=mesh.connect, random=mesh.random) as channel,
                RemoteSignals(channel, settings, random=mesh.random).opened() as exchange,
            ):
                await trio.sleep(0.2)
                await exchange.deliver(Signal(task_id="j", action=SignalAction.CANCEL))

        with trio.fail_after(BOUND), instrument:
            async with trio.open_nursery() as nursery:
                await nursery.start(job)
                nursery.start_soon(platform)
        said = [task.action for task in await mesh.signals() if task.action != "cancel"]
        assert said == published, f"said {said}, published {published}"
        if kind != "cancel":
            assert published == ["start", "ack_cancel", "stop"]
            assert len(came) == 1
            assert not await mesh.signals(pending=True)
        return instrument.steps


# -- calls of services ------------------------------------------------------------------------------------------------


async def two_writes(kind: str, step: int | None) -> int:
    """Two jobs write through the clients of their server, and a third reads. Returns the steps."""
    async with Mesh().opened() as mesh:
        instrument = AtStep(getattr(mesh, kind), step)
        ends: dict[str, QueryError | None] = {}
        queries: list[ProviderQuery] = []

        async def write(query: ProviderQuery, name: str) -> None:
            request = AddCostRequest(
                cost=1.0,
                name=name,
                mission_id="missions:m",
                setup_version_id="v",
                unit="u",
                rate=1.0,
                quantity=1.0,
                cost_type=CostType.OTHER,
            )
            try:
                reply = await query.write(f"{COSTS}/AddCost", request, AddCostResponse, key=f"key of {name}")
                assert reply.success
                ends[name] = None
            except QueryError as error:
                ends[name] = error

        async def read(query: ProviderQuery) -> list[str]:
            request = GetCostsRequest(mission_id="missions:m")
            return sorted(
                cost.name for cost in (await query.read(f"{COSTS}/GetCosts", request, GetCostsResponse)).costs
            )

        async def jobs() -> None:
            async with ChannelCache().opened() as channels:
                clients = ProviderClients(channels, target="mesh:1", connect=mesh.connect, random=mesh.random)
                async with clients.opened(), trio.open_nursery() as nursery:
                    queries.append(clients.query())
                    nursery.start_soon(write, clients.query(), "a")
                    nursery.start_soon(write, clients.query(), "b")
                    with trio.move_on_after(0.05):
                        try:
                            await read(clients.query())
                        except GRPCError as error:
                            assert error.status is Status.UNAVAILABLE
                assert "0 providers, closed" in repr(clients)

        with trio.fail_after(BOUND), instrument, mesh.victim:
            await jobs()
        for query in queries:
            assert query.breaker.state is not BreakerState.HALF_OPEN
        await trio.testing.wait_all_tasks_blocked()
        rpcs = mesh.provider.statistics().rpc
        assert (rpcs.rpcs, mesh.database.statistics().queued) == (0, 0)

        await trio.sleep(AWAY + 1)
        async with rpc.open_channel("mesh", connect=mesh.connect, random=mesh.random) as channel:
            query = ProviderQuery(channel, random=mesh.random)
            there = await read(query)
            for name, error in ends.items():
                assert there.count(name) <= 1
                assert name in there or (error is not None)
                assert name not in there or error is None or not error.unprocessed
            if kind != "cancel":
                assert ends == {"a": None, "b": None}, ends  # the provider honours keys, so all was made good
            before = dict(ends)
            for name in ("a", "b"):  # who does not know asks again
                await write(query, name)
            assert await read(query) == ["a", "b"], before
        return instrument.steps


SCENARIOS: dict[str, Callable[[str, int | None], Awaitable[int]]] = {
    "signals": one_cancelled_job,
    "writes": two_writes,
}


@pytest.mark.parametrize("seed", seeds(1))
@pytest.mark.parametrize("kind", ["cut", "crash", "cancel"])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_it_is_struck_at_every_checkpoint(scenario: str, kind: str, seed: int) -> None:
    function = SCENARIOS[scenario]
    steps = run_seeded(seed, function, kind, None)
    assert steps > 50
    for step in range(1 + seed % STRIDE, steps + 1, STRIDE):
        with replay(scenario=scenario, kind=kind, seed=seed, step=step):
            run_seeded(seed, function, kind, step)
