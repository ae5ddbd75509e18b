"""How a call ended, seen from the client: response heads, resets and lost connections as one gRPC status.

Sources: gRPC PROTOCOL-HTTP2 ("Responses", "Errors"), "HTTP to gRPC Status Code Mapping" (applied in `wire.heads`) and
"Status codes and their use in gRPC". A status that the server sent always wins; everything else is made up here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from grpclib.const import Status
from grpclib.exceptions import GRPCError

from dk_trio.wire.frames import ErrorCode, error_name

from .details import DETAILS_FIELD, decode_status_details, retry_delay
from .retry import PUSHBACK_HEADER

if TYPE_CHECKING:
    from dk_trio.wire import ClientStream, ResponseHead

STATUS_BY_RESET: Final = {
    ErrorCode.REFUSED_STREAM: Status.UNAVAILABLE,
    ErrorCode.CANCEL: Status.CANCELLED,
    ErrorCode.ENHANCE_YOUR_CALM: Status.RESOURCE_EXHAUSTED,
    ErrorCode.INADEQUATE_SECURITY: Status.PERMISSION_DENIED,
}
"""RST_STREAM of the server to status (gRPC PROTOCOL-HTTP2, "Errors"); INTERNAL for every other code."""


@dataclass(frozen=True, slots=True)
class CallFailure:
    """Why one attempt of a call failed."""

    status: Status
    message: str | None
    details: str | None = None
    """Text of the grpc-status-details-bin trailer."""
    pushback: str | None = None
    """Text of the grpc-retry-pushback-ms trailer."""
    refused: bool = False
    """No server has processed any of it, surely."""
    left_the_client: bool = True
    """Some of it may have been written to a connection."""
    connected: bool = True
    """A connection was found for it."""

    @property
    def unprocessed(self) -> bool:
        """No server can have done anything for it. More than `refused`: the free retries are not for a dead network."""
        return self.refused or not self.connected

    @property
    def retry_delay(self) -> float:
        """Seconds that the server asks to wait in a google.rpc.RetryInfo; 0 when it does not, or cannot be read."""
        return 0.0 if self.details is None else retry_delay(self.error().details)

    def error(self) -> GRPCError:
        """The exception for the caller; details that cannot be read are left out, the status is worth more."""
        details: list[Any] | None = None
        if self.details is not None:
            try:
                details = decode_status_details(self.details)
            except ValueError:
                details = None
        return GRPCError(self.status, self.message, details)


def failure_by_reset(code: int, reason: str, *, remote: bool) -> CallFailure:
    """The failure of a stream that was reset: by the server, or by us because the server broke a rule."""
    if not remote:
        return CallFailure(Status.INTERNAL, f"the server broke HTTP/2: {reason}")
    status = STATUS_BY_RESET.get(code, Status.INTERNAL)  # type: ignore[call-overload]
    refused = code == ErrorCode.REFUSED_STREAM
    return CallFailure(status, f"the server ended the stream: {error_name(code)} ({reason})", refused=refused)


def failure_of_head(head: ResponseHead) -> CallFailure | None:
    """The failure that response headers alone tell: not a gRPC response, or an encoding that was not offered."""
    if head.fault is None:
        return None
    return CallFailure(*head.fault)


def failure_of_ended(stream: ClientStream) -> CallFailure | None:
    """How a stream ended whose server has sent END_STREAM; None for OK."""
    trailers = stream.trailers
    if trailers is None:
        return CallFailure(Status.INTERNAL, "the server ended the response without trailers")
    if trailers.status is Status.OK:
        return None
    if trailers.status is not None:
        details = pushback = None
        for name, value in trailers.fields:
            if name == DETAILS_FIELD:
                details = value
            elif name == PUSHBACK_HEADER:
                pushback = value
        return CallFailure(trailers.status, trailers.message, details, pushback)
    # A trailers-only response is judged as response headers; trailers without a status come from a broken server.
    return failure_of_head(trailers) or CallFailure(Status.UNKNOWN, "the response has no grpc-status")
