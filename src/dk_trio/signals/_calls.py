"""The two calls of an exchange, and what the provider says of itself beside them.

Neither follows the retry policy of the channel. Who sends has retries of its own (layer C of the tuning guide), which
would multiply with those; and a poll that failed is followed by the next one anyway.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, Self, TypeVar

import trio
from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError

from dk_trio import extensions, rpc
from dk_trio.pb.agentic_mesh_protocol.task_manager.v1 import SendSignalsResponse, Task
from dk_trio.rpc.details import retry_delay
from dk_trio.rpc.retry import PUSHBACK_HEADER, parse_pushback

from ._tasks import readable_tasks

if TYPE_CHECKING:
    from multidict import MultiDict

R = TypeVar("R")

_ONCE: Final = rpc.RetryPolicy(max_attempts=1)
_SERVICE: Final = "/agentic_mesh_protocol.task_manager.v1.TaskManagerService"

AWAY: Final = 60.0
"""Seconds that a pause may last while there is no connection. The channel looks for the one that ends it all the time;
without one a call would find out nothing."""

_FLOOR: Final = 0.1
"""Share of a pause that is always waited for. A server that dies of each call connects well in between, and would be
called without a pause at all."""


PUSHBACK_MAX: Final = 60.0
"""Seconds; for so long at most the provider may ask to be left alone (`CallError.pushback`)."""


class CallError(GRPCError):
    """A call failed.

    Attributes:
        pushback: Seconds after which the server wants to be asked again, by its trailer or by a google.rpc.RetryInfo in
            its details; negative: not soon; None: it did not say.
    """

    def __init__(self, status: Status, message: str | None, pushback: float | None = None) -> None:
        super().__init__(status, message)
        self.pushback = pushback

    def __str__(self) -> str:
        return f"{self.status.name}: {self.message}" if self.message else self.status.name


class Encoded:
    """A request as bytes, made once: a retry has to say the same under the same key, whatever becomes of a payload."""

    __slots__ = ("_data",)

    def __init__(self, data: bytes) -> None:
        self._data = data

    def SerializeToString(self) -> bytes:  # noqa: N802  what a call asks of its request
        """The bytes."""
        return self._data

    @classmethod
    def FromString(cls, data: bytes) -> Self:  # noqa: N802  the counterpart
        """From bytes."""
        return cls(data)


class Polled:
    """The reply to a poll: what of it can be read. One signal that cannot must not hide the cancel of another job."""

    __slots__ = ("tasks",)

    def __init__(self, tasks: list[Task]) -> None:
        self.tasks = tasks

    @classmethod
    def FromString(cls, data: bytes) -> Self:  # noqa: N802  what a call asks of its reply
        """From bytes.

        Raises:
            DecodeError: It is no reply at all.
        """
        return cls(readable_tasks(data))


class Calls:
    """SendSignals and GetSignals on one channel.

    Args:
        channel: To the provider.

    Attributes:
        honours: The extensions that the provider has named in its last reply.
        on_honours: Called when they have changed. Must not wait.
    """

    def __init__(self, channel: rpc.Channel) -> None:
        self._channel = channel
        self.honours: frozenset[str] = frozenset()
        self.on_honours: Callable[[], None] = lambda: None

    @property
    def holds(self) -> bool:
        """Whether a poll is held until there is a signal. Such a poll may be left: what it had is told again."""
        return extensions.LONG_POLL in self.honours

    @property
    def connected(self) -> bool:
        """Whether there is a connection."""
        return self._channel.state is rpc.ConnectivityState.READY

    @property
    def target(self) -> str:
        """Where the provider is."""
        return self._channel.target

    @property
    def peer(self) -> object:
        """The server of the present connection, one object for each connection; None without one."""
        return self._channel.peer

    async def send(self, request: Encoded, *, key: str, timeout: float) -> SendSignalsResponse:
        """SendSignals, once.

        Raises:
            CallError: The call has failed; UNAVAILABLE when the channel is closed.
        """
        metadata = {extensions.IDEMPOTENCY_KEY: key}
        reply, _ = await self._call("SendSignals", request, SendSignalsResponse, timeout, metadata)
        return reply

    async def poll(self, request: Encoded, *, after: str | None, timeout: float) -> tuple[Polled, str | None]:
        """GetSignals, once; the reply, and the cursor for the next poll if the provider gives one.

        Raises:
            CallError: The call has failed; UNAVAILABLE when the channel is closed.
        """
        metadata = {} if after is None else {extensions.SIGNALS_AFTER: after}
        reply, told = await self._call("GetSignals", request, Polled, timeout, metadata)
        upto = told.get(extensions.SIGNALS_UPTO)
        return reply, upto if isinstance(upto, str) else None

    async def _call(
        self, method: str, request: Encoded, reply_type: type[R], timeout: float, metadata: Mapping[str, str]
    ) -> tuple[R, MultiDict[str | bytes]]:
        try:
            call = self._channel.request(
                f"{_SERVICE}/{method}",
                Cardinality.UNARY_UNARY,
                Encoded,
                reply_type,
                timeout=timeout,
                metadata=metadata,
                retry=_ONCE,
            )
            async with call:
                await call.send_message(request)
                reply: R = await call.recv_message()
                told = call.initial_metadata
                assert told is not None
        except trio.ClosedResourceError as error:
            raise CallError(Status.UNAVAILABLE, "the channel is closed") from error
        except GRPCError as error:
            trailers = call.trailing_metadata
            pushback = None if trailers is None else trailers.get(PUSHBACK_HEADER)
            wanted = (retry_delay(error.details) or None) if pushback is None else parse_pushback(str(pushback))
            raise CallError(error.status, error.message, wanted) from error
        words = told.get(extensions.HONOURS, "")
        honours = frozenset(words.split(",") if isinstance(words, str) else ())
        if honours != self.honours:
            self.honours = honours
            self.on_honours()
        return reply, told

    async def pause(self, seconds: float, until: trio.Event, *, away: bool = False) -> None:
        """Wait; shorter when `until` is set, or when there is a connection after there was none.

        With `away`, and without a connection, it is waited for: up to `AWAY` seconds, if that is longer.
        """
        connected = self.connected
        with trio.move_on_after(max(seconds, AWAY) if away and not connected else seconds):
            with trio.move_on_after(seconds if connected else seconds * _FLOOR):
                await until.wait()
                return
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._connect, nursery.cancel_scope)
                await until.wait()
                nursery.cancel_scope.cancel()

    async def _connect(self, scope: trio.CancelScope) -> None:
        try:
            await self._channel.ready()
        except trio.ClosedResourceError:
            return
        scope.cancel()
