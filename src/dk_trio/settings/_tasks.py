"""The layer of admission: how many tasks run, how many wait, and how long (tuning guide, layer 2). Times in seconds.

Two modes. With a queue (`DIGITALKIN_MAX_QUEUED_TASKS` above 0) a task enters within `DIGITALKIN_ADMISSION_TIMEOUT` and
then waits patiently for a slot. Without one, the legacy mode, it waits for a slot and no longer than the settings say.
Each mode leaves the other's variables without effect; `without_effect` tells which.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

from dk_trio.errors import SettingError

from ._variable import SECONDS, WEEK, number, setting, whole

_SLOTS = "DIGITALKIN_MAX_CONCURRENT_TASKS"
_QUEUED = "DIGITALKIN_MAX_QUEUED_TASKS"
_ADMISSION = "DIGITALKIN_ADMISSION_TIMEOUT"
_QUEUE_SLOT = "DIGITALKIN_QUEUE_SLOT_TIMEOUT"
_TASK_WAIT = "DIGITALKIN_TASK_WAIT_TIMEOUT"
_STRATEGY = "DIGITALKIN_BACKPRESSURE_STRATEGY"
_BACKPRESSURE = "DIGITALKIN_BACKPRESSURE_TIMEOUT"


class SlotWait(NamedTuple):
    """How long a task waits for its slot, and what says so."""

    seconds: float
    """Infinite for as long as it takes, 0 for not at all."""
    variable: str


def _strategy(text: str) -> str:
    if text == "drop_oldest":  # a value of the existing SDK, where the variable speaks of a job's output queue
        raise SettingError(
            f"{_STRATEGY}='drop_oldest' is refused: it would silently lose work that was accepted.",
            hint="Use block, which waits for a slot, or reject, which tells the caller at once.",
        )
    if text not in {"block", "reject"}:
        raise ValueError(text)
    return text


@dataclass(frozen=True, kw_only=True)
class TaskSettings:
    """How many tasks run and wait, and how long they wait."""

    max_concurrent_tasks: int = setting(
        _SLOTS,
        whole(1, 1_000_000),
        default=100,
        expects="a whole number of tasks from 1 to 1000000",
        about="Slots: tasks that run at the same time.",
    )
    max_queued_tasks: int = setting(
        _QUEUED,
        whole(0, 1_000_000),
        default=0,
        expects="a whole number of tasks from 0 (no queue) to 1000000",
        about="Tasks that wait for a slot in the queue, as long as it takes and in order.",
    )
    admission_timeout: float = setting(
        _ADMISSION,
        number(0, WEEK),
        default=5.0,
        expects=SECONDS.format(0),
        about="Wait for a place when slots and queue are full; then RESOURCE_EXHAUSTED. Without a queue: no effect.",
    )
    task_wait_timeout: float = setting(
        _TASK_WAIT,
        number(0, WEEK),
        default=30.0,
        expects=SECONDS.format(0),
        about=f"Wait for a slot when there is no queue; {_BACKPRESSURE} holds too, the shorter one ends the wait.",
    )
    queue_slot_timeout: float | None = setting(
        _QUEUE_SLOT,
        number(0.001, WEEK),
        expects=SECONDS.format(0.001),
        about="Wait of a queued task for its slot; none: as long as it takes. Without a queue: no effect.",
    )
    backpressure_strategy: Literal["block", "reject"] = setting(
        _STRATEGY,
        _strategy,
        default="block",
        expects="block or reject",
        about="When all slots are taken and there is no queue: block waits for one, reject answers at once.",
    )
    backpressure_timeout: float = setting(
        _BACKPRESSURE,
        number(0, WEEK),
        default=300.0,
        expects=SECONDS.format(0),
        about=f"Longest wait with {_STRATEGY}=block; {_TASK_WAIT} holds too. With a queue: no effect.",
    )

    @property
    def slot_wait(self) -> SlotWait:
        """How long a task waits for its slot in the mode of these settings, and the variable that binds."""
        if self.max_queued_tasks:
            return SlotWait(math.inf if self.queue_slot_timeout is None else self.queue_slot_timeout, _QUEUE_SLOT)
        if self.backpressure_strategy == "reject":
            return SlotWait(0.0, _STRATEGY)
        waits = (SlotWait(self.task_wait_timeout, _TASK_WAIT), SlotWait(self.backpressure_timeout, _BACKPRESSURE))
        return min(waits, key=lambda wait: wait.seconds)

    def without_effect(self) -> dict[str, str]:
        """Variables that have no effect in the mode of these settings, and why."""
        if self.max_queued_tasks:
            why = f"tasks wait in the queue ({_QUEUED}={self.max_queued_tasks})"
            return dict.fromkeys((_TASK_WAIT, _STRATEGY, _BACKPRESSURE), why)
        out = dict.fromkeys((_ADMISSION, _QUEUE_SLOT), f"there is no queue ({_QUEUED}=0)")
        if self.backpressure_strategy == "reject":
            return out | dict.fromkeys((_TASK_WAIT, _BACKPRESSURE), f"{_STRATEGY}=reject does not wait")
        wait = self.slot_wait
        other = _BACKPRESSURE if wait.variable == _TASK_WAIT else _TASK_WAIT
        return out | {other: f"{wait.variable} ends the wait after {wait.seconds:g} s"}
