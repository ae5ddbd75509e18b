"""What is counted as it happens: how RPCs and jobs have ended. Everything else is asked for when somebody scrapes."""

from __future__ import annotations

from math import inf
from typing import Final

from grpclib.const import Status

from dk_trio.hooks import Job, JobHook
from dk_trio.lifecycle import Reason
from dk_trio.rpc import CallInfo, Observer

from ._metric_names import JOB_SECONDS, OUTPUTS, RPC_SECONDS, WAIT_SECONDS
from ._metric_values import Book, Histogram

_CODES: Final = max(status.value for status in Status) + 1
_ADMITTED: Final[list[Reason]] = [reason for reason in Reason if reason is not Reason.REFUSED]


class _Method:
    """What was counted of a method; at the same time what watches each of its calls."""

    __slots__ = ("codes", "seconds")

    def __init__(self) -> None:
        self.codes = [0] * _CODES
        self.seconds = Histogram(RPC_SECONDS)

    def ended(self, status: Status, seconds: float) -> None:
        self.codes[status._value_] += 1  # as .value, which takes 0.5 µs
        self.seconds.observe(seconds)


class RpcCounts(Observer):
    """How RPCs have ended."""

    def __init__(self) -> None:
        # By path: a server lets only calls of its own methods come as far as here, so nobody can make this grow.
        self._methods: dict[str, _Method] = {}

    def watch(self, call: CallInfo) -> _Method:
        """Count a call."""
        method = self._methods.get(call.path)
        if method is None:
            method = self._methods[call.path] = _Method()
        return method

    def tell(self, book: Book) -> None:
        """Write down what was counted."""
        for path, method in self._methods.items():
            _, service, name = path.split("/")
            book.count("rpc_duration_seconds", method.seconds, service, name)
            for code, count in enumerate(method.codes):
                if count:
                    book.add("rpcs_handled_total", count, service, name, Status(code).name)


class _Module:
    __slots__ = ("ended", "outputs", "ran", "waited")

    def __init__(self) -> None:
        self.ended = dict.fromkeys(Reason, 0)
        self.ran: dict[Reason, Histogram] = {reason: Histogram(JOB_SECONDS) for reason in _ADMITTED}
        self.waited = Histogram(WAIT_SECONDS)
        self.outputs = Histogram(OUTPUTS)


class JobCounts(JobHook):
    """How jobs have ended, and how long they took, by module."""

    def __init__(self) -> None:
        self._modules: dict[str, _Module] = {}

    def ended(self, job: Job) -> None:
        """Count it."""
        outcome = job.outcome
        assert outcome is not None
        module = self._modules.get(job.module_name)
        if module is None:
            module = self._modules[job.module_name] = _Module()
        reason = outcome.reason
        module.ended[reason] += 1
        module.waited.observe(outcome.waited)
        if job.admitted_at != inf:  # otherwise it never had a slot
            module.ran[reason].observe(outcome.ran)
            module.outputs.observe(job.outputs)

    def tell(self, book: Book) -> None:
        """Write down what was counted."""
        for name, module in self._modules.items():
            book.count("job_wait_seconds", module.waited, name)
            book.count("job_outputs", module.outputs, name)
            for reason, count in module.ended.items():
                book.add("jobs_ended_total", count, name, reason.value)
                if count and reason in module.ran:
                    book.count("job_duration_seconds", module.ran[reason], name, reason.value)
