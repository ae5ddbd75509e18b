"""A services-provider that does as it is told: it holds, fails, drops replies, goes away, comes back, and echoes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from math import inf
from random import Random
from typing import Any

import trio
import trio.testing
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError

from dk_trio import extensions, rpc
from dk_trio.boundary import unwrapped
from dk_trio.pb.agentic_mesh_protocol.task_manager.v1 import (
    GetSignalsRequest,
    GetSignalsResponse,
    SendSignalsRequest,
    SendSignalsResponse,
    Task,
)
from dk_trio.pb.google.protobuf import Struct
from dk_trio.settings import SignalSettings
from dk_trio.signals import RemoteSignals, Signal, SignalAction

DAY = 7200  # nothing here takes longer in virtual time; a deadlock polls on until then
SERVICE = "/agentic_mesh_protocol.task_manager.v1.TaskManagerService"


@dataclass
class Sent:
    """One SendSignals."""

    at: float
    key: str
    tasks: list[Task]

    @property
    def said(self) -> list[tuple[str, str]]:
        return [(task.task_id, task.action) for task in self.tasks]


@dataclass
class Poll:
    """One GetSignals."""

    at: float
    ids: list[str]
    after: str
    ended: float = inf


def request_for(task_id: str, action: str = "cancel", reason: str = "none", **payload: Any) -> Task:
    """What a platform wants of a job."""
    return Task(
        task_id=task_id,
        action=action,
        cancellation_reason=reason,
        created_at=datetime.now(UTC),
        payload=Struct.from_dict(payload) if payload else None,
    )


@dataclass
class FakeProvider:
    """Behaves well until its fields say otherwise.

    `send_plan` and `poll_plan` are used up call by call, then `send` and `poll` hold: a Status to fail with, "hang",
    "drop" (do it, and lose the reply), "no" (`success=false`), a number of seconds to take, or None.
    """

    nursery: trio.Nursery
    holds: bool = False
    echoes: bool = False
    forgets: bool = True
    """A request is told once; otherwise until its job answers."""
    send: Any = None
    poll: Any = None
    refuses: Callable[[Task], Any] = lambda _: None
    skew: timedelta = timedelta()
    up: bool = True
    sent: list[Sent] = field(default_factory=list)
    taken: list[Task] = field(default_factory=list)
    polls: list[Poll] = field(default_factory=list)
    pending: list[tuple[int, Task]] = field(default_factory=list)
    send_plan: list[Any] = field(default_factory=list)
    poll_plan: list[Any] = field(default_factory=list)
    connections: int = 0
    sending: int = 0
    most_sending: int = 0
    trailers: dict[str, str] = field(default_factory=dict)
    details: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._streams: list[trio.abc.Stream] = []
        self._number = 0
        self._keys: dict[str, Any] = {}
        self.came = trio.Event()
        self._server = rpc.Server([self])

    # -- the network --------------------------------------------------------------------------------------------------

    async def connect(self) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        if not self.up:
            raise OSError("nobody listens")
        self.connections += 1
        ours, theirs = trio.testing.memory_stream_pair()
        self._streams.append(theirs)
        self.nursery.start_soon(self._server.serve_stream, theirs)
        return ours

    async def down(self) -> None:
        self.up = False
        await self.cut()

    async def cut(self) -> None:
        """Break all connections, as a network does."""
        streams, self._streams = self._streams, []
        for stream in streams:
            await trio.aclose_forcefully(stream)

    async def restart(self) -> None:
        """Forget everything that is not durable: here all of it."""
        await self.down()
        self.pending.clear()
        self._number = 0
        self.up = True

    # -- what the platform does ---------------------------------------------------------------------------------------

    def ask(self, *tasks: Task) -> None:
        """Put signals to jobs up for GetSignals."""
        for task in tasks:
            self._number += 1
            self.pending.append((self._number, task))
        self.came.set()
        self.came = trio.Event()

    def of(self, task_id: str) -> list[str]:
        """What the provider has taken about one job, without immediate repetitions."""
        actions: list[str] = []
        for task in self.taken:
            if task.task_id == task_id and task.action not in actions[-1:]:
                actions.append(task.action)
        return actions

    # -- the service --------------------------------------------------------------------------------------------------

    def __mapping__(self) -> dict[str, Handler]:
        unary = Cardinality.UNARY_UNARY
        return {
            f"{SERVICE}/SendSignals": Handler(self._send_signals, unary, SendSignalsRequest, SendSignalsResponse),
            f"{SERVICE}/GetSignals": Handler(self._get_signals, unary, GetSignalsRequest, GetSignalsResponse),
        }

    async def _behave(self, what: Any) -> bool:
        """Whether the reply is dropped."""
        if isinstance(what, Status):
            raise GRPCError(what, "as told", self.details or None)
        if what == "hang":
            await trio.sleep_forever()
        if isinstance(what, (int, float)):
            await trio.sleep(what)
        return what == "drop"

    async def _fail(self, stream: Any, status: Status) -> None:
        await stream.send_trailing_metadata(status=status, status_message="as told", metadata=self.trailers)

    async def _send_signals(self, stream: Any) -> None:
        message = await stream.recv_message()
        key = stream.metadata.get(extensions.IDEMPOTENCY_KEY, "")
        self.sent.append(Sent(trio.current_time(), key, message.tasks))
        self.sending += 1
        self.most_sending = max(self.most_sending, self.sending)
        try:
            what = self.send_plan.pop(0) if self.send_plan else self.send
            if self.trailers and isinstance(what, Status):
                await self._fail(stream, what)
                return
            drop = await self._behave(what)
            refusals = [self.refuses(task) for task in message.tasks]
            refusal = next((refusal for refusal in refusals if refusal is not None), "no" if what == "no" else None)
            if isinstance(refusal, Status):
                raise GRPCError(refusal, "poison")
            if refusal is None and key not in self._keys:
                self._keys[key] = bytes(message)
                self.taken += message.tasks
                if self.echoes:
                    self.ask(*message.tasks)
            elif refusal is None:
                assert self._keys[key] == bytes(message)
            if drop:
                self.nursery.start_soon(self.cut)  # this task is cancelled by it
                await trio.sleep_forever()
            await stream.send_initial_metadata(metadata=self._told())
            await stream.send_message(SendSignalsResponse(success=refusal is None))
        finally:
            self.sending -= 1

    def _told(self, **more: str) -> dict[str, str]:
        return {extensions.HONOURS: extensions.LONG_POLL, **more} if self.holds else {}

    async def _get_signals(self, stream: Any) -> None:
        message = await stream.recv_message()
        ids = set(message.task_ids)
        after = stream.metadata.get(extensions.SIGNALS_AFTER, "")
        poll = Poll(trio.current_time(), message.task_ids, after)
        self.polls.append(poll)
        try:
            what = self.poll_plan.pop(0) if self.poll_plan else self.poll
            if self.trailers and isinstance(what, Status):
                await self._fail(stream, what)
                return
            await self._behave(what)
            begun = int(after or 0)
            found = self._found(ids, begun)
            if self.holds:
                left = stream.deadline_at - trio.current_time()
                with trio.move_on_after(left * 0.9):
                    while not found:
                        await self.came.wait()
                        found = self._found(ids, begun)
                upto = str(found[-1][0]) if found else after or "0"
                await stream.send_initial_metadata(metadata=self._told(**{extensions.SIGNALS_UPTO: upto}))
            if self.forgets:
                numbers = {number for number, _ in found}
                self.pending = [pair for pair in self.pending if pair[0] not in numbers]
            tasks = [task for _, task in found]
            for task in tasks:
                if self.skew and task.created_at is not None:
                    task.created_at += self.skew
            await stream.send_message(GetSignalsResponse(tasks=tasks))
        finally:
            poll.ended = trio.current_time()

    def _found(self, ids: set[str], after: int) -> list[tuple[int, Task]]:
        return [(number, task) for number, task in self.pending if task.task_id in ids and number > after]


@asynccontextmanager
async def exchange_with(
    *, seed: int = 1, settings: SignalSettings | None = None, channel: dict[str, Any] | None = None, **arguments: Any
) -> AsyncIterator[tuple[RemoteSignals, FakeProvider]]:
    """An open exchange and its provider; no task of either is left afterwards.

    `arguments` are those of `SignalSettings`, of `FakeProvider`, and `max_tasks`, `close_timeout` of the exchange.
    """
    own = {name: arguments.pop(name) for name in ("max_tasks", "close_timeout") if name in arguments}
    fields = {name: arguments.pop(name) for name in list(arguments) if name in SignalSettings.__dataclass_fields__}
    with trio.fail_after(DAY):
        async with unwrapped(), trio.open_nursery() as nursery:
            provider = FakeProvider(nursery, **arguments)
            options = rpc.ChannelOptions(**(channel or {}))
            async with rpc.open_channel(
                "fake", connect=provider.connect, options=options, random=Random(seed)
            ) as opened:
                exchange = RemoteSignals(opened, settings or SignalSettings(**fields), random=Random(seed), **own)
                async with exchange.opened():
                    yield exchange, provider
            nursery.cancel_scope.cancel()


def start(task_id: str) -> Signal:
    return Signal(task_id=task_id, action=SignalAction.START)


def stop(task_id: str, reason: str = "completed") -> Signal:
    return Signal(task_id=task_id, action=SignalAction.STOP, cancellation_reason=reason)


def ack(task_id: str, action: SignalAction = SignalAction.ACK_CANCEL) -> Signal:
    return Signal(task_id=task_id, action=action, cancellation_reason="signal_service_cancel")


async def settled(exchange: RemoteSignals) -> None:
    """Wait until nothing is pending."""
    while exchange.health().pending:  # noqa: ASYNC110  nobody tells of it
        await trio.sleep(0.01)
