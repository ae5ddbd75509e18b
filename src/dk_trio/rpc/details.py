"""Rich errors: google.rpc.Status in the grpc-status-details-bin trailer.

`GRPCError.details` is a list of messages. Whoever sends may use any generated message, betterproto2's or google's;
whoever receives gets the types of google.rpc (RetryInfo, ErrorInfo, ...) and whatever else is registered with the
message pool, and a `google.protobuf.Any` for the rest.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from dk_trio.wire.metadata import decode_status_message, status_message_field

if TYPE_CHECKING:
    from grpclib.const import Status

DETAILS_FIELD: Final = "grpc-status-details-bin"
_TYPE_URL: Final = "type.googleapis.com/"
_MESSAGE_BYTES: Final = 3000
"""Longest message beside details, percent-encoded: with it repeated in them, in base64, 7 kB of the 8 KiB of trailers
above which C-core's clients drop the call. Ours end the connection for a block that they cannot hold."""


def short_message(message: str) -> str:
    """The message of a status with details, cut where it is long.

    It is sent twice, and both have to say the same: callers compare them (grpcio's `rpc_status`).
    """
    return decode_status_message(status_message_field(message, _MESSAGE_BYTES).decode())


def encode_status_details(status: Status, message: str | None, details: Iterable[Any]) -> tuple[bytes, bytes]:
    """The trailer that carries `details`; they are packed into Any unless they are one already.

    Raises TypeError for something that is no protobuf message.
    """
    from dk_trio.pb.google.protobuf import Any as AnyMessage
    from dk_trio.pb.google.rpc import Status as StatusMessage

    packed = [detail if isinstance(detail, AnyMessage) else _pack(detail) for detail in details]
    data = bytes(StatusMessage(code=status.value, message=message or "", details=packed))
    return DETAILS_FIELD.encode(), b64encode(data).rstrip(b"=")


def _pack(message: Any) -> Any:
    from dk_trio.pb.google.protobuf import Any as AnyMessage

    descriptor = getattr(message, "DESCRIPTOR", None)
    if descriptor is not None:  # a message of google.protobuf
        return AnyMessage(type_url=_TYPE_URL + descriptor.full_name, value=message.SerializeToString())
    try:
        return AnyMessage.pack(message)
    except KeyError:
        raise TypeError(f"a status detail must be a protobuf message, not {type(message).__name__}") from None


def decode_status_details(value: str) -> list[Any]:
    """The messages in the text of the trailer. Raises ValueError when it cannot be read."""
    from dk_trio.pb.google.rpc import Status as StatusMessage

    status = StatusMessage.parse(b64decode(value + "=" * (-len(value) % 4), validate=True))
    return [_unpack(detail) for detail in status.details]


def retry_delay(details: object) -> float:
    """Seconds that a google.rpc.RetryInfo among the details of a failure asks to wait; 0 when there is none."""
    from dk_trio.pb.google.rpc import RetryInfo

    for detail in details if isinstance(details, list) else ():
        if isinstance(detail, RetryInfo) and detail.retry_delay is not None:
            return max(0.0, detail.retry_delay.total_seconds())
    return 0.0


def _unpack(detail: Any) -> Any:
    try:
        return detail.unpack()
    except TypeError:  # a type that nobody has registered
        return detail
