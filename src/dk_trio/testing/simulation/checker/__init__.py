"""Reads a history against the promises P1 to P9. One small function for each rule; pure, and each can fail.

Times have bounds that the world states at its beginning (`begin`): what takes longer than that, with no fault in its
way, is a violation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from dk_trio.testing.simulation.history import Event, History

from . import bystanders, cancels, capacity, deadlines, ends, outputs, signals
from .story import Story
from .story import Violation as Violation

__all__ = ["RULES", "Violation", "check"]

RULES: Final[Mapping[str, Callable[[Story], Iterator[Violation]]]] = MappingProxyType(
    {
        "form": ends.form,
        "P1 order": outputs.order,
        "P1 complete": outputs.complete,
        "P1 invented": outputs.invented,
        "P1 told": outputs.told,
        "P1 records": outputs.records,
        "P2 outcome": ends.one_outcome,
        "P2 fitting": ends.fitting,
        "P2 signals": ends.one_signal_each,
        "P3 left": ends.nothing_left,
        "P3 outlived": ends.within_outcome,
        "P4 gauge": capacity.gauges,
        "P4 running": capacity.running,
        "P4 zero": capacity.back_to_zero,
        "P4 order": capacity.first_come,
        "P5 arrives": cancels.arrives,
        "P5 cleanup": cancels.cleanup_once,
        "P5 bounded": cancels.cleanup_bounded,
        "P5 shielded": cancels.cleanup_shielded,
        "P6 deadlines": deadlines.deadlines,
        "P6 known": deadlines.travel,
        "P6 caller": deadlines.caller,
        "P7 arrived": signals.arrived,
        "P7 lost": signals.lost,
        "P7 leases": signals.leases,
        "P7 order": signals.in_order,
        "P8 memory": capacity.memory,
        "P9 bystander": bystanders.bystanders,
        "P9 defect": bystanders.no_defect,
    }
)
"""By name, what must hold; the docstring of each says it in a sentence."""


def check(history: History | Sequence[Event]) -> list[Violation]:
    """What is wrong in a history, in the order of the events that show it; nothing where all promises are kept."""
    events = history.events if isinstance(history, History) else history
    if not events or events[0].event != "begin":
        return [Violation("form", "", (), "does not begin with `begin`")]
    story = Story(events)
    found = [violation for rule in RULES.values() for violation in rule(story)]
    return sorted(found, key=lambda each: (each.steps[:1], each))
