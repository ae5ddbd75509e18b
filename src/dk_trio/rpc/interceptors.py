"""Interceptors: code around a call, of one shape on the client and on the server.

An interceptor is a function of the call that gives an async context manager, most easily written as

    @asynccontextmanager
    async def log_calls(call: CallInfo) -> AsyncIterator[None]:
        started = trio.current_time()
        try:
            yield
        finally:
            print(call.path, trio.current_time() - started)

What stands before the `yield` runs before the handler (server) or before the request is sent (client), where it may
still change `call.metadata`, or refuse the call by raising `GRPCError`. What stands after it runs when the call has
ended. A call that fails raises its exception at the `yield`; an interceptor may raise another one in its place, but it
cannot turn a failure into a success: there would be no reply to go with it. Interceptors nest, the first is outermost.
With retries, the client's interceptors see the call once, not each attempt. One that counts or logs how calls end
asks `call.status_for` with what was raised at its `yield`, or None. A server turns calls away for which it has no
method or no room, and no interceptor runs: one that has `refused(call, status)` is told by that; what it raises is
logged.

One that only looks derives from `Observer`. It is an interceptor like others; but a server whose first interceptors are
observers enters no context manager for them, which costs more than counting a call does.

On the client, generated stubs for streaming replies are generators, and the call stays open across their `yield`s.
There an interceptor must not hold a cancel scope or a nursery open across its own `yield`; everything else is fine.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from math import isfinite
from types import TracebackType
from typing import Literal, Protocol

import trio
from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError
from multidict import MultiDict

_logger = logging.getLogger("dk_trio.rpc.server")


def status_of_caller(error: BaseException | None) -> Status:
    """What a client's call has ended with. Whoever leaves it by another exception has cancelled it."""
    if error is None:
        return Status.OK
    return error.status if isinstance(error, GRPCError) else Status.CANCELLED


@dataclass(slots=True, kw_only=True, eq=False)
class CallInfo:
    """What an interceptor is told about one call; the same object for all interceptors of the call."""

    path: str
    """`/package.Service/Method`."""
    cardinality: Cardinality | None
    """Which sides stream; None for a call whose method the server does not have."""
    metadata: MultiDict[str | bytes]
    """Request metadata: `str`, or `bytes` for names that end in `-bin`. A client may change it before the `yield`."""
    deadline: float
    """When the call must have ended, on `trio.current_time`'s clock; `inf` for never."""
    peer: object | None
    """Who is at the other end. On the client None until a connection was chosen for the call."""
    side: Literal["client", "server"]
    target: str = ""
    """On the client what the channel was opened for."""
    private: bool = False
    """On the client: nobody on a network can read the call, as there is TLS, or both ends are on one machine."""
    identity: object | None = None
    """On the server who calls, once an interceptor has found it out (`dk_trio.security.Identity`)."""
    status_for: Callable[[BaseException | None], Status] = status_of_caller
    """The status that the call ends with when this exception, or None, leaves the interceptor."""

    def time_remaining(self) -> float:
        """Seconds until the deadline, never negative; `inf` without one."""
        if not isfinite(self.deadline):
            return self.deadline
        return max(0.0, self.deadline - trio.current_time())


Interceptor = Callable[[CallInfo], AbstractAsyncContextManager[object]]


class Watch(Protocol):
    """What an observer keeps of one call."""

    def ended(self, status: Status, seconds: float) -> None:
        """The call has ended, this long after the observer was told of it. Must neither wait nor raise."""
        ...


class Observer(ABC):
    """An interceptor that neither waits nor changes how a call goes."""

    @abstractmethod
    def watch(self, call: CallInfo) -> Watch:
        """A call begins. On a server in its own task, where context variables may be set for its length."""

    def __call__(self, call: CallInfo) -> AbstractAsyncContextManager[object]:
        """Around a call, wherever interceptors are entered one by one."""
        return _Observed(self, call)


def observers_of(interceptors: Iterable[Interceptor]) -> Iterator[Observer]:
    """The first of them, as far as they only look."""
    for interceptor in interceptors:
        if not isinstance(interceptor, Observer):
            return
        yield interceptor


def tell_ended(watches: Sequence[Watch], status: Status, seconds: float) -> None:
    """A call has ended; whoever began to watch last is told first."""
    for watch in reversed(watches):
        try:
            watch.ended(status, seconds)
        except Exception:  # boundary: a defect of one that only looks must not end the connection, with all its calls
            _logger.exception("%r has failed at the end of a call", watch)


class _Observed:
    __slots__ = ("_call", "_observer", "_since", "_watch")

    def __init__(self, observer: Observer, call: CallInfo) -> None:
        self._observer = observer
        self._call = call

    async def __aenter__(self) -> None:
        self._since = trio.current_time()
        self._watch = self._observer.watch(self._call)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._watch.ended(self._call.status_for(error), trio.current_time() - self._since)


class InterceptorStack:
    """The interceptors of one call, entered in order and left in reverse, as one async context manager.

    Never swallows an exception, whatever the interceptors return. In place of `contextlib.AsyncExitStack`, which costs
    more than what most interceptors do.
    """

    __slots__ = ("_call", "_entered", "_interceptors")

    def __init__(self, interceptors: Iterable[Interceptor], call: CallInfo) -> None:
        self._interceptors = interceptors
        self._call = call
        self._entered: list[AbstractAsyncContextManager[object]] = []

    async def __aenter__(self) -> CallInfo:
        try:
            for interceptor in self._interceptors:
                manager = interceptor(self._call)
                await manager.__aenter__()
                self._entered.append(manager)
        except BaseException as error:
            # Those already entered learn of it; the first exception stays the one that is raised.
            await self.__aexit__(type(error), error, error.__traceback__)
            raise
        return self._call

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        entered = self._entered
        raised = error
        try:
            while entered:
                manager = entered.pop()
                try:
                    await manager.__aexit__(kind, error, traceback)
                except BaseException as another:  # noqa: BLE001  boundary: those further out learn of it, then it is raised
                    kind, error, traceback = type(another), another, another.__traceback__
            if error is not None and error is not raised:
                raise error
        finally:
            del error, raised, traceback  # a cycle keeps what was not read until the next collection
