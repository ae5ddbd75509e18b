"""The script of one simulation: all that is drawn from a seed before it begins.

It says how large the servers are, what clients want and when, what authors do, how good the network is, and which
faults come when. So a script can be read, and two runs of it differ in nothing but what the seed's scheduler makes of
it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from types import MappingProxyType
from typing import Final, Literal

from .authors import Act, Plan, draw_plan
from .scenarios import Scenario
from .servers import KEEPALIVE, KEEPALIVE_TIMEOUT

Fate = Literal["read", "leave", "stop", "ask cancel", "ask stop", "slow"]
"""What a client does beside reading: nothing, leave, call StopModule, let the platform send a signal, read slowly."""

FaultKind = Literal[
    "reset",
    "fin",
    "blackhole",
    "outage",
    "hang",
    "kill",
    "drain",
    "provider crash",
    "client dies",
    "corrupt",
    "garbage",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """How good a network is between two hosts. Seconds, bytes, bytes per second."""

    latency: float
    jitter: float
    bandwidth: float
    slice_max: int | None
    buffer: int

    @property
    def delivery(self) -> float:
        """Seconds that a byte may take behind all that a connection may have queued before it."""
        return round(self.latency + self.jitter + (self.buffer + QUEUED) / self.bandwidth, 3)


QUEUED: Final = 512 * 1024
"""Bytes that a connection of ours may have queued before a small message: what waits for the transport (256 kB), once
more what the transport has taken, and a little for frames."""


FAREWELLS: Final = 0.4
"""Share of scripts with a provider that end with a farewell. It takes as long as the rest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Errand:
    """One job as its client wants it.

    Attributes:
        job: Its name.
        client: Host of the client.
        server: Host of the server.
        at: When it starts.
        timeout: Seconds for it; None: as long as it takes.
        pause: Seconds that the client takes for each output.
        fate: What else the client does.
        after: Seconds after the start at which it does so.
        decent: Whether it succeeds if nobody strikes.
    """

    job: str
    client: str
    server: str
    at: float
    timeout: float | None
    pause: float
    fate: Fate
    after: float
    decent: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One fault.

    Attributes:
        at: When it comes.
        kind: What it is.
        where: The hosts that it is about: one, or two and what is between them.
        seconds: For how long, if it lasts.
    """

    at: float
    kind: FaultKind
    where: tuple[str, ...]
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """All that is decided before a simulation begins. Times are virtual seconds.

    Attributes:
        servers: Hosts of module servers.
        clients: Hosts of clients.
        provider: Whether there is a services-provider.
        slots: Of each server.
        queue: Of each server.
        admission_timeout: Wait for a place in the queue, or for a slot where there is none.
        cleanup_grace: For the cleanup of a cancelled job.
        completion_timeout: For the cleanup of others.
        drain_timeout: For which a client may read nothing.
        poll_timeout: Of one GetSignals.
        flush_interval: For which signals wait for company.
        link: The network.
        plans: What the authors of jobs do, by name.
        errands: What clients want.
        faults: In the order of their times.
        points: Share of visits at which the simulation strikes, by point.
        strike: The longest wait at a point.
        retries: Whether channels of clients repeat calls.
        quiet_at: No fault and no strike comes later, and what lasts has ended.
        farewell: What clients want at the very end, if there is a farewell. Whose, where and when is seen then.
    """

    servers: tuple[str, ...]
    clients: tuple[str, ...]
    provider: bool
    slots: int
    queue: int
    admission_timeout: float
    cleanup_grace: float
    completion_timeout: float
    drain_timeout: float
    poll_timeout: float
    flush_interval: float
    link: Link
    plans: Mapping[str, Plan]
    errands: tuple[Errand, ...]
    faults: tuple[Fault, ...]
    points: Mapping[str, float]
    strike: float
    retries: bool
    quiet_at: float
    farewell: tuple[Errand, ...]

    @property
    def detect(self) -> float:
        """Seconds until one notices that the other end of a connection is gone without a word."""
        return KEEPALIVE + KEEPALIVE_TIMEOUT + 10 + self.link.delivery


def write(scenario: Scenario, seed: int) -> Script:
    """The script of a seed."""
    dice = Random(f"{scenario.name}/{seed}")  # noqa: S311  a simulation is to be repeated
    servers = tuple(f"server-{number + 1}" for number in range(dice.randint(*scenario.servers)))
    clients = tuple(f"client-{number + 1}" for number in range(dice.randint(*scenario.clients)))
    within = dice.uniform(*scenario.within)
    plans: dict[str, Plan] = {}
    errands = []
    for number in range(dice.randint(*scenario.jobs)):
        job = f"j{number + 1}"
        plan = draw_plan(dice, scenario.acts)
        if dice.random() < scenario.calls:
            plan = _with_call(dice, scenario, job, plan, servers, plans)
        plans[job] = plan
        errands.append(_errand(dice, scenario, job, plan, (clients, servers), within))
    farewell = tuple(map(_last_errand, ("last1", "last2"))) if scenario.provider and dice.random() < FAREWELLS else ()
    plans |= {errand.job: Plan(acts=(Act(kind="linger", seconds=60),)) for errand in farewell}
    count = dice.randint(*scenario.fault_count) if scenario.faults else 0
    faults = sorted(
        (_fault(dice, scenario, (clients, servers), within) for _ in range(count)), key=lambda fault: fault.at
    )
    return Script(
        servers=servers,
        clients=clients,
        provider=scenario.provider,
        slots=dice.randint(*scenario.slots),
        queue=dice.choice(scenario.queue),
        admission_timeout=dice.choice([0.5, 3.0, 15.0]),
        cleanup_grace=dice.choice([3.0, 6.0]),
        completion_timeout=dice.choice([5.0, 12.0]),
        drain_timeout=dice.choice([4.0, 20.0]),
        poll_timeout=dice.choice([1.0, 3.0]),
        flush_interval=dice.choice([0.1, 0.1, 3.0]),
        link=_link(dice, bad=dice.random() < scenario.bad_network, much=sum(map(_large, plans.values())) > 0),
        plans=MappingProxyType(plans),
        errands=tuple(errands),
        faults=tuple(faults),
        # As in a real system some seeds meet the one thing, and some the other; all at once would hide much.
        points=MappingProxyType(
            {point: dice.choice([0.02, 0.1, 0.4]) for point in scenario.points if dice.random() < 0.5}
        ),
        strike=dice.choice([0.05, 1.0]),
        retries=dice.random() < 0.5,
        quiet_at=round(max([within, *(fault.at + fault.seconds for fault in faults)]) + 5, 3),
        farewell=farewell,
    )


def _large(plan: Plan) -> int:
    return sum(act.kind == "large" for act in plan.acts)


def _link(dice: Random, *, bad: bool, much: bool) -> Link:
    return Link(
        latency=dice.choice([0.0005, 0.005, 0.04]),
        jitter=dice.choice([0.0, 0.001, 0.03]),
        bandwidth=dice.choice([60_000.0, 400_000.0]) if bad else 20_000_000.0,
        slice_max=dice.choice([2_000 if much else 20, 5_000, None]) if bad else None,  # each piece costs a wake-up
        buffer=dice.choice([4_096, 65_536]),
    )


def _errand(
    dice: Random, scenario: Scenario, job: str, plan: Plan, hosts: tuple[Sequence[str], Sequence[str]], within: float
) -> Errand:
    fate: Fate = dice.choices(list(scenario.fates), list(scenario.fates.values()))[0]  # type: ignore[assignment]
    timeout = round(dice.uniform(0.2, 12), 3) if dice.random() < scenario.deadlines else None
    pause = dice.choice([0.5, 6.0]) if fate == "slow" else dice.choice([0.0, 0.0, 0.0, 0.1])
    return Errand(
        job=job,
        client=dice.choice(hosts[0]),
        server=dice.choice(hosts[1]),
        at=round(dice.uniform(0, within), 3),
        timeout=timeout,
        pause=pause,
        fate=fate,
        after=round(dice.choice([dice.uniform(0, 0.2), dice.uniform(0, 6)]), 3),
        decent=plan.decent and fate == "read" and timeout is None,
    )


def _last_errand(job: str) -> Errand:
    fate: Fate = "ask cancel" if job == "last2" else "read"
    return Errand(
        job=job, client="", server="", at=0.0, timeout=None, pause=0.0, fate=fate, after=5.0, decent=fate == "read"
    )


def _with_call(
    dice: Random, scenario: Scenario, job: str, plan: Plan, servers: Sequence[str], plans: dict[str, Plan]
) -> Plan:
    child = f"{job}.1"
    plans[child] = draw_plan(dice, scenario.acts, longest=4)
    act = Act(kind="call", child=child, server=dice.choice(servers), timeout=dice.choice([None, None, 1.0, 6.0]))
    place = dice.randint(0, len(plan.acts))
    return replace(plan, acts=(*plan.acts[:place], act, *plan.acts[place:]))


def _fault(dice: Random, scenario: Scenario, hosts: tuple[Sequence[str], Sequence[str]], within: float) -> Fault:
    kind: FaultKind = dice.choices(list(scenario.faults), list(scenario.faults.values()))[0]  # type: ignore[assignment]
    client, server = dice.choice(hosts[0]), dice.choice(hosts[1])
    match kind:
        case "corrupt":  # who calls knows that it was; what a provider stores would be changed for good
            where: tuple[str, ...] = client, server
        case "reset" | "fin" | "blackhole":
            pairs = [(client, server)]
            if scenario.provider:
                pairs.append((server, "provider"))
            if len(hosts[1]) > 1:
                first, second = dice.sample(list(hosts[1]), 2)
                pairs.append((first, second))
            where = dice.choice(pairs)
        case "kill" | "drain" | "garbage":
            where = (server,)
        case "outage" | "hang" | "provider crash":
            where = ("provider",)
        case "client dies":
            where = (client,)
    return Fault(
        at=round(dice.uniform(0.1, within + 2), 3),
        kind=kind,
        where=where,
        seconds=round(dice.choice([dice.uniform(0.1, 2), dice.uniform(2, 30)]), 3),
    )
