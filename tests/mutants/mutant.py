"""What a mutant is."""

from dataclasses import dataclass
from typing import Final

PROMISES: Final = tuple(f"P{number}" for number in range(1, 11))


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One deliberate bug, as the replacement of one piece of text.

    Attributes:
        name: Its name, for people and for the command line.
        promise: The promise that it breaks.
        file: Where, below `src/dk_trio`.
        old: What stands there, exactly once.
        new: What stands there instead.
        breaks: What users would meet.
        batteries: Test files that are asked when the simulation and the regressions have not noticed.
    """

    name: str
    promise: str
    file: str
    old: str
    new: str
    breaks: str
    batteries: tuple[str, ...] = ()
