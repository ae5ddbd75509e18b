"""The client's way to a server: calls in, connections underneath.

Theory of operation
-------------------
A channel is a lifetime: `async with open_channel(...)`. Its nursery holds the I/O tasks of its connections, the task
that expires deadlines, and the tasks that feed request streams. Calls run in their callers' tasks; leaving the channel
fails those that are still open with CANCELLED, says GOAWAY, and leaves nothing behind.

Choosing a connection is one synchronous step, `try_pick`: of the usable connections with room, the one with the fewest
calls. Only when there is none does a call wait, in one queue, first come first served, whatever it waits for: a
connection that is being made, or one of the server's MAX_CONCURRENT_STREAMS to become free. Whoever makes room hands it
to the head of the queue as a reservation, so that a call which comes later cannot take it in between.

A call that does not want to wait for readiness leaves the queue with UNAVAILABLE once an attempt to connect has failed;
the retry policy may bring it back. Nothing connects before the first call, or `ready`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from math import inf
from random import Random
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import outcome
import trio
from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError
from trio.lowlevel import Abort, RaiseCancelT, Task, current_task, reschedule, wait_task_rescheduled

from dk_trio import chance
from dk_trio.wire.compression import ENCODINGS

from .call_attempts import AttemptedCall
from .channel_options import ChannelOptions
from .connector import TLS, Connector
from .deadline_queue import DeadlineQueue
from .retry import RetryBudget, RetryPolicy
from .stub_call import StubCall
from .subchannel import ConnectivityState, Subchannel
from .transport import FLUSH_TIMEOUT

if TYPE_CHECKING:
    from grpclib.metadata import Deadline

    from dk_trio.wire.metadata import MetadataLike

    from .client_call import ClientCall
    from .client_connection import ClientLink
    from .interceptors import Interceptor
    from .peer import Peer

NO_RETRIES = RetryPolicy(max_attempts=1)
"""What a channel without a policy follows: calls that no server has processed are still repeated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelStatistics:
    """A snapshot of a channel."""

    state: str
    """Of the best connection: `ready`, `connecting`, `idle` or `transient failure`."""
    connections: int
    """Open now, draining ones included."""
    connects: int
    """Connections that became ready since the channel was opened."""
    connect_failures: int
    """Attempts to connect that failed."""
    calls: int
    """In progress, those that wait included."""
    waiting: int
    """Calls that wait for a connection or for room on one."""
    started: int
    """Calls since the channel was opened."""
    succeeded: int
    """Of these, ended with status OK."""
    failed: int
    """Ended with another status, or left by their callers."""
    retries: int
    """Further attempts, transparent ones included."""
    last_error: str
    """Why the last attempt to connect failed; empty without one."""


class _Waiter:
    __slots__ = ("task", "wait_for_ready")

    def __init__(self, task: Task, wait_for_ready: bool) -> None:
        self.task = task
        self.wait_for_ready = wait_for_ready


