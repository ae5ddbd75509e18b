"""Admission, sessions and the jobs table as one state machine: Hypothesis does things to them in any order.

Each rule is one thing that the world can do. It is done in the step of a task that runs beside the jobs; then, if the
rule says so, all tasks go on until they wait. So a thing may happen while the last one is still being dealt with.

What must hold is looked at after every rule. Where all tasks wait it is looked at exactly: who runs, who waits, and for
which reason a job has ended.
"""

from __future__ import annotations

from math import inf
from typing import Any

import hypothesis.strategies as st
import trio
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.sizes import size

from dk_trio.admission import Admission
from dk_trio.errors import DkTrioError, JobNotFoundError, SessionEndedError
from dk_trio.jobs import Jobs
from dk_trio.lifecycle import OUTCOMES, TRANSITIONS, Outcome, Reason, SessionOptions, State
from dk_trio.module import ModuleDefinition, RequestMetadata, SessionIds
from dk_trio.session import ABANDON_AFTER, Session
from dk_trio.settings import TaskSettings
from dk_trio.signals import LocalSignals, Signal, SignalAction

from .acts import Act, Job, Ledger, Plan
from .steps import Steps

STALL = 3.0
"""Seconds for which an output waits for a reader that reads nothing."""

ACTS: list[Act] = ["send", "send", 1.0, 2.0, 5.0, "burst", "swallow", "shield", "stuck"]
LAST: list[tuple[Act, ...]] = [(), (), (), ("raise",), ("exit",), ("spoil",), ("leave open",)]
PLANS = st.builds(
    Plan,
    acts=st.builds(
        lambda acts, last: (*acts, *last), st.lists(st.sampled_from(ACTS), max_size=4), st.sampled_from(LAST)
    ),
    initialize=st.sampled_from([0, 1]),
    cleanup=st.sampled_from([0, 0.5, 2, 20]),
    parting=st.booleans(),
    fails=st.sampled_from(["", "", "", "initialize", "cleanup"]),
)
TASKS = st.builds(
    TaskSettings,
    max_concurrent_tasks=st.integers(1, 4),
    max_queued_tasks=st.integers(0, 4),
    admission_timeout=st.sampled_from([60, 60, 60, 1, 0]),
    task_wait_timeout=st.sampled_from([60, 60, 60, 1, 0]),
    queue_slot_timeout=st.sampled_from([None, None, None, 1]),
)
OPTIONS = st.builds(
    SessionOptions,
    completion_timeout=st.sampled_from([3.0, 10.0]),
    cleanup_grace=st.sampled_from([1.0, 3.0]),
    execution_timeout=st.sampled_from([None, None, 6.0]),
)
ENDED = {State.STOPPED, State.FAILED, State.CANCELLED}
WHICH = st.integers(0, 7)
INTERRUPTIONS = [Reason.CLIENT_GONE, Reason.DEADLINE, Reason.SHUTDOWN]
SIGNALS = {SignalAction.CANCEL: Reason.SIGNAL_CANCEL, SignalAction.STOP: Reason.SIGNAL_STOP}


class WatchedSession(Session):
    """Notes the states that it goes through, and refuses a way that is not in the table."""

    @property
    def state(self) -> State:  # type: ignore[override]
        return self.states[-1]

    @state.setter
    def state(self, state: State) -> None:
        states = self.__dict__.setdefault("states", [])
        assert not states or state in TRANSITIONS[states[-1]], (states, state)
        states.append(state)


