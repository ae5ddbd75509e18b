"""Jobs whose code does what a plan says and notes what it did, and what must hold for each of them when it is over."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from math import inf
from typing import Any, Literal, TypeAlias

import trio
from tests.module.sample import module_with

from dk_trio.errors import SessionEndedError
from dk_trio.lifecycle import OUTCOMES, Reason
from dk_trio.module import ModuleContext
from dk_trio.signals import Signal, SignalAction

Act: TypeAlias = (
    float | Literal["send", "large", "burst", "swallow", "shield", "stuck", "raise", "exit", "spoil", "leave open"]
)
"""What a handler does next: sleep for a time, or what `_act` says."""

LARGE = 80_000
"""Characters in a large output: more than a stream's window of 65,535 octets, so that its `send` has to wait."""
SHIELDED = 3.0
"""Seconds that a handler shields itself: less than a job's `cleanup_grace`."""
STUCK = 30.0
"""Seconds that a handler shields itself so that its caller is told before it ends."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What the code of one job does.

    Attributes:
        acts: What the handler does.
        initialize: Seconds that `initialize` takes.
        cleanup: Seconds that `cleanup` takes.
        parting: Whether `cleanup` begins with an output.
        fails: A hook that raises at its end.
    """

    acts: tuple[Act, ...] = ("send",)
    initialize: float = 0
    cleanup: float = 0
    parting: bool = False
    fails: Literal["", "initialize", "cleanup"] = ""

    @property
    def fails_by_itself(self) -> bool:
        """Whether it ends with a failure, if nothing else ends it before."""
        return bool(self.fails) or not {"raise", "exit", "spoil", "leave open"}.isdisjoint(self.acts)

    @property
    def shielded(self) -> float:
        """Seconds for which its handler may go on although it is cancelled."""
        return self.acts.count("shield") * SHIELDED + self.acts.count("stuck") * STUCK


@dataclass
class Job:
    """What the code of one job has noted, and the signals that came from it."""

    name: str
    plan: Plan
    initialized: int = 0
    cleanups: int = 0
    cleaned: bool = False
    cleaned_all: bool = False
    sending: list[int] = field(default_factory=list)
    sent: list[int] = field(default_factory=list)
    together: set[int] = field(default_factory=set)
    began_at: float = inf
    handled_at: float = inf
    context: ModuleContext | None = None
    signals: list[Signal] = field(default_factory=list)

    async def send(self, *, size: int = 0, together: bool = False) -> None:
        """Send the next output, and note whether `send` has returned."""
        assert self.context is not None
        number = len(self.sending)
        self.sending.append(number)
        if together:
            self.together.add(number)
        await self.context.send({"protocol": "message", "number": number, "text": "x" * size})
        self.sent.append(number)

    def count(self, *actions: SignalAction) -> int:
        return sum(signal.action in actions for signal in self.signals)

    @property
    def holds_slot(self) -> bool:
        """Whether its code has begun and not ended, as far as can be seen from outside."""
        return self.count(SignalAction.START) > self.count(SignalAction.STOP) and not self.cleaned

    def check(self, *, grace: float) -> Reason | None:
        """What holds for a job that is over. Returns the reason of its end, None when it never had a slot.

        Args:
            grace: Seconds that a cleanup has, whatever happens.
        """
        assert self.initialized == self.cleanups <= 1, self
        in_time = self.plan.cleanup < grace and not self.plan.parting  # a last output may have to wait
        assert self.cleaned_all or not (self.cleanups and in_time), self
        actions = [signal.action for signal in self.signals]
        if not self.count(SignalAction.START):
            assert actions in ([], [SignalAction.ACK_CANCEL], [SignalAction.ACK_STOP]), self
            assert not self.initialized, self
            assert not self.sending, self
            return None
        assert actions[-1] is SignalAction.STOP, self
        reason = Reason(self.signals[-1].payload["reason"])
        assert self.signals[-1].cancellation_reason == OUTCOMES[reason].signal, self
        # A cancel may come between the moment in which the slot was handed over and the next step of the job's task.
        acknowledged = {
            Reason.SIGNAL_CANCEL: SignalAction.ACK_CANCEL,
            Reason.SIGNAL_STOP: SignalAction.ACK_STOP,
            Reason.STOP_MODULE: SignalAction.ACK_STOP,
        }
        others = {*actions} - {SignalAction.START, SignalAction.STOP}
        assert others == ({acknowledged[reason]} if reason in acknowledged else set()), self
        assert len(actions) == len({*actions}), self
        return reason

    def check_received(self, received: list[int], *, complete: bool) -> None:
        """The caller's side of it: once, in order, without a gap; and when the status was OK, everything."""
        assert len(set(received)) == len(received), (self, received)
        assert set(received) <= set(self.sending), (self, received)
        alone = [number for number in received if number not in self.together]
        assert alone == sorted(alone), (self, received)
        lost = set(range(max(alone, default=0))) - {*alone, *self.together}
        assert lost.isdisjoint(self.sent), (self, received)  # an output that was cut off may be followed by another
        if complete:
            assert set(received) == set(self.sent), (self, received)


