"""One StartModule: the module's body in a cancel scope, its cleanup, and the first and last message of its stream.

What a session guarantees:

- The first output is `module_start_info`; `end_of_stream` is the last, and is sent only when everything went well.
- `cleanup` runs exactly once when `initialize` began, after success, failure and cancellation. It is shielded from the
  cancellation that may have caused it, and bounded by `SessionOptions.cleanup_grace`: nobody waits for ever.
- `run()` returns on success, raises one `DkTrioError` that says why the job failed, or lets `trio.Cancelled` of an
  outer scope pass: the caller is gone, and there is nobody to tell.
- A `send` that returned has handed its output to the stream. There is no queue here to lose it from; a slow reader
  holds the author's `send`, and several senders take turns there.

What it does not do: know gRPC (the servicer gives it a function that delivers one output), or keep a table of sessions
(the servicer's table is the set of sessions that are inside `run`).
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import trio
from grpclib.exceptions import GRPCError
from pydantic import BaseModel

from dk_trio.errors import (
    CleanupFailedError,
    DkTrioError,
    InitializeFailedError,
    InvalidOutputError,
    JobStoppedError,
    ModuleFailedError,
    SessionEndedError,
)
from dk_trio.module import (
    DataModel,
    EndOfStreamOutput,
    ModuleContext,
    ModuleDefinition,
    ModuleStartInfoOutput,
    Output,
    RequestMetadata,
    SessionIds,
    TrioModule,
    system_output,
)

_log = logging.getLogger("dk_trio.session")

Deliver = Callable[[dict[str, Any]], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionOptions:
    """Times of a session.

    Attributes:
        cleanup_grace: Seconds that `cleanup` may take. Ten: a third of the 30 s that Kubernetes gives a pod to end, so
            that a drain and a cleanup fit together.
    """

    cleanup_grace: float = 10.0


class Session:
    """One job of a module.

    Args:
        definition: The module.
        ids: The ids of the job.
        input_data: The parsed input.
        setup_data: The parsed setup.
        deliver: Puts one output, a dict of JSON values, on the stream; returns when the stream has taken it.
        request_metadata: The caller's metadata.
        options: Times.
    """

    def __init__(
        self,
        definition: ModuleDefinition,
        *,
        ids: SessionIds,
        input_data: Any,
        setup_data: Any,
        deliver: Deliver,
        request_metadata: RequestMetadata | None = None,
        options: SessionOptions | None = None,
    ) -> None:
        self.ids = ids
        self._definition = definition
        self._input = input_data
        self._setup = setup_data
        self._deliver = deliver
        self._options = options or SessionOptions()
        self._context = ModuleContext(session=ids, send=self._send, request_metadata=request_metadata)
        self._scope = trio.CancelScope()
        self._ended = False
        self._completed = False
        self._stop_reason: str | None = None

    def __repr__(self) -> str:
        state = "ended" if self._ended else f"stopping: {self._stop_reason}" if self._stop_reason else "open"
        return f"<Session {self.ids.job_id} of {self._definition.name}, {state}>"

    def stop(self, reason: str) -> None:
        """Cancel the job at its next checkpoint; returns at once. Cleanup still runs.

        Args:
            reason: Told to the caller of StartModule.
        """
        if self._stop_reason is None:
            self._stop_reason = reason
        self._scope.cancel(reason)

    async def run(self) -> None:
        """Run the job from its first message to its last.

        Raises:
            InitializeFailedError: `initialize` raised.
            ModuleFailedError: The handler, or an overridden `run`, raised. The cause is the author's exception.
            CleanupFailedError: The job was done, but `cleanup` raised or took too long.
            JobStoppedError: `stop` was called before the job ended.
            DkTrioError: As raised by the author's code on purpose.
        """
        try:
            with self._authors_code(ModuleFailedError), self._scope:
                await self._body()
        except DkTrioError:
            if self._stop_reason is None:
                raise
            # The stop came first: whatever the author's code raised on its way out is in the log.
        finally:
            self._ended = True
        if self._stop_reason is not None and not self._completed:
            raise JobStoppedError(f"Job {self.ids.job_id} was stopped: {self._stop_reason}.")

    async def _body(self) -> None:
        await self._deliver(self._start_info())
        with self._authors_code(InitializeFailedError):
            module = self._definition.cls()
        module.enter(self._context, self._definition.triggers)
        done = False
        try:
            with self._authors_code(InitializeFailedError):
                await module.initialize(self._context, self._setup)
            with self._authors_code(ModuleFailedError):
                await self._run_module(module)
            done = True
        finally:
            await self._cleanup(module, must_succeed=done)
        await self._deliver(system_output(EndOfStreamOutput()))
        self._completed = True

    def _run_module(self, module: TrioModule[Any, Any, Any, Any]) -> Awaitable[None]:
        if self._definition.run_takes_context:
            run: Any = module.run
            with_context: Awaitable[None] = run(self._input, self._setup, self._context)
            return with_context
        return module.run(self._input, self._setup)

    async def _cleanup(self, module: TrioModule[Any, Any, Any, Any], *, must_succeed: bool) -> None:
        """Run `cleanup` once. Its failure is the job's failure only when the job had none of its own."""
        grace = self._options.cleanup_grace
        cleanup: Any = module.cleanup
        try:
            with self._authors_code(CleanupFailedError), trio.move_on_after(grace, shield=True) as scope:
                await (cleanup(self._context) if self._definition.cleanup_takes_context else cleanup())
        except DkTrioError:
            if must_succeed:
                raise
            return
        if scope.cancelled_caught:
            message = f"cleanup took longer than {grace:g} s and was cancelled"
            _log.warning("job %s: %s", self.ids.job_id, message)
            if must_succeed:
                raise CleanupFailedError(message)

    async def _send(self, output: Output) -> None:
        if self._ended:
            raise SessionEndedError(f"Job {self.ids.job_id} has ended; this output has nowhere to go.")
        await self._deliver(output_dict(output))

    @contextmanager
    def _authors_code(self, kind: type[ModuleFailedError]) -> Iterator[None]:
        """The boundary around an author's code: whatever it raises is this job's failure, and only this job's.

        Logs the author's traceback and raises `kind`. A `DkTrioError` that the author raised stays what it is.
        SystemExit, a panic of a Rust extension, asyncio's CancelledError count, alone or out of a nursery: a module
        must not end the server.
        """
        try:
            yield
        except BaseException as error:
            passing, own = _split(error)
            if passing is not None:
                if own is not None:
                    _log.error("job %s: failed while it was cancelled", self.ids.job_id, exc_info=own)
                    raise passing from None
                raise
            cause = _cause(error)
            if isinstance(cause, DkTrioError):
                raise cause from cause.__cause__
            _log.error("job %s: %s", self.ids.job_id, kind.short_description, exc_info=error)
            raise kind(explain_failure(error)) from cause

    def _start_info(self) -> dict[str, Any]:
        ids = self.ids
        info = ModuleStartInfoOutput(
            job_id=ids.job_id,
            mission_id=ids.mission_id,
            setup_id=ids.setup_id,
            setup_version_id=ids.setup_version_id,
            module_id=self._definition.id,
            module_name=self._definition.name,
        )
        return system_output(info)


