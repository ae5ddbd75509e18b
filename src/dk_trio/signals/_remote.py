"""The exchange of a server with a services-provider."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from random import Random
from types import TracebackType
from typing import Final, Self

import trio

from dk_trio import chance, rpc
from dk_trio.boundary import unwrapped
from dk_trio.settings import SignalSettings

from ._calls import Calls
from ._local import LocalSignals
from ._path import PathHealth
from ._signal import OnSignal, Signal
from ._subscription import Subscription
from .inbox import InboundStatistics, Inbox
from .outbox import MAX_TASKS, OutboundStatistics, Outbox

CLOSE_TIMEOUT: Final = 5.0
"""Seconds in which what waits is sent at the end: half of what a job gets for its cleanup, and a sixth of the 30 s that
Kubernetes gives a pod to end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteSignalsStatistics:
    """A snapshot of an exchange.

    Attributes:
        outbound: What went out.
        inbound: What came in.
    """

    outbound: OutboundStatistics
    inbound: InboundStatistics


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteSignalsHealth:
    """Whether signals get through.

    Attributes:
        outbound: From jobs to the provider.
        inbound: From the provider to jobs.
        pending: Signals that wait to be sent.
    """

    outbound: PathHealth
    inbound: PathHealth
    pending: int


class RemoteSignals:
    """Carries signals between the jobs of this process and a services-provider.

    Nothing here fails a job: what cannot be sent is kept and sent later, what cannot be asked for is told in the log
    and in `health`. Delivery is at least once, in order for each job. Not for use from other threads.

    Args:
        channel: To the provider; opened by the caller before, and closed after. One of its own is best, as a large
            request of another kind would stand before a cancel.
        settings: Sizes and times.
        random: Source of jitter; a seeded one makes times repeatable.
        max_tasks: Jobs whose signals are kept through an outage; above it those of ended jobs are lost, and told:
            first of jobs of which the provider has never heard, then of those that ended first.
        close_timeout: Seconds in which what waits is sent at the end.
    """

    def __init__(
        self,
        channel: rpc.Channel,
        settings: SignalSettings,
        *,
        random: Random | None = None,
        max_tasks: int = MAX_TASKS,
        close_timeout: float = CLOSE_TIMEOUT,
    ) -> None:
        random = random or chance.new_random()
        calls = Calls(channel)
        self._queue_size = settings.queue_size
        self._close_timeout = close_timeout
        self._closing = False
        self._local = LocalSignals()
        self._outbox = Outbox(calls, settings, random=random, max_tasks=max_tasks)
        self._inbox = Inbox(calls, settings, hand_on=self._local.send, random=random)

    def __repr__(self) -> str:
        return f"<RemoteSignals {self._outbox!r} {self._inbox!r}>"

    def statistics(self) -> RemoteSignalsStatistics:
        """What went through."""
        return RemoteSignalsStatistics(outbound=self._outbox.statistics(), inbound=self._inbox.statistics())

    def health(self) -> RemoteSignalsHealth:
        """Whether it goes through."""
        return RemoteSignalsHealth(
            outbound=self._outbox.path.health, inbound=self._inbox.path.health, pending=self._outbox.pending
        )

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Self]:
        """Signals go out and come in for the length of the block. Can be entered once.

        At its end, cancelled or not, what waits is sent, for `close_timeout` seconds at most; what is left then is
        lost, and told by number and jobs. What is published before the block is kept until it begins.
        """
        self._outbox.path.opened()
        self._inbox.path.opened()
        async with unwrapped(), trio.open_nursery() as nursery:
            polling = trio.CancelScope()
            nursery.start_soon(self._outbox.run)
            nursery.start_soon(self._poll, polling)
            try:
                yield self
            finally:
                polling.cancel()
                self._closing = True
                self._outbox.close(self._close_timeout)

    def hasten(self) -> None:
        """Let `opened`, if it is at its end, not wait until signals are sent: what is left is lost, and told."""
        if self._closing:
            self._outbox.close(0.0)

    async def _poll(self, scope: trio.CancelScope) -> None:
        with scope:
            await self._inbox.run()

    # -- of a SignalExchange ------------------------------------------------------------------------------------------

    @property
    def observed(self) -> bool:
        """Yes: the provider gets what is published."""
        return True

    def listen(self, job_id: str, on_signal: OnSignal) -> AbstractContextManager[None]:
        """See `SignalExchange.listen`. One listener for a job."""
        return _Listening(self._inbox, job_id, self._local.listen(job_id, on_signal))

    def publish(self, signal: Signal) -> None:
        """Tell the provider soon, and the observers now. Never waits, and never raises."""
        self._local.publish(signal)
        self._outbox.publish(signal)

    # -- beside it ----------------------------------------------------------------------------------------------------

    async def deliver(self, signal: Signal) -> None:
        """Tell the provider, and wait until it has taken the signal; the observers are told now.

        In an outage this waits for its end: put it into `trio.move_on_after` to wait for less.

        Raises:
            TaskManagerServiceError: The signal was refused, or given up. With UNIMPLEMENTED, UNAUTHENTICATED and
                PERMISSION_DENIED it is kept all the same, as what is published, and sent should that change.

        Cancellation:
            Nobody waits any more; the signal is sent as what is published.
        """
        self._local.publish(signal)
        await self._outbox.deliver(signal)

    def send(self, signal: Signal) -> bool:
        """Deliver a signal to a job here, not by way of the provider. A `cancel` or `stop` has taken effect then.

        Returns:
            False when nobody listens for such a job: it has ended, or runs elsewhere.
        """
        return self._inbox.deliver(signal)

    @contextmanager
    def subscribe(self, job_id: str) -> Iterator[Subscription]:
        """The signals to a job as a stream, for the length of the block; beside the job's own listener, if it has one.

        Whoever asks the provider for the signals to a job counts as running it.
        """
        subscription = Subscription(job_id, self._queue_size)
        self._inbox.join(job_id, subscription)
        try:
            yield subscription
        finally:
            subscription.close()
            self._inbox.leave(job_id, subscription)

    def observe(self, observer: OnSignal) -> AbstractContextManager[None]:
        """Call `observer` for every signal that a job here publishes, for the length of the block. It must not wait."""
        return self._local.observe(observer)


class _Listening:
    """A class and not a generator: every job enters one."""

    __slots__ = ("_inbox", "_job_id", "_listening")

    def __init__(self, inbox: Inbox, job_id: str, listening: AbstractContextManager[None]) -> None:
        self._inbox = inbox
        self._job_id = job_id
        self._listening = listening

    def __enter__(self) -> None:
        self._listening.__enter__()
        self._inbox.join(self._job_id)

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._inbox.leave(self._job_id)
        self._listening.__exit__(kind, value, trace)
