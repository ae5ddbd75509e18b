"""What kinds of systems are simulated: scenarios by name, with their ranges and weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

Range = tuple[float, float]
Whole = tuple[int, int]

CALM_ACTS: Final = {"send": 6.0, "sleep": 4.0, "burst": 1.0, "large": 1.0}
ROUGH_ACTS: Final = {**CALM_ACTS, "swallow": 0.7, "shield": 0.4, "raise": 0.3, "group": 0.2, "spoil": 0.3}
FATES: Final = {"read": 5.0, "leave": 2.0, "stop": 1.0}


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """Ranges and weights of one kind of simulation. Ranges include both ends; times are virtual seconds.

    Attributes:
        name: Its name.
        about: What it shows, in a line.
        servers: Module servers.
        provider: Whether there is a services-provider, with registry, signals and stores.
        clients: Hosts that call.
        jobs: Jobs that they start, in all.
        within: They all start within so many seconds.
        slots: Of each server.
        queue: Places of each server's queue; 0 is the mode without one.
        acts: Weights of what authors do.
        fates: Weights of what clients do.
        deadlines: Share of jobs that have one.
        calls: Share of jobs that call another module.
        faults: Weights of faults.
        fault_count: How many of them come.
        points: Weights of the points at which the simulation strikes.
        bad_network: Share of scripts whose links are slow, or cut what they carry into pieces.
    """

    name: str
    about: str
    servers: Whole = (1, 1)
    provider: bool = False
    clients: Whole = (2, 3)
    jobs: Whole = (6, 12)
    within: Range = (2, 20)
    slots: Whole = (2, 6)
    queue: Sequence[int] = (0, 3, 20)
    acts: Mapping[str, float] = field(default_factory=lambda: ROUGH_ACTS)
    fates: Mapping[str, float] = field(default_factory=lambda: FATES)
    deadlines: float = 0.2
    calls: float = 0.0
    faults: Mapping[str, float] = field(default_factory=dict)
    fault_count: Whole = (0, 4)
    points: Sequence[str] = ()
    bad_network: float = 0.5


LINK_FAULTS: Final = {"reset": 3.0, "fin": 1.0, "blackhole": 2.0}
JOB_POINTS: Final = (
    "admission.acquire",
    "admission.acquired",
    "session.cleanup",
    "session.ending",
    "setup.fetch",
    "rpc.trailers",
)

SIGNAL_POINTS: Final = ("signals.flush", "signals.flushed", "signals.poll", "database.commit", "database.committed")
PROVIDER_FAULTS: Final = {"outage": 2.0, "hang": 2.0, "provider crash": 3.0}

SCENARIOS: Final[Mapping[str, Scenario]] = MappingProxyType(
    {
        scenario.name: scenario
        for scenario in (
            Scenario(
                name="jobs",
                about="one server in local mode; clients over slow, sliced, cut and silent links",
                faults={**LINK_FAULTS, "client dies": 1.0},
                points=JOB_POINTS,
            ),
            Scenario(
                name="crowd",
                about="more jobs than slots: queues, waits, deadlines, cancels, slow readers, StopModule, drain",
                clients=(2, 4),
                jobs=(12, 24),
                within=(1, 6),
                slots=(1, 3),
                queue=(0, 2, 6),
                fates={"read": 5.0, "leave": 2.0, "stop": 2.0, "slow": 2.0},
                deadlines=0.4,
                faults={"drain": 2.0, "reset": 1.0},
                fault_count=(0, 2),
                points=JOB_POINTS,
                bad_network=0.1,
            ),
            Scenario(
                name="signals",
                about="signals by way of a provider that is away, hangs, crashes, and loses replies",
                provider=True,
                jobs=(5, 10),
                acts={**ROUGH_ACTS, "linger": 4.0},
                fates={"read": 2.0, "ask cancel": 3.0, "ask stop": 2.0, "stop": 2.0, "leave": 1.0},
                faults={**PROVIDER_FAULTS, "reset": 1.0, "blackhole": 1.0},
                points=(*SIGNAL_POINTS, *JOB_POINTS),
                bad_network=0.2,
            ),
            Scenario(
                name="mesh",
                about="servers that find and call each other; they are killed, drained, and started again",
                servers=(2, 3),
                provider=True,
                clients=(1, 2),
                jobs=(4, 8),
                acts={**ROUGH_ACTS, "linger": 0.7},
                calls=0.8,
                deadlines=0.4,
                fates={**FATES, "ask cancel": 1.0},
                faults={**LINK_FAULTS, "kill": 2.0, "drain": 2.0, "outage": 1.0, "provider crash": 1.0},
                points=(*JOB_POINTS, *SIGNAL_POINTS),
                bad_network=0.2,
            ),
            Scenario(
                name="storage",
                about="records, costs and files whose replies are lost: there once, if they were acknowledged",
                provider=True,
                jobs=(3, 7),
                acts={"store": 4.0, "cost": 4.0, "file": 3.0, "sleep": 2.0, "send": 1.0},
                faults={**PROVIDER_FAULTS, "reset": 3.0, "blackhole": 1.0, "kill": 1.0},
                fault_count=(1, 5),
                points=SIGNAL_POINTS,
                bad_network=0.2,
            ),
            Scenario(
                name="hostile",
                about="links that flip bits and strangers who send garbage, beside clients who must not notice",
                clients=(2, 3),
                acts=CALM_ACTS,
                fates={"read": 1.0},
                deadlines=0.0,
                faults={"corrupt": 3.0, "garbage": 3.0},
                fault_count=(1, 5),
                bad_network=0.2,
            ),
            Scenario(
                name="everything",
                about="a small mesh, and all that can happen to it",
                servers=(1, 2),
                provider=True,
                jobs=(4, 9),
                calls=0.3,
                acts={**ROUGH_ACTS, "linger": 0.7, "store": 1.0, "cost": 1.0, "file": 0.7},
                deadlines=0.3,
                fates={"read": 4.0, "leave": 1.0, "stop": 1.0, "slow": 1.0, "ask cancel": 1.0, "ask stop": 1.0},
                faults={
                    **LINK_FAULTS,
                    **PROVIDER_FAULTS,
                    "client dies": 1.0,
                    "kill": 1.0,
                    "drain": 1.0,
                    "corrupt": 1.0,
                    "garbage": 1.0,
                },
                fault_count=(0, 5),
                points=(*JOB_POINTS, *SIGNAL_POINTS),
                bad_network=0.3,
            ),
        )
    }
)
"""By their names."""