class Call:
    """One StartModule, without a wire: its caller, its stream, and what is known about its end."""

    def __init__(self, machine: SessionMachine, job: Job, *, parks: bool) -> None:
        self.job = job
        self.scope = trio.CancelScope()
        self.resumed = trio.Event()
        self.resumed.set()
        self.delivered: list[dict[str, Any]] = []
        self.abandoned: list[DkTrioError] = []
        self.interruption = Reason.CLIENT_GONE
        self.inside = False
        self.came_at = self.ended_at = inf
        self.outcome: Outcome | None = None
        self.stalled = False
        # From the first strike on: when it came, and the reason if there can be no other.
        self.struck_at = inf
        self.expected: Reason | None = None
        self.grace = machine.options.cleanup_grace
        self._parks = parks
        self._jobs = machine.jobs
        self.session = WatchedSession(
            machine.definition,
            ids=SessionIds(job_id=job.name, mission_id=job.name, setup_id="setups:s", setup_version_id="v"),
            input_data=machine.definition.parse_input({"root": {"protocol": "message"}}),
            setup_data=machine.definition.parse_setup({}, setup_id="setups:s"),
            deliver=self._deliver,
            interruption=lambda: self.interruption,
            abandon=self.abandoned.append,
            on_cancelled=machine.jobs.expect_end,
            admission=machine.admission,
            signals=machine.signals,
            request_metadata=RequestMetadata(),
            options=machine.options,
        )

    async def run(self) -> None:
        self.inside = True
        self.came_at = trio.current_time()
        try:
            with self.scope:
                self.outcome = await self._jobs.run(self.session)
        finally:
            self.inside = False
            self.ended_at = trio.current_time()

    async def _deliver(self, output: dict[str, Any]) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        if self.abandoned or (self.scope.cancel_called and self.interruption is Reason.CLIENT_GONE):
            raise SessionEndedError("there is no caller any more")
        if not self.resumed.is_set():
            with trio.move_on_after(STALL) as scope:
                await self.resumed.wait()
            if scope.cancelled_caught:
                raise trio.TooSlowError("nothing was read")
        self.delivered.append(output["root"])
        if self._parks:
            await trio.lowlevel.checkpoint()
        else:
            await trio.lowlevel.checkpoint_if_cancelled()

    @property
    def must_end_by(self) -> float:
        """When it is over at the latest, after a strike."""
        return self.struck_at + self.job.plan.shielded + self.grace