def output_dict(output: Output) -> dict[str, Any]:
    """An author's output as the dict that goes on the wire. Dicts are not copied, models are dumped once.

    Raises:
        InvalidOutputError: It is neither a model nor a mapping.
    """
    if isinstance(output, dict):
        return output if "root" in output else {"root": output, "annotations": {}}
    if isinstance(output, BaseModel):
        dumped = output.model_dump(mode="json")
        if isinstance(output, DataModel) or "root" in dumped:
            return dumped
        return {"root": dumped, "annotations": {}}
    raise InvalidOutputError(
        f"An output is a {type(output).__name__}: {output!r:.80}.",
        hint="Send an output model, a trigger, or a dict of JSON values.",
    )


def _passes(error: BaseException) -> bool:
    return isinstance(error, (trio.Cancelled, KeyboardInterrupt, GeneratorExit))


def _split(error: BaseException) -> tuple[BaseException | None, BaseException | None]:
    """What is not an author's failure and goes on (cancellation, Ctrl-C), apart from what is."""
    if isinstance(error, BaseExceptionGroup):
        return error.split(_passes)
    return (error, None) if _passes(error) else (None, error)


def _cause(error: BaseException) -> BaseException:
    """The one exception inside a group of one; other errors as they are."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def explain_failure(error: BaseException) -> str:
    """What an author's exception says, for the caller: `ValueError: no such file`; of a group all that it holds."""
    error = _cause(error)
    if isinstance(error, BaseExceptionGroup):
        parts = "; ".join(explain_failure(part) for part in error.exceptions)
        return f"{len(error.exceptions)} errors: {parts}"
    if isinstance(error, GRPCError):  # of a call that the module made; its own text is a tuple
        return f"{error.status.name}: {error.message}"
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
