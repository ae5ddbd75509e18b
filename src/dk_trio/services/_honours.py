"""What the provider at the other end honours of `dk_trio.extensions`: heard from its replies, or asked.

It is known of one connection, since behind the next one there may be another provider: an older one after a rollback,
somebody else's after a change of address. So it is forgotten with the connection, and learnt from the first reply on
the next. A failure teaches nothing: the transport may have told it without asking the service.

Who needs to know before there is a reply asks with a health check, which every provider has or refuses at once.
"""

from __future__ import annotations

from typing import Any, Final

import trio
from grpclib.const import Cardinality
from grpclib.exceptions import GRPCError

from dk_trio import rpc
from dk_trio.extensions import HONOURS

_CHECK: Final = "/grpc.health.v1.Health/Check"

# Of one `ask`: an answer is of no use when its connection was lost meanwhile, which does not go on for ever.
_QUESTIONS: Final = 3


class _Question:
    """A health check under way."""

    __slots__ = ("answered", "deadline", "over")

    def __init__(self, deadline: float) -> None:
        self.over = trio.Event()
        self.answered = True
        self.deadline = deadline
        """Of who asks: what was not answered by then may still be for who has more time."""


class Extensions:
    """What is known of a channel's provider.

    Attributes:
        asked: Health checks that were made.
    """

    __slots__ = ("_question", "_told", "_told_by", "asked")

    def __init__(self) -> None:
        self.asked = 0
        self._told_by: rpc.Peer | None = None
        self._told: frozenset[str] = frozenset()
        self._question: _Question | None = None

    def of(self, peer: rpc.Peer | None) -> frozenset[str] | None:
        """Words of `HONOURS` that the server of this connection has told; None while it has not answered."""
        return self._told if peer is not None and peer is self._told_by else None

    def learn(self, call: Any) -> None:
        """Take down what a call has brought."""
        peer = call.peer
        if peer is self._told_by:
            return
        metadata = call.initial_metadata
        if metadata is not None:
            self._told_by = peer
            self._told = frozenset(word for word in str(metadata.get(HONOURS, "")).replace(" ", "").split(",") if word)

    async def ask(self, channel: rpc.Channel, *, timeout: float) -> frozenset[str]:
        """What is honoured on the connection in use; empty when nothing can be learnt within `timeout` seconds."""
        with trio.move_on_after(timeout):
            for _ in range(_QUESTIONS):
                if self.of(channel.peer) is not None:
                    break
                question = self._question
                if question is None:
                    question = await self._check(channel, timeout)
                else:
                    await question.over.wait()
                if not question.answered and question.deadline >= trio.current_effective_deadline():
                    break
        return self.of(channel.peer) or frozenset()

    async def _check(self, channel: rpc.Channel, timeout: float) -> _Question:
        from dk_trio.pb.grpc.health.v1 import HealthCheckRequest, HealthCheckResponse

        question = self._question = _Question(trio.current_effective_deadline())
        self.asked += 1
        types = HealthCheckRequest, HealthCheckResponse
        try:
            call: Any = channel.request(_CHECK, Cardinality.UNARY_UNARY, *types, timeout=timeout)
            await call.unary(HealthCheckRequest())
            self.learn(call)
        except GRPCError:
            question.answered = False
        finally:
            self._question = None
            question.over.set()
        return question