class SessionMachine(RuleBasedStateMachine):
    """Its rules are what the world can do."""

    @initialize(seed=st.integers(0, 2**32), tasks=TASKS, options=OPTIONS)
    def begin(self, seed: int, tasks: TaskSettings, options: SessionOptions) -> None:
        self.steps = Steps(seed)
        self.options = options
        self.grace = min(options.cleanup_grace, options.completion_timeout)
        self.patience = min(tasks.slot_wait.seconds, tasks.admission_timeout if tasks.max_queued_tasks else inf)
        self.ledger = Ledger({})
        self.definition = ModuleDefinition.of(self.ledger.module())
        self.admission = Admission(tasks)
        self.jobs = Jobs()
        self.signals = LocalSignals()
        self.calls: list[Call] = []
        self.settled = True
        self.shutting_down = False
        self.stuck: list[Session] | None = None
        self.watching = trio.CancelScope()
        self.steps.do(self._begin)

    async def _begin(self) -> None:
        self.steps.nursery.start_soon(self._watch)

    async def _watch(self) -> None:
        with self.watching, self.signals.observe(self._note):
            await self.jobs.watch()

    # -- rules --------------------------------------------------------------------------------------------------------

    @rule(plan=PLANS, parks=st.booleans(), settle=st.booleans())
    def start(self, plan: Plan, parks: bool, settle: bool) -> None:
        """A caller comes."""
        self._do(settle, self._start, plan, parks)

    @rule(plan=PLANS, count=st.integers(2, 3), settle=st.booleans())
    def burst(self, plan: Plan, count: int, settle: bool) -> None:
        """Several callers come at once."""
        for _ in range(count):
            self._do(False, self._start, plan, False)
        if settle:
            self._settle()

    async def _start(self, plan: Plan, parks: bool) -> None:
        job = self.ledger.add(f"job {len(self.calls)}", plan)
        call = Call(self, job, parks=parks)
        self.calls.append(call)
        if self.shutting_down:
            self._struck(call, Reason.SHUTDOWN if self.settled else None)
        self.steps.nursery.start_soon(call.run, name=job.name)

    @rule(seconds=st.sampled_from([0.5, 1, 2, 10, 40]), settle=st.booleans())
    def pass_time(self, seconds: float, settle: bool) -> None:
        self._do(settle, trio.sleep, seconds)

    @precondition(lambda self: self.calls)
    @rule(which=WHICH, settle=st.booleans())
    def stop(self, which: int, settle: bool) -> None:
        """StopModule."""
        self._do(settle, self._stop, self._call(which))

    async def _stop(self, call: Call) -> None:
        untouched = call.session._reason is None
        try:
            self.jobs.stop(call.job.name, Reason.STOP_MODULE, "struck")
        except JobNotFoundError:
            assert not call.inside
        else:
            assert call.inside
            self._struck(call, Reason.STOP_MODULE if untouched else None)

    @precondition(lambda self: self.calls)
    @rule(which=WHICH, action=st.sampled_from([*SIGNALS]), settle=st.booleans())
    def signal(self, which: int, action: SignalAction, settle: bool) -> None:
        """A signal comes for a job."""
        self._do(settle, self._signal, self._call(which), action)

    async def _signal(self, call: Call, action: SignalAction) -> None:
        untouched = call.session._reason is None
        heard = self.signals.send(Signal(task_id=call.job.name, action=action))
        assert heard == call.inside or not self.settled
        if heard:
            self._struck(call, SIGNALS[action] if untouched else None)

    @precondition(lambda self: self.calls)
    @rule(which=WHICH, reason=st.sampled_from(INTERRUPTIONS), settle=st.booleans())
    def interrupt(self, which: int, reason: Reason, settle: bool) -> None:
        """The scope around a call is cancelled."""
        self._do(settle, self._interrupt, self._call(which), reason)

    async def _interrupt(self, call: Call, reason: Reason) -> None:
        if call.inside and not call.scope.cancel_called:
            call.interruption = reason
            call.scope.cancel()
            exact = self.settled and call.session._reason is None
            self._struck(call, reason if exact else None)

    def _call(self, which: int) -> Call:
        """One of the calls that are here, or else of all."""
        calls = [call for call in self.calls if call.inside] or self.calls
        return calls[which % len(calls)]

    def _struck(self, call: Call, reason: Reason | None) -> None:
        """Note a strike, and the reason if the job can have no other now."""
        call.struck_at = min(call.struck_at, trio.current_time())
        if reason is not None:
            call.expected = reason

    @precondition(lambda self: self.calls)
    @rule(which=WHICH, settle=st.booleans())
    def stall_or_resume(self, which: int, settle: bool) -> None:
        """A caller stops reading, or reads again."""
        self._do(settle, self._stall_or_resume, self._call(which))

    async def _stall_or_resume(self, call: Call) -> None:
        if call.resumed.is_set():
            call.resumed = trio.Event()
            call.stalled = True
        else:
            call.resumed.set()

    @precondition(lambda self: not self.shutting_down and len(self.calls) > 9)
    @rule(settle=st.booleans())
    def shut_down(self, settle: bool) -> None:
        self._do(settle, self._begin_to_shut_down)

    async def _begin_to_shut_down(self) -> None:
        self.shutting_down = True
        self.steps.nursery.start_soon(self._shut_down, list(self.calls), self.settled)

    async def _shut_down(self, calls: list[Call], settled: bool) -> None:
        # Noted in the step that strikes them: until then another rule may be first, and its reason stays.
        for call in calls:
            if call.session.outcome is None:
                exact = settled and call.session._reason is None
                self._struck(call, Reason.SHUTDOWN if exact else None)
        self.stuck = await self.jobs.shut_down()

    def _do(self, settle: bool, function: Any, *arguments: Any) -> None:
        self.steps.do(function, *arguments)
        self.settled = False
        if settle:
            self._settle()

    def _settle(self) -> None:
        self.steps.settle()
        self.settled = True

    # -- what must hold -----------------------------------------------------------------------------------------------

    def _note(self, signal: Signal) -> None:
        if signal.action is SignalAction.START:
            self._check_order(signal.task_id)
        self.ledger.note(signal)

    def _check_order(self, name: str) -> None:
        """Nobody who came earlier waits on, when a job begins."""
        granted = {task.name for task in self.admission._slot.statistics().borrowers}
        assert name in granted
        for call in self.calls:
            if call.job.name == name:
                break
            # Who was struck, or has waited for as long as may be, may not have run since.
            leaves = call.struck_at < inf or trio.current_time() - call.came_at >= self.patience
            waits = call.inside and call.session.state is State.CREATED and call.job.name not in granted
            assert leaves or not waits, (call.job.name, name)

    @invariant()
    def it_holds(self) -> None:
        """All of what must hold."""
        self._table_is_what_runs()
        self._capacity_is_conserved()
        self._nobody_hangs()
        for call in self.calls:
            if not call.inside and call.session.outcome is not None:
                self._check_end(call)

    def _table_is_what_runs(self) -> None:
        assert list(self.jobs) == [call.session for call in self.calls if call.inside]

    def _capacity_is_conserved(self) -> None:
        now = self.admission.statistics()
        assert now.running <= now.slots
        assert now.running <= now.admitted <= now.slots + now.queue
        if self.settled:
            assert now.running == sum(call.job.holds_slot for call in self.calls)
            waiting = [call for call in self.calls if call.inside and call.session.state is State.CREATED]
            assert now.queued + now.at_gate == len(waiting) == self.jobs.statistics().queued
            assert now.admitted == now.running + (now.queued if now.queue else 0)

    def _nobody_hangs(self) -> None:
        if not self.settled:
            return
        now = self.steps.now()
        for call in self.calls:
            if call.inside:
                assert now <= call.must_end_by, call.session
                late = now - call.struck_at - self.options.cleanup_grace - ABANDON_AFTER
                assert len(call.abandoned) >= (late >= 0), call.session

    def _check_end(self, call: Call) -> None:
        session, job = call.session, call.job
        outcome = session.outcome
        assert outcome is not None
        assert session.state is outcome.row.state
        assert session.state in ENDED
        assert (outcome.error is None) == (outcome.reason is Reason.COMPLETED)
        assert outcome.error is None or isinstance(outcome.error, OUTCOMES[outcome.reason].error), outcome
        if call.outcome is None:
            assert call.scope.cancelled_caught
        else:
            assert call.outcome is outcome
        late = call.ended_at - call.struck_at - self.options.cleanup_grace - ABANDON_AFTER
        assert (late > 0) <= len(call.abandoned) <= 1, session
        assert call.ended_at <= call.must_end_by, session
        signalled = job.check(grace=self.grace)
        assert signalled in {None, outcome.reason}
        assert (signalled is None) == (session.states[1] is not State.STARTING)
        limit = inf if self.options.execution_timeout is None else self.options.execution_timeout
        assert job.handled_at == inf or job.handled_at - job.began_at <= limit + job.plan.shielded, session
        self._check_reason(call, outcome.reason)
        self._check_outputs(call, outcome.reason)

    def _check_reason(self, call: Call, reason: Reason) -> None:
        plan, options = call.job.plan, self.options
        if call.expected is not None:
            assert reason is call.expected, call.session
        elif call.struck_at == inf:
            allowed = {Reason.FAILED if plan.fails_by_itself else Reason.COMPLETED}
            if not call.job.count(SignalAction.START):
                allowed = {Reason.REFUSED}
            elif options.execution_timeout is not None or plan.cleanup >= options.completion_timeout or call.stalled:
                allowed.add(Reason.TIMEOUT)
            assert reason in allowed, call.session

    def _check_outputs(self, call: Call, reason: Reason) -> None:
        protocols = [root["protocol"] for root in call.delivered]
        job = call.job
        numbers = [root["number"] for root in call.delivered if "number" in root]
        assert set(job.sent) <= set(numbers), job
        job.check_received(numbers, complete=reason is Reason.COMPLETED)
        assert "module_start_info" not in protocols[1:]
        assert "end_of_stream" not in protocols[:-1]
        if reason is Reason.COMPLETED:
            assert (protocols[0], protocols[-1]) == ("module_start_info", "end_of_stream")

    def teardown(self) -> None:
        """Everything ends by itself now, or is ended; then nothing is left."""
        if not hasattr(self, "steps"):
            return
        try:
            for call in self.calls:
                call.resumed.set()
            self.steps.pass_time(5000)
            self._settle()
            for call in self.calls:
                assert not call.inside, call.session
                self._check_end(call)
            self.steps.do(self._send_after_the_end)
            self.watching.cancel()
            self._settle()
            self._check_empty()
        finally:
            self.steps.close()

    async def _send_after_the_end(self) -> None:
        for call in self.calls:
            if call.job.context is not None:
                delivered = len(call.delivered)
                try:
                    await call.job.context.send({"protocol": "message"})
                except SessionEndedError:
                    assert len(call.delivered) == delivered
                else:
                    raise AssertionError(f"{call.job.name} could send after its end")

    def _check_empty(self) -> None:
        now = self.admission.statistics()
        assert (now.running, now.queued, now.at_gate, now.admitted) == (0, 0, 0, 0)
        assert not self.admission._door.locked()
        assert not self.signals._listeners
        ended = self.jobs.statistics().ended
        assert sum(ended.values()) == len(self.calls)
        assert ended.get(Reason.REFUSED, 0) == now.rejected_by_gate + now.rejected_by_slot
        assert not self.steps.nursery.child_tasks
        if self.shutting_down:
            assert self.stuck is not None
            # It waits for a cleanup, for ABANDON_AFTER, and a second more.
            for session in self.stuck:
                assert self.ledger[session.ids.job_id].plan.shielded > ABANDON_AFTER


TestSessionMachine = SessionMachine.TestCase
TestSessionMachine.settings = settings(
    deadline=None, max_examples=size(50, 1000), stateful_step_count=30, print_blob=True
)
