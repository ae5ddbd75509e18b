"""What a case sees of a gRPC client, whichever library is behind it.

Every method is `async` so that a case is written once. A blocking client simply never suspends in them, and its cases
are driven to their end by one `send(None)`.
"""

from collections.abc import Awaitable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol

Metadata = Sequence[tuple[str, str | bytes]]

SERVICE = "grpc.testing.TestService"

# method -> (client streams, server streams, request type, response type)
METHODS: dict[str, tuple[bool, bool, str, str]] = {
    "EmptyCall": (False, False, "Empty", "Empty"),
    "UnaryCall": (False, False, "SimpleRequest", "SimpleResponse"),
    "CacheableUnaryCall": (False, False, "SimpleRequest", "SimpleResponse"),
    "StreamingOutputCall": (False, True, "StreamingOutputCallRequest", "StreamingOutputCallResponse"),
    "StreamingInputCall": (True, False, "StreamingInputCallRequest", "StreamingInputCallResponse"),
    "FullDuplexCall": (True, True, "StreamingOutputCallRequest", "StreamingOutputCallResponse"),
    "HalfDuplexCall": (True, True, "StreamingOutputCallRequest", "StreamingOutputCallResponse"),
    "UnimplementedCall": (False, False, "Empty", "Empty"),
}

# Requests that carry this metadata and ask for a failure get its value back as grpc-status-details-bin.
DETAILS_KEY = "x-interop-status-details-bin"
# Requests that carry this get the seconds left until their deadline, as the server sees it, back in the trailers.
TELL_DEADLINE_KEY = "x-interop-tell-deadline"
# What the official description of custom_metadata names: the server sends these back.
ECHO_INITIAL_KEY = "x-grpc-test-echo-initial"
ECHO_TRAILING_KEY = "x-grpc-test-echo-trailing-bin"


@dataclass
class Failure(Exception):
    """A call ended with a status other than OK."""

    code: str
    message: str
    details: bytes | None = None  # grpc-status-details-bin

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


class NotApplicable(Exception):
    """This client cannot do what the case is about; the text says what."""


@dataclass(frozen=True)
class Reply:
    """A unary response with the metadata around it."""

    message: Any
    headers: dict[str, list[str | bytes]]
    trailers: dict[str, list[str | bytes]]


class Call(Protocol):
    """A call whose messages are sent and received one at a time."""

    async def send(self, message: Any, *, compressed: bool | None = None) -> None:
        """Send a message; `compressed` overrides what the call's compression says, where the client can."""

    async def end(self) -> None:
        """Half-close."""

    async def receive(self) -> Any:
        """Return the next message, None after the last one of a call that ended OK; raise Failure otherwise."""

    async def headers(self) -> dict[str, list[str | bytes]]:
        """Return the initial metadata."""

    async def trailers(self) -> dict[str, list[str | bytes]]:
        """Return the trailing metadata, after the end."""

    async def cancel(self) -> None:
        """Cancel; the next `receive` raises Failure("CANCELLED")."""


class Caller(Protocol):
    """A channel to the test service."""

    messages: Any  # has the message classes as attributes
    server_sees_compression: bool  # the server checks `expect_compressed`
    flags_each_message: bool  # `Call.send(compressed=)` works
    shortest_timeout: float  # seconds

    async def unary(
        self,
        method: str,
        request: Any,
        *,
        service: str = SERVICE,
        metadata: Metadata = (),
        timeout: float | None = None,
        compression: str | None = None,
    ) -> Reply:
        """Make a unary call, or raise Failure."""

    def call(
        self,
        method: str,
        *,
        metadata: Metadata = (),
        timeout: float | None = None,
        compression: str | None = None,
    ) -> AbstractAsyncContextManager[Call]:
        """Open a call that is cancelled when the block is left before its end."""

    async def together(self, calls: Sequence[Awaitable[Any]]) -> list[Any]:
        """Run all at the same time; return their results in order."""


def by_key(metadata: Any) -> dict[str, list[str | bytes]]:
    """Group (key, value) pairs by key; binary values become bytes."""
    grouped: dict[str, list[str | bytes]] = {}
    for key, value in metadata or ():
        grouped.setdefault(key, []).append(bytes(value) if isinstance(value, (bytes, bytearray)) else value)
    return grouped
