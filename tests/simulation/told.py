"""Histories written by hand, for what reads them: a good one, of which each test spoils one thing."""

from __future__ import annotations

from typing import Any

from dk_trio.testing.simulation.checker import Violation, check
from dk_trio.testing.simulation.history import Event, History

BEGIN: dict[str, Any] = {
    "seed": 7,
    "scenario": "told",
    "slots": 2,
    "queue": 1,
    "cleanup_grace": 5.0,
    "completion_timeout": 20.0,
    "delivery": 0.5,
    "detect": 10.0,
    "hold": 1.0,
    "poll": 3.4,
    "strike": 0.1,
    "memory": 1000,
    "lease": 30.0,
    "provider": True,
}
END: dict[str, Any] = {
    "tasks_left": [],
    "streams_left": 0,
    "borrowed": {"s1": {"running": 0, "admitted": 0}},
    "sessions_left": 0,
    "threads": 0,
}
CLIENT, SERVER = "client/c1", "server/s1"


class Tale:
    """A history that is written down, at times that one sets."""

    def __init__(self, **begin: Any) -> None:
        self.now = 0.0
        self.history = History(lambda: self.now)
        self._seq = 0
        self.history.note("world", "begin", **{**BEGIN, **begin})

    def at(self, now: float) -> Tale:
        """What follows happens then."""
        self.now = now
        return self

    def note(self, actor: str, event: str, **fields: Any) -> Event:
        return self.history.note(actor, event, **fields)

    def author(self, job: str, event: str, **fields: Any) -> None:
        self.note(f"author/{job}", event, **fields)

    def starts(self, job: str, *, server: str = "s1", client: str = CLIENT, **fields: Any) -> None:
        """A client starts a job, which gets its slot at once, and whose handler begins; it `knows` its deadline."""
        knows = fields.pop("knows", fields.get("deadline_at"))
        self.note(client, "start", job=job, server=server, setup="setups:s", **fields)
        self.begins(job, server=server, deadline_at=knows)

    def begins(self, job: str, *, server: str = "s1", deadline_at: float | None = None) -> None:
        """A job gets its slot at once, and its handler begins."""
        for event in ("asked", "slot", "admitted"):
            self.note(f"server/{server}", event, job=job)
        self.signal(job, "start")
        self.author(job, "initialize")
        self.author(job, "initialize_end", how="returned")
        self.author(job, "handler", **({} if deadline_at is None else {"deadline_at": deadline_at}))

    def sends(self, job: str, number: int, *, client: str = CLIENT) -> None:
        """The handler sends an output, which arrives."""
        self.author(job, "send", number=number)
        self.author(job, "sent", number=number)
        self.note(client, "output", job=job, protocol="said", number=number)

    def ends(self, job: str, how: str = "returned", *, server: str = "s1", reason: str = "", state: str = "") -> None:
        """The handler ends, cleanup runs, the job has its outcome and its STOP."""
        if how == "cancelled":
            self.author(job, "cancelled")
        self.author(job, "handler_end", how=how)
        self.author(job, "cleanup")
        self.author(job, "cleanup_end", how="returned")
        by_how = {"returned": ("completed", "stopped"), "cancelled": ("client_gone", "cancelled")}
        usual = by_how.get(how, ("failed", "failed"))
        reason = reason or usual[0]
        self.note(f"server/{server}", "outcome", job=job, reason=reason, state=state or usual[1])
        self.signal(job, "stop", reason)

    def told(self, job: str, status: str = "OK", *, client: str = CLIENT, corrupted: bool = False, **run: str) -> None:
        """The client has the status, and before OK the last output."""
        if status == "OK":
            self.note(client, "output", job=job, protocol="end_of_stream", **run)
        self.note(client, "status", job=job, status=status, message="", on_corrupted=corrupted)

    def signal(self, job: str, action: str, reason: str = "none", *, seq: int | None = None) -> None:
        """The provider has a signal."""
        self._seq += 1
        self.note("provider", "signal", task=job, action=action, reason=reason, seq=seq or self._seq)

    def job(self, job: str = "j1", **where: Any) -> None:
        """A whole job without anything special, at this moment."""
        client = where.get("client", CLIENT)
        self.starts(job, **where)
        self.sends(job, 0, client=client)
        self.ends(job, server=where.get("server", "s1"))
        self.told(job, client=client)

    def checked(self, *, quiet_at: float = 100, **end: Any) -> list[Violation]:
        """What is found, once the world has ended."""
        self.at(max(self.now, quiet_at))
        self.note("world", "quiet")
        self.note("world", "end", **{**END, **end})
        return check(self.history)


def rules(found: list[Violation]) -> set[str]:
    """Which rules were broken."""
    return {each.rule for each in found}


def the_long_one(**start: Any) -> Tale:
    """A job that has begun and would go on for long."""
    tale = Tale()
    tale.starts("j1", **start)
    return tale


def cancelled(tale: Tale, at: float, **how: Any) -> None:
    tale.at(at).ends("j1", "cancelled", **how)
