"""One StartModule, from its admission to the last message of its stream.

Theory of operation
-------------------
Two tasks. The RPC's own task is the supervisor: it waits for admission, starts the author's code, waits for its end
(cancelled or not: a cancellation is noted in the step in which it comes, and does not wake it), and sends
`end_of_stream`. The author's code (`initialize`, `run`, `cleanup`) runs in a task of its own in the session's
nursery, so that whatever it breaks ends with that task. The signal listener is no third task but a function: the task
that brings a `cancel` cancels the session's scope in the same step, so nothing can delay or drop it.

    nursery (its scope: stop, signals, execution and completion time)
      admission (gate and slot, held until the author's code is over)
        the author's task  |  the supervisor, which waits for it and sees every cancellation at once
      end_of_stream

What a session guarantees:

- It ends for exactly one reason, the first that came (`lifecycle.Reason`), and its `outcome` says which. One START and
  one STOP signal go out for each session that was admitted.
- The first output is `module_start_info`; `end_of_stream` is the last, and is sent only when everything went well.
- `cleanup` runs exactly once when `initialize` began, after success, failure and cancellation. It is shielded from the
  cancellation that may have caused it, and bounded: by `completion_timeout` after the module's own end, by
  `cleanup_grace` once the job is cancelled.
- A `send` that returned has handed its output to the stream. There is no queue here to lose it from; a slow reader
  holds the author's `send`, and several senders take turns there.
- Code that goes on although it was cancelled keeps its slot, because it still runs, but not its caller: `Jobs.watch`
  calls `give_up` after `cleanup_grace` and `ABANDON_AFTER`. The caller gets the status, the log says where the code is.

What it does not do: know gRPC (the servicer gives it functions), or keep a table of sessions (see `dk_trio.jobs`).
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from math import inf
from typing import TYPE_CHECKING, Any, Final

import trio
from trio.lowlevel import Abort, RaiseCancelT, Task, current_task, reschedule, wait_task_rescheduled

from dk_trio import buggify
from dk_trio.admission import Admission
from dk_trio.boundary import SWALLOWS, authors_code, explain_failure, from_nursery, left_open, places, split
from dk_trio.errors import (
    AdmissionError,
    CleanupFailedError,
    DkTrioError,
    InitializeFailedError,
    JobTimeoutError,
    ModuleFailedError,
    SessionEndedError,
)
from dk_trio.hooks import Job
from dk_trio.job_signals import ASKED, JobSignals
from dk_trio.lifecycle import FLUSH_GRACE, OUTCOMES, TRANSITIONS, Outcome, Reason, SessionOptions, State
from dk_trio.module import Environment, ModuleContext, ModuleDefinition, Output, RequestMetadata, SessionIds, TrioModule
from dk_trio.module._find_tools import find_tools
from dk_trio.module._output import output_dict
from dk_trio.module._system_messages import end_of_stream, module_start_info
from dk_trio.signals import LocalSignals, Signal, SignalExchange

if TYPE_CHECKING:
    from dk_trio.services.cost import CostLimit

_log = logging.getLogger("dk_trio.session")

ABANDON_AFTER: Final = 5.0
"""Seconds beyond `cleanup_grace` after which cancelled code that goes on is reported, and its caller is told."""

PROMPT: Final = 1.0
"""Seconds within which a cancelled handler may still return normally without being told about it."""

_PLACES_TOLD = 3
_OWN_CANCELLATION = (
    "A cancel scope was left open, or a Cancelled was kept and raised again outside of its scope, or a task that was "
    "started in a nursery of ours has failed."
)

Deliver = Callable[[dict[str, Any]], Awaitable[None]]


class Session:
    """One job of a module.

    Args:
        definition: The module.
        ids: The ids of the job.
        input_data: The parsed input.
        setup_data: The parsed setup.
        deliver: Puts one output, a dict of JSON values, on the stream; returns when the stream has taken it. Raises
            `trio.TooSlowError` when the caller reads nothing for too long.
        interruption: Why the surrounding scope was cancelled; asked only when it was.
        abandon: Tells the caller of an error without waiting; called at most once, while the module's code still runs.
        on_cancelled: Called when the module's code is cancelled while it runs. Must not wait.
        admission: What the job has to pass; None: nothing.
        signals: Where the job's signals go and come from.
        request_metadata: The caller's metadata.
        environment: Where the services of the context come from; None: there are none.
        cost_limits: What the caller has set.
        nested: Whether somebody who has a slot here waits for this job.
        options: Times.
        protocol: Of the input; empty when it names none.
        around: Entered around the author's code, in its task.

    Attributes:
        state: Where the job is in its life.
        outcome: How it has ended; None before.
        outputs: Messages that the stream has taken.
        created_at: When the job was made, `trio.current_time`.
        admitted_at: When it got its slot; inf before, and when it never got one.
    """

    def __init__(
        self,
        definition: ModuleDefinition,
        *,
        ids: SessionIds,
        input_data: Any,
        setup_data: Any,
        deliver: Deliver,
        interruption: Callable[[], Reason] = lambda: Reason.CLIENT_GONE,
        abandon: Callable[[DkTrioError], None] = lambda _: None,
        on_cancelled: Callable[[Session], None] = lambda _: None,
        admission: Admission | None = None,
        signals: SignalExchange | None = None,
        request_metadata: RequestMetadata | None = None,
        environment: Environment | None = None,
        cost_limits: Sequence[CostLimit] = (),
        nested: bool = False,
        options: SessionOptions | None = None,
        protocol: str = "",
        around: Callable[[Job], AbstractContextManager[object]] | None = None,
    ) -> None:
        self.ids = ids
        self.protocol = protocol
        self.outputs = 0
        self.state = State.CREATED
        self.outcome: Outcome | None = None
        self._definition = definition
        self._input = input_data
        self._setup = setup_data
        self._to_stream = deliver
        self._interruption = interruption
        self._abandon = abandon
        self._on_cancelled = on_cancelled
        self._admission = admission or Admission()
        self._nested = nested
        self._signals = JobSignals(signals or LocalSignals(), ids)
        self._around = around
        self._options = options or SessionOptions()
        self._context = ModuleContext(
            session=ids,
            send=self._send,
            request_metadata=request_metadata,
            environment=environment,
            cost_limits=cost_limits,
        )
        self.created_at = trio.current_time()
        self.admitted_at = inf
        self._scope: trio.CancelScope | None = None
        self._limit = ""  # what the scope's deadline stands for
        self._cleanup_scope: trio.CancelScope | None = None
        self._nursery: trio.Nursery | None = None
        self._supervisor: Task | None = None
        self._cancelled_at = inf
        self._closed = False
        self._reason: Reason | None = None
        self._error: DkTrioError | None = None

    def __repr__(self) -> str:
        state = self.state.value if self._reason is None else f"{self.state.value}: {self._reason.value}"
        return f"<Session {self.ids.job_id} of {self._definition.name}, {state}>"

    @property
    def module_name(self) -> str:
        """Name of the module."""
        return self._definition.name

    @property
    def request_metadata(self) -> RequestMetadata:
        """The caller's metadata."""
        return self._context.request_metadata

    @property
    def running(self) -> bool:
        """Whether code of the module may be running now."""
        return self.state in {State.STARTING, State.RUNNING, State.STOPPING}

    @property
    def patience(self) -> float:
        """Seconds after which cancelled code that goes on is reported, and its caller is told."""
        return self._options.cleanup_grace + ABANDON_AFTER

    def stop(self, reason: Reason, why: str) -> bool:
        """Cancel the job at its next checkpoint; returns at once. Cleanup still runs.

        Args:
            reason: One of those whose row in `OUTCOMES` has a `JobEndedError`.
            why: Told to the caller of StartModule.

        Returns:
            False when the job has ended or is ending for another reason; cleanup gets the shorter time all the same.
        """
        kind = OUTCOMES[reason].error
        assert kind is not None
        first = self._end(reason, kind(f"Job {self.ids.job_id} was stopped: {why}."))
        if self._scope is not None:
            self._scope.cancel(why)
        if first:
            self._signals.answer(reason)
        return first

    async def run(self) -> Outcome:
        """Run the job from its admission to its last message. Whatever happens to it is in the outcome.

        Raises:
            trio.Cancelled: A surrounding scope was cancelled: the caller is gone, or the server has cut the call.
                The outcome is set then too. Nothing else of the job passes, except KeyboardInterrupt.
        """
        try:
            async with trio.open_nursery() as nursery:
                scope = self._scope = nursery.cancel_scope
                if self._reason is not None:  # stopped before it began
                    scope.cancel()
                with self._signals.heard_by(self._on_signal):
                    await self._supervise(nursery)
        except BaseExceptionGroup as group:  # boundary: to the author's tasks; what is not theirs goes on below
            cause = from_nursery(group)
            if split(cause)[1] is None:
                try:
                    raise cause from None
                finally:
                    cause.__context__ = None  # its group. A cycle keeps what was not read until the next collection
                    del cause
            error = cause if isinstance(cause, DkTrioError) else ModuleFailedError(explain_failure(cause))
            _log.error("job %s: %s", self.ids.job_id, error.text, exc_info=None if error is cause else cause)
            self._end(Reason.FAILED, error)
        finally:
            self._settle()
        assert self.outcome is not None
        return self.outcome

    # -- the supervisor -----------------------------------------------------------------------------------------------

    async def _supervise(self, nursery: trio.Nursery) -> None:
        try:
            async with self._admission.admit(nested=self._nested):
                await buggify.at("admission.acquired")
                await self._execute(nursery)
            # A nursery that was left open has cancelled the scope, and its error comes out of the session's nursery.
            if self._reason is None and not nursery.cancel_scope.cancel_called:
                await buggify.at("session.ending")
                await self._output(end_of_stream())
                self._end(Reason.COMPLETED)
        except AdmissionError as error:
            self._end(Reason.REFUSED, error)
        except DkTrioError as error:
            self._end(Reason.FAILED, error)
        except trio.Cancelled:
            self._interrupted()
            raise

    async def _execute(self, nursery: trio.Nursery) -> None:
        """Run the author's code to its end. Raises nothing but cancellation."""
        now = self.admitted_at = trio.current_time()
        self._enter(State.STARTING)
        self._signals.start()
        limit = self._options.execution_timeout
        if limit is not None:
            nursery.cancel_scope.deadline = now + limit
            self._limit = f"ran for {limit:g} s (DIGITALKIN_EXECUTION_TIMEOUT)"
        self._nursery = nursery
        nursery.start_soon(self._authors_task, name=f"job {self.ids.job_id}")
        await self._authors_end()
        if nursery.child_tasks:  # of the author, who has found our nursery by way of trio.lowlevel
            self._end(Reason.FAILED, left_open())
            nursery.cancel_scope.cancel("the module has left tasks behind")

    async def _authors_end(self) -> None:
        """Wait until the author's code is over, also when it was cancelled: as long as it runs, it has its slot.

        A cancellation is noted in the step in which it comes. It does not wake this task: when many jobs are cancelled
        at once, each of them hears of it before any of them is wound up.
        """

        def cancelled(_: RaiseCancelT) -> Abort:
            self._cancelled_at = trio.current_time()
            self._interrupted()
            self._hurry()
            self._on_cancelled(self)
            return Abort.FAILED

        self._supervisor = current_task()
        await wait_task_rescheduled(cancelled)

    def give_up(self) -> None:
        """The module's code has not ended, long after it was cancelled: say where it is, and tell the caller."""
        self._closed = True
        assert self._nursery is not None
        _log.error(
            "job %s: its code goes on %g s after it was cancelled (%s): %s. It keeps its slot until it ends",
            self.ids.job_id,
            self.patience,
            "; ".join(places(self._nursery)[:_PLACES_TOLD]) or "not at an await",
            SWALLOWS,
        )
        assert self._error is not None
        self._abandon(self._error)

    def _on_signal(self, signal: Signal) -> None:
        reason = ASKED.get(signal.action)
        if reason is not None:
            self.stop(reason, f"a {signal.action} signal came")

    def _interrupted(self) -> None:
        """The session was cancelled: find the reason, unless there is one already."""
        if self._reason is not None:
            return
        if self._scope is not None and self._scope.deadline <= trio.current_time():
            text = f"Job {self.ids.job_id} was cancelled: it {self._limit}."
            self._end(Reason.TIMEOUT, JobTimeoutError(text, hint="Do less in one job, or raise the limit."))
        elif self._scope is not None and self._scope.cancel_called:  # not by us, who would have said why
            error = ModuleFailedError("The module was ended by a cancellation of its own.", hint=_OWN_CANCELLATION)
            _log.error("job %s: %s", self.ids.job_id, error.text)
            self._end(Reason.FAILED, error)
        else:
            reason = self._interruption()
            kind = OUTCOMES[reason].error
            assert kind is not None
            self._end(reason, kind(f"Job {self.ids.job_id} was interrupted: {reason.value.replace('_', ' ')}."))

    def _hurry(self) -> None:
        """The job is cancelled: a cleanup that is under way gets the shorter time from now on."""
        if self._cleanup_scope is not None:
            deadline = trio.current_time() + self._options.cleanup_grace
            self._cleanup_scope.deadline = min(self._cleanup_scope.deadline, deadline)

    # -- the author's task --------------------------------------------------------------------------------------------

    async def _authors_task(self) -> None:
        try:
            if self._around is None:
                await self._life()
            else:
                with self._around(self):
                    await self._life()
        except DkTrioError as error:
            # Unless it is the answer to a cancellation, which has been noted before this task could hear of it.
            self._end(Reason.FAILED, error)
        finally:
            self._closed = True
            supervisor, self._supervisor = self._supervisor, None
            assert supervisor is not None
            reschedule(supervisor)

    async def _life(self) -> None:
        job_id = self.ids.job_id
        await self._output(
            module_start_info(self.ids, module_id=self._definition.id, module_name=self._definition.name)
        )
        with authors_code(InitializeFailedError, job_id):
            module = self._definition.cls()
            module.enter(self._context, self._definition.triggers)
        try:
            with authors_code(InitializeFailedError, job_id):
                if self._definition.selects_tools:
                    await find_tools(self._context, self._setup)
                await module.initialize(self._context, self._setup)
            self._enter(State.RUNNING)
            with authors_code(ModuleFailedError, job_id):
                await self._run_module(module)
            late = trio.current_time() - self._cancelled_at
            if late > PROMPT:  # -inf unless it was cancelled
                _log.warning("job %s: its code went on for %.1f s after it was cancelled: %s", job_id, late, SWALLOWS)
        except DkTrioError as error:
            self._end(Reason.FAILED, error)  # before cleanup, in which other reasons may come
            raise
        finally:
            self._enter(State.STOPPING)
            self._complete()
            try:
                if self._definition.cls.cleanup is not TrioModule.cleanup:
                    await self._cleanup(module)
            finally:
                if self._context.uses_services:
                    await self._close_services()

    def _complete(self) -> None:
        """From now on COMPLETION_TIMEOUT bounds the job, unless it was cancelled and has less."""
        if self._cancelled():
            return
        assert self._scope is not None
        timeout = self._options.completion_timeout
        self._scope.deadline = trio.current_time() + timeout
        self._limit = f"took {timeout:g} s for cleanup and end_of_stream (DIGITALKIN_COMPLETION_TIMEOUT)"

    def _run_module(self, module: TrioModule[Any, Any, Any, Any]) -> Awaitable[None]:
        if self._definition.run_takes_context:
            run: Any = module.run
            with_context: Awaitable[None] = run(self._input, self._setup, self._context)
            return with_context
        return module.run(self._input, self._setup)

    async def _cleanup(self, module: TrioModule[Any, Any, Any, Any]) -> None:
        """Run `cleanup` once. Its failure is the job's failure only when nothing else has ended the job before."""
        started = trio.current_time()
        assert self._scope is not None
        deadline = started + self._options.cleanup_grace if self._cancelled() else self._scope.deadline
        cleanup: Any = module.cleanup
        self._cleanup_scope = trio.CancelScope(deadline=deadline, shield=True)
        with authors_code(CleanupFailedError, self.ids.job_id), self._cleanup_scope:
            await buggify.at("session.cleanup")
            await (cleanup(self._context) if self._definition.cleanup_takes_context else cleanup())
        if self._cleanup_scope.cancelled_caught:
            took = trio.current_time() - started
            _log.warning("job %s: cleanup took longer than %g s and was cancelled", self.ids.job_id, took)

    async def _close_services(self) -> None:
        """Write what waits to be written, then close the services, also when that hung."""
        services = self._context.services
        with authors_code(CleanupFailedError, self.ids.job_id):
            try:
                await self._in_time(services.flush)
            finally:
                await self._in_time(services.close)

    async def _in_time(self, step: Callable[[], Awaitable[None]]) -> None:
        """Do this in what is left of the time for cleanup, and in `FLUSH_GRACE` if that is longer."""
        now = trio.current_time()
        assert self._scope is not None
        if self._cleanup_scope is not None:
            deadline = self._cleanup_scope.deadline
        else:
            deadline = now + self._options.cleanup_grace if self._cancelled() else self._scope.deadline
        self._cleanup_scope = trio.CancelScope(deadline=max(deadline, now + FLUSH_GRACE), shield=True)
        with self._cleanup_scope:
            await step()
        if self._cleanup_scope.cancelled_caught:
            raise CleanupFailedError(
                f"The services of job {self.ids.job_id} did not close within {trio.current_time() - now:g} s; what "
                "they had not written is lost."
            )

    async def _send(self, output: Output) -> None:
        if self._closed:
            raise SessionEndedError(f"Job {self.ids.job_id} has ended; this output has nowhere to go.")
        await self._output(output_dict(output))

    # -- both ---------------------------------------------------------------------------------------------------------

    async def _output(self, output: dict[str, Any]) -> None:
        try:
            await self._to_stream(output)
            self.outputs += 1
        except trio.TooSlowError as error:
            text = f"Job {self.ids.job_id} was cancelled: {error}."
            hint = "Read faster, or raise DIGITALKIN_STREAM_DRAIN_TIMEOUT on the server."
            self._end(Reason.TIMEOUT, JobTimeoutError(text, hint=hint))
            assert self._scope is not None
            self._scope.cancel("the caller reads nothing")
            await trio.lowlevel.checkpoint_if_cancelled()
            # Under a shield, which only a cleanup has.
            raise SessionEndedError(f"Job {self.ids.job_id} has no reader any more: {error}.") from error

    def _cancelled(self) -> bool:
        return self._cancelled_at != inf or (self._scope is not None and self._scope.cancel_called)

    def _end(self, reason: Reason, error: DkTrioError | None = None) -> bool:
        """Note why the job ends; the first reason stays."""
        if self._reason is not None:
            return False
        self._reason = reason
        self._error = error
        return True

    def _enter(self, state: State) -> None:
        if state not in TRANSITIONS[self.state]:
            raise RuntimeError(f"{self!r} cannot become {state.value}")
        self.state = state

    def _settle(self) -> None:
        """The job is over: its state, its outcome and its STOP signal."""
        if self._reason is None:  # its own scope was cancelled, or a defect of ours passes through
            self._interrupted()
        assert self._reason is not None
        now = trio.current_time()
        admitted = self.admitted_at != inf
        self.outcome = Outcome(
            reason=self._reason,
            error=self._error,
            waited=(self.admitted_at if admitted else now) - self.created_at,
            ran=now - self.admitted_at if admitted else 0.0,
        )
        row = OUTCOMES[self._reason]
        self._enter(row.state)
        if admitted:
            self._signals.stop(self._reason, None if self._error is None else self._error.text)