class Ledger:
    """The jobs of one run by their names, which travel as the ids of missions."""

    def __init__(self, plans: dict[str, Plan]) -> None:
        self.jobs = {name: Job(name, plan) for name, plan in plans.items()}
        self.configured = 0
        self.configuring = 0

    def __getitem__(self, name: str) -> Job:
        return self.jobs[name]

    def add(self, name: str, plan: Plan) -> Job:
        job = self.jobs[name] = Job(name, plan)
        return job

    def note(self, signal: Signal) -> None:
        """An observer of the signals that jobs publish."""
        job = self.jobs[signal.mission_id]
        job.signals.append(signal)
        if signal.action is SignalAction.START:
            job.began_at = trio.current_time()

    def module(self) -> Any:
        """A module whose jobs do what their plans say."""

        async def initialize(self: Any, context: ModuleContext, setup_data: Any) -> None:
            job = ledger[context.session.mission_id]
            job.context = context
            job.initialized += 1
            if job.plan.initialize:
                await trio.sleep(job.plan.initialize)
            if job.plan.fails == "initialize":
                raise OSError("initialize fails")

        async def handle(self: Any, input_data: Any, setup_data: Any, context: ModuleContext) -> None:
            job = ledger[context.session.mission_id]
            try:
                await _perform(job, job.plan.acts)
            finally:
                job.handled_at = trio.current_time()

        async def cleanup(self: Any, context: ModuleContext) -> None:
            job = ledger[context.session.mission_id]
            job.cleanups += 1
            try:
                if job.plan.parting:
                    with suppress(SessionEndedError):
                        await job.send()
                if job.plan.cleanup:
                    await trio.sleep(job.plan.cleanup)
                job.cleaned_all = True
                if job.plan.fails == "cleanup":
                    raise OSError("cleanup fails")
            finally:
                job.cleaned = True

        async def run_config_setup(self: Any, context: ModuleContext, config_setup_data: Any) -> Any:
            ledger.configured += 1
            ledger.configuring += 1
            try:
                for _ in range(3):
                    await trio.sleep(0.5)
                return config_setup_data
            finally:
                ledger.configuring -= 1

        ledger = self
        return module_with(handle, initialize=initialize, cleanup=cleanup, run_config_setup=run_config_setup)


async def _perform(job: Job, acts: Iterable[Act]) -> None:
    for act in acts:
        match act:
            case "send":
                await job.send()
            case "large":
                await job.send(size=LARGE)
            case "burst":
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(trio.sleep, 0.5)
                    for _ in range(2):
                        nursery.start_soon(lambda: job.send(together=True))
            case "swallow":
                with suppress(trio.Cancelled):
                    await trio.sleep(1)
            case "shield" | "stuck":
                with trio.CancelScope(shield=True):
                    await trio.sleep(SHIELDED if act == "shield" else STUCK)
            case "raise":
                raise ValueError("the handler fails")
            case "exit":
                raise SystemExit(3)
            case "spoil":
                try:
                    await trio.sleep(1)
                finally:
                    raise ValueError("the handler fails on its way out")
            case "leave open":
                await trio.open_nursery().__aenter__()
            case _:
                await trio.sleep(act)