class Channel:
    """A channel to one target; made by `open_channel`. Generated stubs take it as their first argument."""

    def __init__(
        self,
        connector: Connector,
        *,
        options: ChannelOptions,
        interceptors: Sequence[Interceptor],
        random: Random,
    ) -> None:
        self.options = options
        self.interceptors = tuple(interceptors)
        self.random = random
        self.retry_policy = options.retry or NO_RETRIES
        self.throttled = self.retry_policy.throttling is not None
        self.retry_budget = RetryBudget(self.retry_policy.throttling)
        self.deadlines = DeadlineQueue()
        self.nursery: trio.Nursery
        self.token: trio.lowlevel.TrioToken
        self.closed = True
        self.started = self.succeeded = self.failed = self.retries = 0
        self.calls: dict[AttemptedCall, None] = {}
        self._connector = connector
        self._nursery_manager: AbstractAsyncContextManager[trio.Nursery] | None = None
        self._subchannels: tuple[Subchannel, ...] = ()
        self._single: Subchannel | None = None
        # Ordered, and quick to leave in the middle: a deadline may cancel thousands of waiting calls at once.
        self._waiting: OrderedDict[_Waiter, None] = OrderedDict()
        self._changed = trio.Event()

    @property
    def target(self) -> str:
        """What the channel was opened for."""
        return self._connector.target

    @property
    def private(self) -> bool:
        """Whether nobody on a network can read what is sent: TLS, or both ends are on this machine."""
        return self._connector.private

    @property
    def peer(self) -> Peer | None:
        """Who calls that begin now go to: another object for another connection. None without one, or with several."""
        single = self._single
        return None if single is None or single.link is None else single.link.peer

    def __repr__(self) -> str:
        state = "closed" if self.closed else self.state.value
        return f"<Channel {self._connector.target!r} {state}, {len(self.calls)} calls, {len(self._waiting)} waiting>"

    # -- lifetime ---------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._nursery_manager is not None:
            raise RuntimeError("a channel can be entered once; open another one")
        self._nursery_manager = trio.open_nursery()
        self.nursery = await self._nursery_manager.__aenter__()
        self.token = trio.lowlevel.current_trio_token()
        self._subchannels = tuple(
            Subchannel(
                self,
                self._connector.connect,
                self.nursery,
                on_ready=self._connector.confirm,
                options=self.options,
                authority=self._connector.authority,
                scheme=self._connector.scheme,
                random=self.random,
            )
            for _ in range(self.options.connections)
        )
        self._single = self._subchannels[0] if len(self._subchannels) == 1 else None
        self.nursery.start_soon(self.deadlines.run)
        self.closed = False
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        assert self._nursery_manager is not None
        self._shut_down()
        with trio.move_on_after(FLUSH_TIMEOUT, shield=True):
            while any(subchannel.links for subchannel in self._subchannels):
                await self._changed.wait()
        self.nursery.cancel_scope.cancel(reason="the channel was closed")
        try:
            return await self._nursery_manager.__aexit__(kind, error, traceback)
        except BaseExceptionGroup as group:
            # The nursery is ours, not the caller's: what the caller raised goes on as it was.
            if len(group.exceptions) == 1 and group.exceptions[0] is error:
                return False
            raise

    def _shut_down(self) -> None:
        self.closed = True
        ending = GRPCError(Status.CANCELLED, "the channel was closed")
        while self._waiting:
            reschedule(self._waiting.popitem(last=False)[0].task, outcome.Error(ending))
        for call in list(self.calls):
            call.fail(ending)
        for subchannel in self._subchannels:
            subchannel.close()

    # -- calls ------------------------------------------------------------------------------------------------------

    def request(
        self,
        name: str,
        cardinality: Cardinality,
        request_type: type[Any],
        reply_type: type[Any],
        *,
        timeout: float | None = None,
        deadline: Deadline | None = None,
        metadata: MetadataLike | None = None,
        wait_for_ready: bool | None = None,
        compression: str | None = None,
        retry: RetryPolicy | None = None,
        may_repeat: Callable[[], Awaitable[bool]] | None = None,
    ) -> ClientCall:
        """A call, for `async with`; nothing is sent before its first message. Generated stubs use this.

        Args:
            name: `/package.Service/Method`.
            cardinality: which sides stream.
            request_type: its instances have `SerializeToString()`.
            reply_type: has `FromString(data)`.
            timeout: seconds from now. The smallest of timeout, deadline and the deadline of the cancel scopes around
                the first send is told to the server, in every attempt. Past timeout or deadline the call fails with
                DEADLINE_EXCEEDED; a cancel scope does what it always does.
            deadline: the same as a point in time, `rpc.Deadline` or grpclib's.
            metadata: mapping or pairs; `bytes` for names that end in `-bin`, else printable ASCII.
            wait_for_ready: overrides the option of the same name.
            compression: overrides the option of the same name.
            retry: overrides the option of the same name for this call, all but its throttling, which is the channel's.
            may_repeat: for a call that must not be processed twice: asked before an attempt that follows one which the
                server may have processed; without its True the failure is final. Must not raise. Attempts that no
                server has processed are repeated without asking.

        Raises:
            trio.ClosedResourceError: outside of the channel's `async with`.
            ValueError: a compression that is not known.
        """
        if self.closed:
            raise trio.ClosedResourceError(f"{self!r}: a channel carries calls only inside its 'async with'")
        when = inf
        if timeout is not None:
            when = trio.current_time() + timeout
        if deadline is not None:
            when = min(when, trio.current_time() + deadline.time_remaining())
        options = self.options
        if compression is None:
            compression = options.compression
        elif compression not in ENCODINGS:
            raise ValueError(f"compression is {compression!r}, it must be one of {', '.join(ENCODINGS)}")
        if wait_for_ready is None:
            wait_for_ready = options.wait_for_ready
        call = StubCall(self, name, cardinality, request_type, reply_type, when, metadata, wait_for_ready, compression)
        if retry is not None:
            call._policy = retry
        if may_repeat is not None:
            call._may_repeat = may_repeat
        return call

    # -- choosing a connection --------------------------------------------------------------------------------------

    def try_pick(self) -> ClientLink | None:
        """The usable connection with the fewest calls, if one has room and nobody waits for it."""
        if self._waiting:
            return None
        single = self._single
        if single is not None:
            link = single.link
            return link if link is not None and link.limit - len(link.wire.streams) - link.reserved > 0 else None
        return self._best()

    def _best(self) -> ClientLink | None:
        best: ClientLink | None = None
        load = 0
        for subchannel in self._subchannels:
            link = subchannel.link
            if link is None:
                subchannel.demand()
            elif link.room > 0:
                calls = len(link.wire.streams) + link.reserved
                if best is None or calls < load:
                    best, load = link, calls
        return best

    async def pick(self, *, wait_for_ready: bool) -> ClientLink:
        """Wait for a connection with room. The caller opens a stream on it before its next checkpoint.

        Raises GRPCError: UNAVAILABLE when no connection can be made and the call does not wait for readiness,
        CANCELLED when the channel is closed.
        """
        again = False
        while True:
            if self.closed:
                raise GRPCError(Status.CANCELLED, "the channel was closed")
            for subchannel in self._subchannels:
                subchannel.demand()
            if not wait_for_ready and self._failing:
                await trio.lowlevel.checkpoint()
                raise self._unavailable()
            link = await self._queue_up(wait_for_ready, in_front=again)
            link.unreserve()
            if link.room > 0:
                return link
            # The connection was lost between the promise and now. Its turn had come, so it is the next again.
            link.on_stream_gone()
            again = True

    async def _queue_up(self, wait_for_ready: bool, *, in_front: bool) -> ClientLink:
        waiter = _Waiter(current_task(), wait_for_ready)
        self._waiting[waiter] = None
        if in_front:
            self._waiting.move_to_end(waiter, last=False)
        self.on_room()

        def abort(_: RaiseCancelT) -> Abort:
            del self._waiting[waiter]
            return Abort.SUCCEEDED

        link: ClientLink = await wait_task_rescheduled(abort)
        return link

    def on_room(self) -> None:
        """Hand free room to those who wait for it, in their order."""
        while self._waiting:
            link = self._best()
            if link is None:
                break
            link.reserve()
            reschedule(self._waiting.popitem(last=False)[0].task, outcome.Value(link))
        for subchannel in self._subchannels:
            if subchannel.link is not None:
                subchannel.link.watched = bool(self._waiting)

    def on_state(self) -> None:
        """A connection has changed its state: those who wait for it connect it, or learn that it fails."""
        if self._waiting and not self.closed:
            if self._failing:
                for waiter in [waiter for waiter in self._waiting if not waiter.wait_for_ready]:
                    del self._waiting[waiter]
                    reschedule(waiter.task, outcome.Error(self._unavailable()))
            else:
                for subchannel in self._subchannels:
                    subchannel.demand()
        self._changed.set()
        self._changed = trio.Event()

    @property
    def _failing(self) -> bool:
        return all(subchannel.state is ConnectivityState.TRANSIENT_FAILURE for subchannel in self._subchannels)

    def _unavailable(self) -> GRPCError:
        return GRPCError(Status.UNAVAILABLE, self._last_error or "no connection")

    @property
    def _last_error(self) -> str:
        return next((subchannel.last_error for subchannel in self._subchannels if subchannel.last_error), "")

    # -- state ------------------------------------------------------------------------------------------------------

    @property
    def state(self) -> ConnectivityState:
        """The state of the best connection."""
        states = {subchannel.state for subchannel in self._subchannels}
        order = (ConnectivityState.READY, ConnectivityState.CONNECTING, ConnectivityState.IDLE)
        return next((state for state in order if state in states), ConnectivityState.TRANSIENT_FAILURE)

    async def ready(self) -> None:
        """Connect, and return once the server can be called. Waits through failures: put it into `fail_after`.

        Raises trio.ClosedResourceError when the channel is closed.
        """
        await trio.lowlevel.checkpoint()
        while self.state is not ConnectivityState.READY:
            if self.closed:
                raise trio.ClosedResourceError(repr(self))
            for subchannel in self._subchannels:
                subchannel.demand()
            await self._changed.wait()

    def statistics(self) -> ChannelStatistics:
        """What the channel is doing, and has done."""
        return ChannelStatistics(
            state="closed" if self.closed else self.state.value,
            connections=sum(len(subchannel.links) for subchannel in self._subchannels),
            connects=sum(subchannel.connects for subchannel in self._subchannels),
            connect_failures=sum(subchannel.connect_failures for subchannel in self._subchannels),
            calls=len(self.calls),
            waiting=len(self._waiting),
            started=self.started,
            succeeded=self.succeeded,
            failed=self.failed,
            retries=self.retries,
            last_error=self._last_error,
        )


def open_channel(
    target: str,
    *,
    options: ChannelOptions | None = None,
    ssl_context: TLS = None,
    interceptors: Sequence[Interceptor] = (),
    connect: Callable[[], Awaitable[trio.abc.Stream]] | None = None,
    random: Random | None = None,
) -> Channel:
    """A channel to `target`, for `async with`. Connects with the first call.

    Args:
        target: `host:port`, `[v6]:port`, `dns:///host:port` or `unix:/path`.
        options: see `ChannelOptions`.
        ssl_context: see `TLS`; None is plain text.
        interceptors: around each call, the first outermost.
        connect: makes the byte stream instead of TCP or a Unix socket, for instance one end of
            `trio.testing.memory_stream_pair`; `target` then only names the server. TLS, if any, goes on top.
        random: source of jitter; a seeded one makes retries and reconnects repeatable.

    Raises:
        ValueError: a target that is not understood.
    """
    options = options or ChannelOptions()
    return Channel(
        Connector(target, options=options, ssl_context=ssl_context, connect=connect),
        options=options,
        interceptors=interceptors,
        random=random or chance.new_random(),
    )
