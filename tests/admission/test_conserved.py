"""P4: capacity is conserved, whatever tasks come, fail and are cancelled, in whatever order Trio runs them.

Times are small whole numbers, so that ends, timeouts and cancellations fall into one scheduler pass as often as can be.
"""

from dataclasses import dataclass
from math import inf

import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.sizes import size

from dk_trio.admission import Admission
from dk_trio.errors import AdmissionError, QueueFullError
from dk_trio.settings import TaskSettings

from .kit import assert_empty


@dataclass(frozen=True)
class Plan:
    """One task: when it comes, how long its body takes and how that ends, and when it is cancelled from outside."""

    comes: int
    holds: int
    fails: bool
    gives_up: int | None


PLANS = st.lists(
    st.builds(
        Plan,
        comes=st.integers(0, 6),
        holds=st.integers(0, 4),
        fails=st.booleans(),
        gives_up=st.none() | st.integers(1, 6),
    ),
    max_size=24,
)
SIZES = st.builds(
    TaskSettings,
    max_concurrent_tasks=st.integers(1, 4),
    max_queued_tasks=st.integers(0, 4),
    admission_timeout=st.sampled_from([0, 1, 3, 20]),
    queue_slot_timeout=st.sampled_from([None, 1, 3]),
    task_wait_timeout=st.sampled_from([0, 1, 3, 20]),
    backpressure_strategy=st.sampled_from(["block", "block", "reject"]),
)


class Run:
    """Plans carried out, and looked at whenever something happens."""

    def __init__(self, sizes: TaskSettings, plans: list[Plan]) -> None:
        self.sizes = sizes
        self.plans = plans
        self.admission = Admission(sizes)
        self.waiting: dict[int, trio.lowlevel.Task] = {}  # in the order of arrival
        self.inside: set[int] = set()
        self.began: set[int] = set()
        self.overtaken: list[tuple[int, int]] = []
        self.ends = {"began": 0, "gate": 0, "slot": 0, "left": 0}

    async def all(self) -> None:
        with trio.fail_after(86_400):
            async with trio.open_nursery() as nursery:
                for number, plan in enumerate(self.plans):
                    nursery.start_soon(self.one, number, plan)
                while sum(self.ends.values()) < len(self.plans):
                    await trio.testing.wait_all_tasks_blocked()
                    self.look_at_rest()
                    await trio.sleep(1)
        assert_empty(self.admission)
        assert [pair for pair in self.overtaken if pair[0] in self.began] == []
        now = self.admission.statistics()
        counted = {"began": now.started, "gate": now.rejected_by_gate, "slot": now.rejected_by_slot}
        assert self.ends == counted | {"left": now.abandoned}

    async def one(self, number: int, plan: Plan) -> None:
        await trio.sleep(plan.comes)
        came = trio.current_time()
        self.waiting[number] = trio.lowlevel.current_task()
        end = "left"
        with trio.move_on_after(inf if plan.gives_up is None else plan.gives_up):
            try:
                async with self.admission.admit():
                    end = "began"
                    self.begin(number)
                    try:
                        if plan.holds:
                            await trio.sleep(plan.holds)
                        if plan.fails:
                            raise ZeroDivisionError
                    finally:
                        self.inside.remove(number)
            except ZeroDivisionError:
                pass
            except AdmissionError as error:
                end = "gate" if isinstance(error, QueueFullError) else "slot"
                assert error.waited == trio.current_time() - came
                self.look_at_refusal(error)
        self.waiting.pop(number, None)
        self.ends[end] += 1
        self.look()

    def begin(self, number: int) -> None:
        granted = self.admission._slot.statistics().borrowers
        for earlier, task in self.waiting.items():
            if earlier == number:
                break
            if task not in granted:  # overtaken, unless it has given up and only has not run since
                self.overtaken.append((earlier, number))
        del self.waiting[number]
        self.inside.add(number)
        self.began.add(number)
        self.look()

    def look_at_refusal(self, error: AdmissionError) -> None:
        at_gate = self.sizes.admission_timeout if self.sizes.max_queued_tasks else 0
        if isinstance(error, QueueFullError):
            assert error.waited == at_gate
        else:  # it may have waited at the gate before
            assert 0 <= error.waited - self.sizes.slot_wait.seconds <= at_gate

    def look(self) -> None:
        """In the middle of a scheduler pass: tasks that were given something may not have run since."""
        now = self.admission.statistics()
        assert len(self.inside) <= now.running <= now.slots
        assert now.running <= now.admitted <= now.slots + now.queue
        assert now.running == now.slots or not now.queued
        if now.queue:
            assert now.running + now.queued <= now.admitted

    def look_at_rest(self) -> None:
        now = self.admission.statistics()
        assert now.running == len(self.inside)
        assert now.queued + now.at_gate == len(self.waiting)
        assert now.admitted == now.running + (now.queued if now.queue else 0)
        assert now.admitted == now.slots + now.queue or not now.at_gate
        self.look()


@settings(deadline=None, max_examples=size(200, 4000))
@given(sizes=SIZES, plans=PLANS, seed=st.integers(0, 2**32))
def test_capacity_is_conserved(sizes: TaskSettings, plans: list[Plan], seed: int) -> None:
    trio._core._run._r.seed(seed)  # another seed, another order inside each scheduler pass
    trio.run(Run(sizes, plans).all, clock=trio.testing.MockClock(autojump_threshold=0))
