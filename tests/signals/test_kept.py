"""What waits to be sent, held against a model that is a list."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from tests.sizes import size

from dk_trio.signals import Signal, SignalAction
from dk_trio.signals._kept import Delivery, Entry, KeptSignals, Kind, kind_of

TASKS = st.sampled_from(["a", "b", "c", "d"])
SAID = st.sampled_from(
    [
        (SignalAction.START, "none"),
        (SignalAction.ACK_CANCEL, "signal_service_cancel"),
        (SignalAction.ACK_STOP, "signal_service_stop"),
        (SignalAction.CANCEL, "none"),
        (SignalAction.STOP, "none"),
        (SignalAction.STOP, "completed"),
    ]
)


def test_a_stop_is_told_from_a_wish_to_stop_by_its_reason() -> None:
    kinds = [
        kind_of(Signal(task_id="a", action=SignalAction.STOP, cancellation_reason=why))
        for why in ("none", "", "timeout")
    ]
    assert kinds == [Kind.REQUEST, Kind.REQUEST, Kind.STOP]


class Kept(RuleBasedStateMachine):
    """The model: entries in order. One is in flight (`taken`) at most, as a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.kept = KeptSignals()
        self.model: list[Entry] = []
        self.taken: list[Entry] = []
        self.deliveries: dict[Delivery, tuple[str, Kind]] = {}
        self.now = 0.0

    @rule(task=TASKS, said=SAID, waits=st.booleans())
    def put(self, task: str, said: tuple[SignalAction, str], waits: bool) -> None:
        self.now += 1
        signal = Signal(task_id=task, action=said[0], cancellation_reason=said[1])
        entry = self.kept.put(signal, self.now)
        self.model = [old for old in self.model if not self.same(old, entry)] + [entry]
        if waits:
            delivery = Delivery()
            entry.deliveries.append(delivery)
            self.deliveries[delivery] = (task, kind_of(signal))

    @rule(limit=st.integers(1, 4))
    def take(self, limit: int) -> None:
        if not self.taken:
            self.taken = self.kept.take(limit)
            assert self.taken == self.model[:limit]
            self.model = self.model[limit:]

    @rule()
    def delivered(self) -> None:
        for entry in self.taken:
            for delivery in entry.deliveries:
                del self.deliveries[delivery]
            entry.settle(None)
        self.taken = []

    @rule(last=st.booleans())
    def refused(self, last: bool) -> None:
        self.kept.put_back(self.taken)
        self.model = [old for old in self.taken if not any(self.same(old, new) for new in self.model)] + self.model
        if last and len(self.taken) == 1:
            task = self.taken[0].signal.task_id
            self.kept.move_back(task)
            self.model.sort(key=lambda entry: entry.signal.task_id == task)
        self.taken = []

    @rule()
    def drop(self) -> None:
        dropped = self.kept.drop_ended()
        ended = {entry.signal.task_id for entry in self.model if self.ended(entry.signal.task_id)}
        assert bool(dropped) == bool(ended)
        if dropped:
            (task,) = {entry.signal.task_id for entry in dropped}
            assert task in ended
            unheard = {task for task in ended if any(self.starts(entry, task) for entry in self.model)}
            assert task in unheard or not unheard
            assert sorted(map(id, dropped)) == sorted(id(entry) for entry in self.model if entry.signal.task_id == task)
            self.model = [entry for entry in self.model if entry.signal.task_id != task]
            for entry in dropped:
                for delivery in entry.deliveries:
                    del self.deliveries[delivery]

    def same(self, one: Entry, other: Entry) -> bool:
        return one.signal.task_id == other.signal.task_id and kind_of(one.signal) is kind_of(other.signal)

    def starts(self, entry: Entry, task: str) -> bool:
        return entry.signal.task_id == task and kind_of(entry.signal) is Kind.START

    def ended(self, task: str) -> bool:
        kinds = {kind_of(entry.signal) for entry in self.model if entry.signal.task_id == task}
        return Kind.STOP in kinds or kinds == {Kind.REQUEST}

    @invariant()
    def agrees(self) -> None:
        assert list(self.kept._order) == self.model
        assert len(self.kept) == len(self.model)
        assert set(self.kept.ids()) == {entry.signal.task_id for entry in self.model}
        assert self.kept.tasks == len(self.kept.ids())
        if self.model:
            assert self.kept.since == self.model[0].since

    @invariant()
    def of_each_job_one_of_a_kind_in_the_order_of_what_was_said(self) -> None:
        for task, kinds in self.kept._tasks.items():
            assert list(kinds.values()) == [entry for entry in self.model if entry.signal.task_id == task]

    @invariant()
    def nobody_waits_for_ever(self) -> None:
        waited_for = {delivery for entry in [*self.model, *self.taken] for delivery in entry.deliveries}
        assert waited_for == set(self.deliveries)


TestKept = Kept.TestCase
TestKept.settings = settings(max_examples=size(60, 1200), stateful_step_count=40, deadline=None)
