"""The error tree is a table: codes are unique, and every error has a status, a fault and words for people."""

import re
from collections.abc import Iterator

import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from dk_trio import errors
from dk_trio.errors import DkTrioError, Fault
from dk_trio.statuses import status_of


def tree(root: type[DkTrioError] = DkTrioError) -> Iterator[type[DkTrioError]]:
    yield root
    for child in root.__subclasses__():
        if child.__module__.startswith(errors.__name__):
            yield from tree(child)


@pytest.mark.parametrize("kind", list(tree()))
def test_a_row_is_complete(kind: type[DkTrioError]) -> None:
    assert re.fullmatch("[A-Z][A-Z_]{1,61}[A-Z]", kind.code)  # what google.rpc.ErrorInfo asks of a reason
    assert kind.status is not Status.OK
    assert isinstance(kind.fault, Fault)
    assert kind.short_description
    assert kind.__doc__
    assert [other for other in tree() if other.__dict__.get("code") == kind.__dict__.get("code", "")] in ([kind], [])


def test_the_status_of_an_error() -> None:
    status = status_of(errors.SetupNotFoundError("Setup 'a' not found.", hint="Give it."))
    assert (status.status, status.message) == (Status.NOT_FOUND, "Setup 'a' not found. Give it.")
    ours = GRPCError(Status.ABORTED, "as it is")
    assert status_of(ours) is ours
    assert status_of(KeyError("x")).status is Status.INTERNAL
