"""The root of the tree, and what every error of it has."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from grpclib.const import Status


class Fault(enum.Enum):
    """Who can mend it."""

    CALLER = "caller"  # the request
    AUTHOR = "author"  # the module's code
    OPERATOR = "operator"  # settings, files, ports
    PLATFORM = "platform"  # dk-trio or what it talks to


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing that was refused, as a google.rpc.BadRequest.FieldViolation tells it.

    Attributes:
        field: Path of the field from the root of what the caller sent, such as `input.root.text`.
        description: The rule, and the value that breaks it.
    """

    field: str
    description: str


class DkTrioError(Exception):
    """Root of the tree.

    Args:
        message: What happened, naming the value that was refused.
        hint: What to do about it, one sentence; empty when the message says it.
        violations: The fields that were refused, for programs: they travel in the details of the status.
    """

    code: ClassVar[str] = "INTERNAL_ERROR"
    status: ClassVar[Status] = Status.INTERNAL
    fault: ClassVar[Fault] = Fault.PLATFORM
    short_description: ClassVar[str] = "Internal error"
    output_code: ClassVar[str] = ""
    """`code` of the in-stream failure message, where callers know another than ours."""

    message: str = ""  # what an author's subclass has that does not call this `__init__`
    hint: str = ""
    violations: tuple[Violation, ...] = ()

    def __init__(self, message: str, *, hint: str = "", violations: Iterable[Violation] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.violations = tuple(violations)

    @property
    def text(self) -> str:
        """The message and the hint as one paragraph, which can be sent: lone surrogates are written as escapes.

        Names of files may hold them (PEP 383); no protobuf string does.
        """
        text = f"{self.message} {self.hint}" if self.hint else self.message
        return text.encode(errors="backslashreplace").decode()
