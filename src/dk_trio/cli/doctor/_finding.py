"""What a check has found."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field


class Level(enum.Enum):
    """How bad it is."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        level: How bad it is.
        text: What is so, with the values.
        remedy: What to do about it; empty when nothing is to be done.
        facts: The values again, for programs.
    """

    level: Level = Level.OK
    text: str
    remedy: str = ""
    facts: Mapping[str, object] = field(default_factory=dict)


def ok(text: str, **facts: object) -> Finding:
    """Nothing to be done."""
    return Finding(text=text, facts=facts)


def warn(text: str, remedy: str, **facts: object) -> Finding:
    """Works, but not as well, as safely or as long as it should."""
    return Finding(level=Level.WARN, text=text, remedy=remedy, facts=facts)


def fail(text: str, remedy: str = "", **facts: object) -> Finding:
    """Keeps a server from working here."""
    return Finding(level=Level.FAIL, text=text, remedy=remedy, facts=facts)
