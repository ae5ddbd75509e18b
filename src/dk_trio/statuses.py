"""From an error to the status that a caller gets: the only place where errors become statuses."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Any, Final

from grpclib.const import Status
from grpclib.exceptions import GRPCError

from dk_trio.errors import AdmissionError, DkTrioError, Violation
from dk_trio.pb.google.rpc import BadRequest, BadRequestFieldViolation, ErrorInfo, RetryInfo
from dk_trio.wire.metadata import status_message_field

ERROR_DOMAIN = "dk-trio"
"""`ErrorInfo.domain` of our errors: who defines the reasons."""

_TRAILERS: Final = 7000
"""Bytes of trailers that message and details may fill: C-core's clients drop a call with more than 8 KiB of them."""
_MESSAGE: Final = 3000
"""Bytes at which `dk_trio.rpc` cuts the message beside details."""
_AROUND: Final = 40
"""Bytes of tags, lengths and type names around one violation, generously."""


def status_of(error: Exception) -> GRPCError:
    """The status of an error.

    A `DkTrioError` carries its own, and in the details its `code` as the reason of a google.rpc.ErrorInfo, its
    violations as a google.rpc.BadRequest, and for a refusal by admission a google.rpc.RetryInfo. A `GRPCError` stays
    what it is; anything else is a defect of ours and INTERNAL.
    """
    if isinstance(error, GRPCError):
        return error
    if not isinstance(error, DkTrioError):
        return GRPCError(Status.INTERNAL, f"{type(error).__name__}: {error}")
    facts: dict[str, str] = {}
    details: list[Any] = []
    if isinstance(error, AdmissionError):
        facts = {"limit": error.limit, "size": str(error.size), "waited": f"{round(error.waited, 3):g}"}
        details = [RetryInfo(retry_delay=timedelta(seconds=error.retry_after))]
    violations = [
        BadRequestFieldViolation(field=row.field, description=row.description)
        for row in _fitting(error.violations, error.text)
    ]
    if violations:
        details.append(BadRequest(field_violations=violations))
    info = ErrorInfo(reason=error.code, domain=ERROR_DOMAIN, metadata=facts)
    return GRPCError(error.status, error.text, [info, *details])


def _fitting(violations: Iterable[Violation], text: str) -> Iterator[Violation]:
    """The first violations that the trailers have room for. The text names the first ones in any case."""
    # The message stands there twice: as it is, and within the details, which are in base64.
    message = min(len(status_message_field(text)), _MESSAGE)
    room = (_TRAILERS - message) * 3 // 4 - message
    for violation in violations:
        field, description = (
            part.encode(errors="backslashreplace") for part in (violation.field, violation.description)
        )
        room -= len(field) + len(description) + _AROUND
        if room < 0:
            return
        yield Violation(field.decode(), description.decode())
