"""What is counted as it happens: how RPCs and jobs have ended. Everything else is asked for when somebody scrapes."""

from __future__ import annotations

from math import inf
from types import TracebackType
from typing import Final

import trio
from grpclib.const import Status

from dk_trio.hooks import Job, JobHook
from dk_trio.lifecycle import Reason
from dk_trio.rpc import CallInfo

from ._metric_names import JOB_SECONDS, OUTPUTS, RPC_SECONDS, WAIT_SECONDS
from ._metric_values import Book, Histogram

_CODES: Final = max(status.value for status in Status) + 1
_ADMITTED: Final[list[Reason]] = [reason for reason in Reason if reason is not Reason.REFUSED]


class _Method:
    __slots__ = ("codes", "seconds")

    def __init__(self) -> None:
        self.codes = [0] * _CODES
        self.seconds = Histogram(RPC_SECONDS)


class RpcCounts:
    """How RPCs have ended. Called with a call, it is an interceptor for servers."""

    def __init__(self) -> None:
        # By path: a server lets only calls of its own methods come as far as here, so nobody can make this grow.
        self._methods: dict[str, _Method] = {}

    def __call__(self, call: CallInfo) -> _Counted:
        """Count one call."""
        return _Counted(self, call)

    def ended(self, path: str, status: Status, seconds: float) -> None:
        """A call has ended."""
        method = self._methods.get(path)
        if method is None:
            method = self._methods[path] = _Method()
        method.codes[status.value] += 1
        method.seconds.observe(seconds)

    def tell(self, book: Book) -> None:
        """Write down what was counted."""
        for path, method in self._methods.items():
            _, service, name = path.split("/")
            book.count("rpc_duration_seconds", method.seconds, service, name)
            for code, count in enumerate(method.codes):
                if count:
                    book.add("rpcs_handled_total", count, service, name, Status(code).name)


class _Counted:
    """A class and not a generator: every call enters one."""

    __slots__ = ("_call", "_counts", "_since")

    def __init__(self, counts: RpcCounts, call: CallInfo) -> None:
        self._counts = counts
        self._call = call
        self._since = trio.current_time()

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        call = self._call
        self._counts.ended(call.path, call.status_for(error), trio.current_time() - self._since)


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
