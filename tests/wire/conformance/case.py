"""What a conformance case is: frames to send after the handshake, and what must come of them.

A case is data. ``steps`` are bytes to feed and, between them, expectations about all frames written so far. ``outcome``
is what must hold at the end; outcomes that leave the connection open are checked by a ping and one more call on a
fresh stream, so "nothing happened" means that the connection still works.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from .raw import KINDS, Frame


@dataclass(frozen=True)
class ConnectionFails:
    """GOAWAY with one of ``codes`` is written and the connection refuses to go on."""

    codes: tuple[int, ...]


@dataclass(frozen=True)
class StreamFails:
    """RST_STREAM with one of ``codes`` for ``stream``; all else goes on."""

    codes: tuple[int, ...]
    stream: int = 1


@dataclass(frozen=True)
class Answered:
    """A whole gRPC response on ``stream`` with this status (and HTTP status, and fields in headers or trailers)."""

    stream: int = 1
    status: int = 0
    http: int = 200
    fields: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class GoesOn:
    """No answer is owed; the connection works, and ``silent`` streams got no frames at all."""

    silent: tuple[int, ...] = ()


Outcome = ConnectionFails | StreamFails | Answered | GoesOn | tuple[ConnectionFails | StreamFails, ...]
"""A tuple where the RFC leaves the choice (section 5.4: any stream error may be treated as a connection error)."""


@dataclass(frozen=True)
class Written:
    """A frame written so far is of ``kind``, with ``stream``, ``flags``, ``payload`` where given, ``times`` times."""

    kind: int
    stream: int = 0
    payload: bytes | None = None
    flags: int | None = None
    times: int | None = None

    def check(self, frames: list[Frame]) -> None:
        found = [
            one
            for one in frames
            if one.kind == self.kind
            and one.stream == self.stream
            and (self.payload is None or one.payload == self.payload)
            and (self.flags is None or one.flags == self.flags)
        ]
        wanted = f"{KINDS[self.kind]} on {self.stream}"
        if self.times is None:
            assert found, f"no {wanted} among {frames}"
        else:
            assert len(found) == self.times, f"{len(found)} x {wanted}, not {self.times}, among {frames}"


@dataclass(frozen=True)
class DataSent:
    """The DATA octets written on ``stream`` so far are ``size`` in all."""

    stream: int
    size: int

    def check(self, frames: list[Frame]) -> None:
        sent = sum(len(one.payload) for one in frames if one.kind == 0 and one.stream == self.stream)
        assert sent == self.size, f"{sent} octets of DATA on {self.stream}, not {self.size}"


@dataclass(frozen=True)
class Check:
    """Any other expectation about the frames written so far."""

    that: Callable[[list[Frame]], bool]

    def check(self, frames: list[Frame]) -> None:
        assert self.that(frames), frames


Step = bytes | Written | DataSent | Check


@dataclass(frozen=True)
class Case:
    """``name`` starts with the section of the RFC that says so; ``text`` says what a reader should expect and why."""

    name: str
    text: str
    steps: tuple[Step, ...]
    outcome: Outcome
    preface: bytes | None = None
    options: dict[str, object] = field(default_factory=dict)


def case(name: str, text: str, *steps: Step, then: Outcome, preface: bytes | None = None, **options: object) -> Case:
    """A case with its steps in order; ``preface`` replaces the good handshake, ``options`` go to the connection."""
    return Case(name, text, steps, then, preface, options)
