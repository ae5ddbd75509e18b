"""From the status that a services-provider answers with to the error that its service promises.

A provider of ours says in the details which error it was: the reason of a google.rpc.ErrorInfo is the `code` of a
class, and the refused fields are in a google.rpc.BadRequest. From any other provider the status says it, by a table of
the service. What neither tells is the service's own error with the status of the call: an outage stays UNAVAILABLE, and
is never taken for "it is not there".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from grpclib.const import Status
from grpclib.exceptions import GRPCError

from dk_trio.errors import DkTrioError, Fault, ServiceError, Violation
from dk_trio.pb.google.rpc import BadRequest, ErrorInfo

DOMAIN: Final = "dk-trio"
"""`ErrorInfo.domain` of a provider of ours, see `dk_trio.statuses`."""

_HINTS: Final = {
    Status.UNAVAILABLE: "Check that the services-provider runs there (DIGITALKIN_PROVIDER).",
    Status.DEADLINE_EXCEEDED: "The services-provider is slow or cut off; DIGITALKIN_GRPC_QUERY_TIMEOUT says how long "
    "a call may take.",
    Status.RESOURCE_EXHAUSTED: "Send less at once: a message has 100 MB at most, and a services-provider may have "
    "limits of its own.",
    Status.UNIMPLEMENTED: "Check that a services-provider with this service runs there (DIGITALKIN_PROVIDER).",
    Status.UNAUTHENTICATED: "Check the credentials of the services-provider.",
    Status.PERMISSION_DENIED: "Check the credentials of the services-provider.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorFamily:
    """The errors of one service.

    Attributes:
        base: What is raised when nothing is known but the status.
        by_status: What a status means where a provider says no more.
        also: Errors that a provider may name and that do not derive from `base`.
    """

    base: type[ServiceError]
    by_status: Mapping[Status, type[DkTrioError]] = field(default_factory=dict)
    also: tuple[type[DkTrioError], ...] = ()

    def named(self, code: str) -> type[DkTrioError] | None:
        """The class whose `code` it is; None when it is none of this service."""
        return next((kind for kind in _tree(self.base, *self.also) if kind.code == code), None)


def service_error(error: GRPCError, family: ErrorFamily, *, call: str, target: str) -> DkTrioError:
    """The error of a service for a call that failed.

    Args:
        error: How the call ended.
        family: Of the service.
        call: `Service/Method`.
        target: Where the provider is.
    """
    status, said = error.status, (error.message or "no message").rstrip()
    violations: list[Violation] = []
    named: type[DkTrioError] | None = None
    ours = False
    for detail in error.details or ():
        if isinstance(detail, ErrorInfo) and detail.domain == DOMAIN:
            ours, named = True, family.named(detail.reason)
        elif isinstance(detail, BadRequest):
            violations += [Violation(row.field, row.description) for row in detail.field_violations]
    if named is not None and (violations or named.fault in {Fault.CALLER, Fault.AUTHOR}):
        # What was refused is no matter of where it was refused: the same words as from a local service.
        return made(named, said, violations=violations, status=status)
    kind = named or (family.base if ours else family.by_status.get(status, family.base))
    text = f"{call} of the services-provider at {target} ended with {status.name}: {said.rstrip('.')}."
    return made(kind, text, hint=_HINTS.get(status, ""), violations=violations, status=status)


def made(
    kind: type[DkTrioError], message: str, *, status: Status, hint: str = "", violations: list[Violation] | None = None
) -> DkTrioError:
    """An error of a class, with the status of the call where that is another one than the class has."""
    if issubclass(kind, ServiceError) and status is not kind.status:
        return kind(message, hint=hint, violations=violations or (), status=status)
    return kind(message, hint=hint, violations=violations or ())


def _tree(*kinds: type[DkTrioError]) -> Iterator[type[DkTrioError]]:
    for kind in kinds:
        yield kind
        for derived in kind.__subclasses__():
            if derived.__module__.startswith("dk_trio."):  # and not an author's own
                yield from _tree(derived)
