"""Workers that are no processes: over memory streams, in virtual time, with a will of their own."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, count
from random import Random
from signal import SIGTERM
from typing import Any

import trio
from trio.testing import memory_stream_pair

from dk_trio.workers._control import Control
from dk_trio.workers._group import GroupReport, WorkerGroup
from dk_trio.workers._places import WorkerStartError

GRACE = 10.0
MOMENT = 0.05
DRAIN_WITHIN = 40.0


class FakeWorker:
    """A `Child` and its process. It is ready at once, unless it is told otherwise by `arranged`."""

    def __init__(self, number: int, pid: int) -> None:
        self.number, self.pid = number, pid
        self.started_at = trio.current_time()
        self.control, self._stream = memory_stream_pair()
        self.line = Control(self._stream)
        self.given: list[str] = []
        self.signals: list[int] = []
        self.connections: list[str] = []
        self.taken = self.lost = 0
        self.room = 1000
        self.beating = self.taking = True
        self.heard: list[dict[str, Any]] = []
        self.answer: dict[str, Any] | None = {}
        self.drain_takes: float | None = 0.0
        self.exit_code: int | None = None
        self._ended = trio.Event()
        self.closed = self.beside = False

    # what the parent calls

    def hand(self, connection: str) -> bool:
        if len(self.given) - self.taken - self.lost >= self.room or self._ended.is_set():
            return False
        self.given.append(connection)
        if self.taking:
            self.take()
        return True

    async def wait(self) -> int:
        await self._ended.wait()
        assert self.exit_code is not None
        return self.exit_code

    def send_signal(self, number: int) -> None:
        self.signals.append(number)

    def kill(self) -> None:
        self.end(-9)

    def close(self) -> None:
        self.closed = True

    # what it does

    def take(self) -> None:
        connection = self.given[self.taken + self.lost]
        self.taken += 1
        self.connections.append(connection)
        self.tell_load()

    def lose(self) -> None:
        self.lost += 1
        self.tell_load()

    def tell_load(self, *, closed: bool = False) -> None:
        self.line.offer(
            {
                "do": "load",
                "taken": self.taken,
                "lost": self.lost,
                "connections": len(self.connections),
                "rpcs": 0,
                "closed": closed,
            }
        )

    def say(self, **message: Any) -> None:
        self.line.offer(message)

    def end(self, exit_code: int) -> None:
        if not self._ended.is_set():
            self.exit_code = exit_code
            self._ended.set()

    async def live(self, *, ready_after: float | None) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.line.run, partial(self._handle, nursery))
            nursery.start_soon(self._beat)
            if ready_after is not None:
                await trio.sleep(ready_after)
                self.say(do="ready")
            await self._ended.wait()
            await trio.sleep(0.01)  # what was said last is on its way
            nursery.cancel_scope.cancel()
        await self._stream.aclose()

    async def _beat(self) -> None:
        while True:
            if self.beating:
                self.tell_load()
            await trio.sleep(0.5)

    def _handle(self, nursery: trio.Nursery, message: dict[str, Any]) -> None:
        self.heard.append(message)
        match message:
            case {"do": "drain"} if self.drain_takes is not None:
                nursery.start_soon(self._drain, self.drain_takes)
            case {"do": "hasten"} if self.drain_takes is not None:
                nursery.start_soon(self._drain, 0.0)
            case {"do": "ask", "id": number} if self.answer is not None:
                self.say(do="answer", id=number, answer=self.answer)

    async def _drain(self, seconds: float) -> None:
        self.tell_load(closed=True)
        await trio.sleep(seconds)
        self.say(do="drained", finished=1, cut=2)
        self.end(0)


class Source:
    """Connections, by name, when the test says so."""

    def __init__(self) -> None:
        self._into, self._out = trio.open_memory_channel[str | OSError](1000)
        self.attempts = 0
        self.closed = False

    def comes(self, *connections: str | OSError) -> None:
        for connection in connections:
            self._into.send_nowait(connection)

    async def accept(self) -> str:
        self.attempts += 1
        got = await self._out.receive()
        if isinstance(got, OSError):
            raise got
        return got

    async def aclose(self) -> None:
        self.closed = True
        await trio.lowlevel.checkpoint()


@dataclass
class Running:
    """A group that runs, all workers it has ever had, and what the test tells it."""

    group: WorkerGroup[str]
    source: Source
    workers: list[FakeWorker]
    closed: list[str]
    orders: trio.MemorySendChannel[int]
    ready: trio.Event = field(default_factory=trio.Event)
    ended: trio.Event = field(default_factory=trio.Event)
    report: GroupReport | None = None
    error: WorkerStartError | None = None

    def latest(self, number: int) -> FakeWorker:
        return [worker for worker in self.workers if worker.number == number][-1]

    def served(self) -> list[str]:
        """All connections that any worker has taken."""
        return sorted(chain.from_iterable(worker.connections for worker in self.workers))

    async def until(self, condition: Callable[[], object]) -> None:
        while not condition():  # noqa: ASYNC110 - virtual time
            await trio.sleep(MOMENT)

    async def stop(self) -> GroupReport:
        self.orders.send_nowait(SIGTERM)
        await self.ended.wait()
        assert self.report is not None
        return self.report


@asynccontextmanager
async def running(
    size: int, *, arranged: Callable[[FakeWorker], float | OSError | None] = lambda _: 0.0
) -> AsyncIterator[Running]:
    """A group of fake workers.

    `arranged` is called with each new worker, and says after how many seconds it is ready (None: never), or why there
    can be no process.
    """
    pids = count(101)
    orders, ordered = trio.open_memory_channel[int](10)
    source = Source()
    async with trio.open_nursery() as nursery:

        async def start(number: int, beside: bool) -> FakeWorker:
            worker = FakeWorker(number, next(pids))
            worker.beside = beside
            ready_after = arranged(worker)
            await trio.lowlevel.checkpoint()
            if isinstance(ready_after, OSError):
                raise ready_after
            run.workers.append(worker)
            nursery.start_soon(partial(worker.live, ready_after=ready_after))
            return worker

        async def serve() -> None:
            try:
                run.report = await run.group.run([source], orders=ordered, on_ready=run.ready.set)
            except WorkerStartError as error:
                run.error = error
            run.ended.set()

        closed: list[str] = []
        group = WorkerGroup[str](
            size, start, drain_within=DRAIN_WITHIN, grace=GRACE, close=closed.append, random=Random(0)
        )
        run = Running(group, source, [], closed, orders)
        with trio.fail_after(86400):
            nursery.start_soon(serve)
            yield run
        nursery.cancel_scope.cancel()
