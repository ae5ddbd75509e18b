"""Whole systems in one process: clients, servers and a provider over a faulty network, in virtual time, from a seed.

    result = simulate(41, "mesh")
    assert not result.violations, result.command

What happens is noted in a `History`, and `check` reads it against the promises of dk-trio. A seed that breaks one
breaks it again, the same way. On the command line it is `dk-trio sim`.
"""

from .checker import Violation as Violation
from .checker import check as check
from .history import Event as Event
from .history import History as History
from .run import Result as Result
from .run import Statistics as Statistics
from .run import simulate as simulate
from .scenarios import SCENARIOS as SCENARIOS
from .scenarios import Scenario as Scenario
