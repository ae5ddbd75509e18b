"""All mutants."""

from typing import Final

from .calls import CALLS
from .jobs import JOBS
from .mutant import Mutant
from .platform import PLATFORM

MUTANTS: Final[tuple[Mutant, ...]] = (*JOBS, *CALLS, *PLATFORM)
