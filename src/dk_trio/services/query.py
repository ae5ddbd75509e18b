"""Calls of services to their provider: layer B of retries, on top of the layer A of the channel.

Theory of operation
-------------------
*Layers.* The channel repeats UNAVAILABLE, RESOURCE_EXHAUSTED and DEADLINE_EXCEEDED (layer A). A query repeats
UNAVAILABLE, INTERNAL and DEADLINE_EXCEEDED (layer B), but not what the channel has tried already: with the defaults
that leaves INTERNAL. A repetition has those attempts of the channel which are left. So the layers add up and never
multiply, and one deadline holds for all of it.

*Writes.* A call that writes carries an idempotency key. Neither layer repeats it after a failure that leaves open
whether it was applied, unless the provider has said that it honours keys; see `_honours`. A provider that is known not
to honour them is not even asked: it may have applied the write without noting its key.

*Outages.* Both layers take from one budget, the channel's, which a channel to a provider always has
(`PROVIDER_THROTTLING`), and a `CircuitBreaker` fails calls at once while the provider cannot be reached.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, replace
from math import inf
from random import Random
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

import trio
from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError

from dk_trio import chance, rpc
from dk_trio.extensions import IDEMPOTENCY, IDEMPOTENCY_KEY
from dk_trio.rpc.details import retry_delay
from dk_trio.rpc.retry import PUSHBACK_HEADER, parse_pushback
from dk_trio.settings import QuerySettings

from ._honours import Extensions
from .breaker import BreakerOptions, BreakerStatistics, CircuitBreaker

if TYPE_CHECKING:
    from tenacity import RetryCallState

T = TypeVar("T")
Metadata: TypeAlias = Mapping[str, str | bytes] | Collection[tuple[str, str | bytes]]
OpenChannel: TypeAlias = Callable[[], Awaitable[rpc.Channel]]

RETRIED: Final = frozenset({Status.UNAVAILABLE, Status.INTERNAL, Status.DEADLINE_EXCEEDED})
"""What layer B repeats (tuning guide, "Retry Architecture")."""

# Half of the tokens is what one lost connection may cost without a call failing of it: 250 calls that were under way,
# more than the 200 jobs of the guide's medium instance. A retry for every two successes keeps the load of a provider
# that fails now and then below one and a half times what it would be without retries.
PROVIDER_THROTTLING: Final = rpc.RetryThrottling(max_tokens=500, token_ratio=0.5)

# Seconds; the cap of layer A in the tuning guide. Ten doublings of 50 ms are a minute, a hundred never end.
BACKOFF_MAX: Final = 10.0

# Of a delay, both ways: as gRFC A6 has it for layer A.
JITTER: Final = 0.2

# What a call may end with of which the provider has seen nothing, because it was not there.
_ABSENT: Final = frozenset({Status.UNAVAILABLE, Status.DEADLINE_EXCEEDED})

_ONCE: Final = rpc.RetryPolicy(max_attempts=1)


class QueryError(GRPCError):
    """A query failed: status, message and details of its last call.

    Attributes:
        attempts: How often it was tried, by both layers.
        unprocessed: Whether the provider surely has done nothing for it. False where it may have.
    """

    def __init__(self, error: GRPCError, *, attempts: int, unprocessed: bool) -> None:
        super().__init__(error.status, error.message, error.details)
        self.attempts = attempts
        self.unprocessed = unprocessed


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryStatistics:
    """A snapshot of a `ProviderQuery`.

    Attributes:
        queries: Begun.
        failed: Of these, ended with an error, those that the breaker refused included.
        retries: Calls repeated by layer B; those of layer A are the channel's.
        asked: Health checks that were made to learn what the provider honours.
        honours: What it honours, as far as known now.
        breaker: Of the target.
        channel: What the channel does, and has done; None before the first query.
        retry_tokens: What is left of the budget of retries, which both layers take from.
        retry_tokens_limit: The whole budget; inf without a limit.
    """

    queries: int
    failed: int
    retries: int
    asked: int
    honours: frozenset[str]
    breaker: BreakerStatistics
    channel: rpc.ChannelStatistics | None
    retry_tokens: float
    retry_tokens_limit: float


class ProviderQuery:
    """Calls to one provider, with everything that makes them safe to repeat. Shared by all who call this provider.

    Args:
        channel: An open channel, or what opens it for the first query.
        settings: Of layer B.
        target: Of a channel that is opened later, for errors and logs.
        breaker: Options of the circuit breaker.
        random: Source of jitter.
    """

    def __init__(
        self,
        channel: rpc.Channel | OpenChannel,
        settings: QuerySettings | None = None,
        *,
        target: str = "",
        breaker: BreakerOptions | None = None,
        random: Random | None = None,
    ) -> None:
        self.settings = settings or QuerySettings()
        self.random = random or chance.new_random()
        self._channel: rpc.Channel | None = None
        self._open_channel: OpenChannel | None = None
        if isinstance(channel, rpc.Channel):
            self._channel = channel
            target = target or channel.target
        else:
            self._open_channel = channel
        self.breaker = CircuitBreaker(
            target, options=breaker, connects=self._connects, lost=self._lost, random=self.random
        )
        self.retries = 0
        self._queries = self._failed = 0
        self.extensions = Extensions()

    def __repr__(self) -> str:
        told = ",".join(sorted(self.honours)) or "nothing known"
        return f"<ProviderQuery {self.breaker.target!r} {self.breaker.state.value}, honours {told}>"

    def statistics(self) -> QueryStatistics:
        """What it does, and has done."""
        channel = self._channel
        budget = None if channel is None else channel.retry_budget
        return QueryStatistics(
            queries=self._queries,
            failed=self._failed,
            retries=self.retries,
            asked=self.extensions.asked,
            honours=self.honours,
            breaker=self.breaker.statistics(),
            channel=None if channel is None else channel.statistics(),
            retry_tokens=inf if budget is None else budget.tokens,
            retry_tokens_limit=inf if budget is None else budget.max_tokens,
        )

    # -- queries ----------------------------------------------------------------------------------------------------

    async def read(
        self,
        route: str,
        request: Any,
        reply_type: type[T],
        *,
        metadata: Metadata | None = None,
        timeout: float | None = None,
    ) -> T:
        """A call that changes nothing, repeated as the layers say; see `exec_grpc_query`."""
        return await self.exec_grpc_query(route, request, reply_type, metadata=metadata, timeout=timeout)

    async def write(
        self,
        route: str,
        request: Any,
        reply_type: type[T],
        *,
        key: str | None = None,
        metadata: Metadata | None = None,
        timeout: float | None = None,
    ) -> T:
        """A call that changes something, repeated only where it cannot be applied twice; see `exec_grpc_query`.

        `key` is its idempotency key; the same one for the same write, a new one when None.
        """
        key = key or str(chance.new_uuid())
        return await self.exec_grpc_query(route, request, reply_type, key=key, metadata=metadata, timeout=timeout)

    async def exec_grpc_query(
        self,
        route: str,
        request: Any,
        reply_type: type[T],
        *,
        key: str | None = None,
        metadata: Metadata | None = None,
        timeout: float | None = None,
    ) -> T:
        """A unary call.

        Args:
            route: `/package.Service/Method`.
            request: The request message.
            reply_type: Class of the reply.
            key: Idempotency key of a call that writes; None for one that only reads.
            metadata: Sent with it.
            timeout: Seconds for all of it, repetitions included; `QuerySettings.timeout` when that is less, or None.
                Cancel scopes around the call hold as well.

        Raises:
            QueryError: The provider refused, failed, or was not reached in time.
            trio.ClosedResourceError: The channel is closed.

        Cancellation:
            The call under way is reset. A write may have been applied.
        """
        self._queries += 1
        limit = self.settings.timeout
        deadline = trio.current_time() + (limit if timeout is None else min(timeout, limit))
        channel = self._channel
        if channel is None:
            channel = await self._open()
        breaker = self.breaker
        probe = False
        if not breaker.closed:
            try:
                probe = await breaker.admit(min(deadline, trio.current_effective_deadline()))
            except GRPCError as error:
                self._failed += 1
                raise QueryError(error, attempts=0, unprocessed=True) from None
        try:
            query = _Query(self, channel, route, request, reply_type, key, metadata, deadline, probe=probe)
            reply: T = await query.once()
        except GRPCError as error:
            reply = await self._after(error, query)
        except BaseException:
            if probe:
                breaker.abandoned()
            raise
        breaker.ended(Status.OK)
        return reply

    async def _after(self, error: GRPCError, query: _Query) -> Any:
        """The first call of a query has failed: repeat it, or raise."""
        try:
            if query.probe or not query.worth_repeating(error):
                raise error
            # Only now: most queries succeed, and pay neither for the import nor for the retrier.
            from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt

            retrying = AsyncRetrying(
                sleep=trio.sleep,
                stop=stop_after_attempt(self.settings.max_retries),
                wait=query.wait,
                retry=retry_if_exception(query.worth_repeating),
                reraise=True,
            )
            await trio.sleep(query.delay)
            return await retrying(query.again)
        except GRPCError as final:
            self._failed += 1
            # What this process refuses to send, such as a message that is too large, is no answer of the provider.
            status = Status.CANCELLED if not query.doubtful and final.status not in _ABSENT else final.status
            self.breaker.ended(status, final.message or final.status.name, probe=query.probe)
            raise QueryError(final, attempts=query.attempts, unprocessed=not query.doubtful) from final
        except BaseException:
            if query.probe:
                self.breaker.abandoned()
            raise

    async def channel(self) -> rpc.Channel:
        """The channel, opened if it is not yet; for calls that go their own way to the same provider."""
        return self._channel or await self._open()

    async def _open(self) -> rpc.Channel:
        assert self._open_channel is not None
        self._channel = await self._open_channel()
        return self._channel

    def _connects(self) -> int:
        return 0 if self._channel is None else self._channel.statistics().connects

    def _lost(self) -> bool:
        return self._channel is not None and self._channel.state is rpc.ConnectivityState.IDLE

    # -- what the provider honours ----------------------------------------------------------------------------------

    @property
    def honours(self) -> frozenset[str]:
        """Words of `extensions.HONOURS` that the server of the connection in use has told; empty until it has."""
        return frozenset() if self._channel is None else self.extensions.of(self._channel.peer) or frozenset()

    async def ask(self, *, timeout: float | None = None) -> frozenset[str]:
        """`honours`, asked of the provider if it is not known yet. Callers at the same time share one question.

        Empty, too, when it cannot be reached within `timeout` seconds (`QuerySettings.timeout` when None).
        """
        channel = await self.channel()
        return await self.extensions.ask(channel, timeout=self.settings.timeout if timeout is None else timeout)


class _Encoded:
    """A request as bytes: a key stands for one request, whatever its owner does to it between two calls."""

    __slots__ = ("_data",)

    def __init__(self, data: bytes) -> None:
        self._data = data

    def SerializeToString(self) -> bytes:  # noqa: N802  (what a call asks of its request)
        return self._data


class _Query:
    """One query: its calls so far, and what is to be done after a failure."""

    __slots__ = (
        "attempts",
        "call",
        "channel",
        "deadline",
        "delay",
        "doubtful",
        "error",
        "key",
        "made",
        "metadata",
        "owner",
        "probe",
        "reply_type",
        "request",
        "route",
    )

    def __init__(
        self,
        owner: ProviderQuery,
        channel: rpc.Channel,
        route: str,
        request: Any,
        reply_type: type[Any],
        key: str | None,
        metadata: Metadata | None,
        deadline: float,
        *,
        probe: bool,
    ) -> None:
        if key is not None:
            pairs = metadata.items() if isinstance(metadata, Mapping) else metadata or ()
            metadata = (*pairs, (IDEMPOTENCY_KEY, key))
            request = _Encoded(request.SerializeToString())
        self.owner = owner
        self.channel = channel
        self.route = route
        self.request = request
        self.reply_type = reply_type
        self.key = key
        self.metadata = metadata
        self.deadline = deadline
        self.probe = probe
        self.call: Any = None
        self.made = 0
        """Calls of layer B."""
        self.attempts = 0
        """Attempts of both layers, in calls that have failed."""
        self.doubtful = False
        """The provider may have processed one of them."""
        self.delay = 0.0
        self.error: GRPCError | None = None

    async def once(self) -> Any:
        self.made += 1
        call: Any = self.channel.request(
            self.route,
            Cardinality.UNARY_UNARY,
            type(self.request),
            self.reply_type,
            timeout=self.deadline - trio.current_time(),
            metadata=self.metadata,
            retry=_ONCE if self.probe else self._what_is_left() if self.attempts else None,
            may_repeat=None if self.key is None else self.may_repeat,
        )
        self.call = call
        try:
            reply = await call.unary(self.request)
        except GRPCError as error:
            self.error = error
            self.attempts += call.attempts
            self.doubtful = self.doubtful or not call.unprocessed
            self.owner.extensions.learn(call)
            raise
        self.owner.extensions.learn(call)
        return reply

    def _what_is_left(self) -> rpc.RetryPolicy:
        """Of the channel's attempts for a repetition: both layers together make no more retries than both allow."""
        policy = self.channel.retry_policy
        retries = self.attempts - self.made + 1
        return replace(policy, max_attempts=max(1, policy.max_attempts - retries))

    async def again(self) -> Any:
        """A repetition, which has been found worth it."""
        if self.doubtful and self.key is not None and not await self.may_repeat():
            assert self.error is not None
            self.delay = -1.0
            raise self.error
        self.owner.retries += 1
        return await self.once()

    async def may_repeat(self) -> bool:
        """Whether the provider will know a write that it may have applied by its key."""
        if self._refuses_keys():
            return False
        return IDEMPOTENCY in await self.owner.ask(timeout=max(0.0, self.deadline - trio.current_time()))

    def _refuses_keys(self) -> bool:
        """Whether the server of the last call is known not to honour idempotency keys."""
        told = self.owner.extensions.of(self.call.peer)
        return told is not None and IDEMPOTENCY not in told

    def worth_repeating(self, error: BaseException) -> bool:
        """Decide, and set the delay."""
        if not isinstance(error, GRPCError) or error.status not in RETRIED or self.delay < 0:
            return False
        if self.made > self.owner.settings.max_retries:
            return False
        budget = self.channel.retry_budget
        policy = self.channel.retry_policy
        if error.status in policy.statuses:
            # The channel has tried as often as it may, and has paid for it.
            if policy.max_attempts > 1 or not budget.allows:
                return False
        elif not budget.failed():
            return False
        if self.doubtful and self.key is not None and self._refuses_keys():
            return False
        pushback = (self.call.trailing_metadata or {}).get(PUSHBACK_HEADER)
        wait = parse_pushback(pushback)
        if wait is None:
            settings = self.owner.settings
            # The power cannot overflow: there are a hundred retries at most.
            backoff = min(settings.backoff_base * 2 ** (self.made - 1), BACKOFF_MAX)
            wait = backoff * self.owner.random.uniform(1 - JITTER, 1 + JITTER)
            if asked := retry_delay(error.details):
                wait = max(wait, asked * self.owner.random.uniform(1, 1 + JITTER))
        elif wait < 0:
            return False
        self.delay = wait
        return trio.current_time() + wait < min(self.deadline, trio.current_effective_deadline())

    def wait(self, _: RetryCallState) -> float:
        """The delay that `worth_repeating` has set, as tenacity asks for it."""
        return self.delay
