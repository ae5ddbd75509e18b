"""ModuleService on the wire: messages to sessions and back.

StartModule is served by a handler on the stream itself and not by a generator of responses: the author's `send` then
awaits the HTTP/2 stream directly, and cleanup ends inside the RPC. A failed job sends one response with `success=false`
and `output={code, message, short_description}`, then a status that is not OK: callers that look only at outputs and
callers that look only at the status both see it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from math import inf
from typing import Any, Final

import trio
from grpclib.exceptions import ProtocolError, StreamTerminatedError

from dk_trio import chance, rpc
from dk_trio.admission import Admission
from dk_trio.config_setup import ConfigSetup
from dk_trio.errors import (
    AdmissionError,
    DkTrioError,
    InvalidInputError,
    InvalidOutputError,
    InvalidSetupError,
    SessionEndedError,
    Violation,
)
from dk_trio.healthchecks import HealthChecks
from dk_trio.hooks import JobHook, around_of
from dk_trio.jobs import Jobs
from dk_trio.lifecycle import Reason, SessionOptions
from dk_trio.module import Environment, ModuleDefinition, RequestMetadata, SessionIds
from dk_trio.module._cost_limits import parse_cost_limits
from dk_trio.module._system_messages import end_of_stream, module_start_info
from dk_trio.module._utility import UTILITY_PROTOCOLS
from dk_trio.pb import DecodeError
from dk_trio.pb.agentic_mesh_protocol.module.v1 import (
    ConfigSetupModuleRequest,
    ConfigSetupModuleResponse,
    GetConfigSetupModuleRequest,
    GetConfigSetupModuleResponse,
    GetModuleCostRequest,
    GetModuleCostResponse,
    GetModuleInputRequest,
    GetModuleInputResponse,
    GetModuleJobsRequest,
    GetModuleJobsResponse,
    GetModuleOutputRequest,
    GetModuleOutputResponse,
    GetModuleSecretRequest,
    GetModuleSecretResponse,
    GetModuleSelectInputRequest,
    GetModuleSelectInputResponse,
    GetModuleSetupRequest,
    GetModuleSetupResponse,
    GetModuleStatusRequest,
    GetModuleStatusResponse,
    JobInfo,
    ModuleServiceBase,
    StartModuleRequest,
    StartModuleResponse,
    StopModuleRequest,
    StopModuleResponse,
)
from dk_trio.pb.agentic_mesh_protocol.setup.v1 import SetupVersion as SetupVersionMessage
from dk_trio.pb.google.protobuf import Struct
from dk_trio.refusals import log_refusal
from dk_trio.schemas import ModuleSchemas
from dk_trio.services.communication import HOLDS
from dk_trio.services.setup import SetupVersion
from dk_trio.services.setup_cache import SetupCache
from dk_trio.session import ABANDON_AFTER, Session
from dk_trio.settings import LifecycleSettings, ServicesSettings
from dk_trio.siblings import JobDirectory
from dk_trio.signals import SignalExchange
from dk_trio.statuses import status_of

LAST_WORDS: Final = 1.0
"""Seconds for the message that says why a job has failed. Its status follows in any case, and needs no room."""


class ModuleServicer(ModuleServiceBase):
    """Answers the calls of one module class; `dk_trio.routing` puts it on the wire.

    Args:
        definition: The module.
        jobs: Runs its jobs.
        directory: Finds jobs here, and with siblings.
        config_setups: Where its configurations are while they are here.
        setups: Where setups come from; it must be open while jobs start.
        admission: What StartModule and ConfigSetupModule have to pass.
        signals: Where signals of jobs go and come from.
        environment: Where the services of contexts come from; None: there are none.
        store: Stores a setup that was configured here, before its caller is answered; whether it does. None: nobody.
        configured: Called with the id of each setup that was configured here and is not stored.
        accepting: Whether new jobs are welcome; health checks tell it.
        session_options: Times of each session.
        settings: Times of streams and of config setup.
        hooks: Around each job.
        threads: Limits the threads that run the author's synchronous code; None: each fetcher has a limit of its own.

    Attributes:
        health_checks: Answers the health checks that come as inputs.
    """

    def __init__(
        self,
        definition: ModuleDefinition,
        *,
        jobs: Jobs,
        directory: JobDirectory,
        config_setups: set[ConfigSetup],
        setups: SetupCache,
        admission: Admission,
        signals: SignalExchange,
        environment: Environment | None = None,
        accepting: Callable[[], bool] = lambda: True,
        store: Callable[[SetupVersion], Awaitable[bool]] | None = None,
        configured: Callable[[str], None] = lambda _: None,
        session_options: SessionOptions,
        settings: LifecycleSettings,
        hooks: Sequence[JobHook] = (),
        threads: trio.CapacityLimiter | None = None,
    ) -> None:
        self.jobs = jobs
        self.directory = directory
        self.config_setups = config_setups
        self._around = around_of(hooks)
        self._definition = definition
        self._setups = setups
        self._admission = admission
        self._signals = signals
        self._environment = environment
        self._store = store
        self._configured = configured
        self.health_checks = HealthChecks(definition, jobs=self.jobs, environment=environment, accepting=accepting)
        self._session_options = session_options
        self._schemas = ModuleSchemas(
            definition,
            None if environment is None else environment.config,
            fetch_timeout=(ServicesSettings() if environment is None else environment.settings).fetch_timeout,
            threads=threads,
        )
        self._timezone = (ServicesSettings() if environment is None else environment.settings).timezone
        self._settings = settings

    def __repr__(self) -> str:
        return f"<ModuleServicer {self._definition.name}, {self.jobs!r}, {self._admission!r}>"

    # --- jobs --------------------------------------------------------------------------------------------------------

    async def start(self, request: StartModuleRequest | None, stream: rpc.ServerCall) -> None:
        """Answer StartModule on the stream itself.

        Raises:
            GRPCError: The job's status, unless it is OK.
        """
        stream.send_timeout = self._settings.stream_drain_timeout
        job_id = ""  # a refused request has no job
        try:
            if request is None:
                raise InvalidInputError("The request stream ended without a StartModuleRequest.")
            input_data = _dict(request.input, "input")
            root = input_data.get("root")
            protocol = root.get("protocol") if isinstance(root, dict) else None
            if isinstance(protocol, str) and protocol in UTILITY_PROTOCOLS:
                await self._check_health(protocol, request, stream)
                return
            session = await self._session(input_data, request, stream, protocol if isinstance(protocol, str) else "")
            outcome = await self.jobs.run(session)
        except DkTrioError as error:
            if request is not None:
                log_refusal("StartModule", error, request.mission_id, request.setup_id)
            await fail(stream, error, job_id)
        else:
            if outcome.error is not None:
                if outcome.reason is not Reason.REFUSED:
                    job_id = session.ids.job_id
                if outcome.reason in {Reason.FAILED, Reason.TIMEOUT}:
                    log_refusal(f"job {job_id}", outcome.error, request.mission_id, request.setup_id)
                await fail(stream, outcome.error, job_id)

    async def _check_health(self, protocol: str, request: StartModuleRequest, stream: rpc.ServerCall) -> None:
        received_at = trio.current_time()
        ids = self._ids(request.mission_id, request.setup_id, "")
        start = module_start_info(ids, module_id=self._definition.id, module_name=self._definition.name)

        async def send(answer: dict[str, Any]) -> None:
            for output in (start, answer, end_of_stream()):
                message = StartModuleResponse(success=True, output=Struct.from_dict(output), job_id=ids.job_id)
                await stream.send_message(message)
            await stream.send_trailing_metadata()  # what is asked may go on, and need not be waited for

        await self.health_checks.answer(
            protocol,
            ids=ids,
            request_metadata=RequestMetadata(stream.metadata.items()),
            received_at=received_at,
            send=send,
        )

    def _ids(self, mission_id: str, setup_id: str, setup_version_id: str) -> SessionIds:
        """The ids of a new job."""
        return SessionIds(
            job_id=str(chance.new_uuid()),
            mission_id=mission_id,
            setup_id=setup_id,
            setup_version_id=setup_version_id,
            timezone_name=self._timezone,
        )

    async def _session(
        self, data: dict[str, Any], request: StartModuleRequest, stream: rpc.ServerCall, protocol: str
    ) -> Session:
        """Everything that can be refused before a job exists."""
        definition, environment = self._definition, self._environment
        input_data = definition.parse_input(data)
        cost_limits = parse_cost_limits(data)
        setup = await self._setups.get_setup(request.setup_id, request.mission_id)
        setup_data = definition.parse_setup(setup.content, setup_id=setup.setup_id)
        ids = self._ids(request.mission_id, request.setup_id, setup.id)
        job_id = ids.job_id

        async def deliver(output: dict[str, Any]) -> None:
            try:
                message = StartModuleResponse(success=True, output=Struct.from_dict(output), job_id=job_id)
                await stream.send_message(message)
            except (TypeError, ValueError) as error:
                raise InvalidOutputError(f"An output is not JSON: {error}.") from error
            except (StreamTerminatedError, ProtocolError) as error:
                # Only a cleanup can see this: everybody else was cancelled when the caller left.
                raise SessionEndedError(f"Job {job_id} has no caller any more.") from error

        return Session(
            definition,
            ids=ids,
            input_data=input_data,
            setup_data=setup_data,
            deliver=deliver,
            interruption=_interruption(stream),
            abandon=lambda error: _finish(stream, error),
            on_cancelled=self.jobs.expect_end,
            admission=self._admission,
            signals=self._signals,
            request_metadata=RequestMetadata(stream.metadata.items()),
            environment=environment,
            cost_limits=cost_limits,
            nested=environment is not None and environment.shared.channels.id in str(stream.metadata.get(HOLDS, "")),
            options=self._session_options,
            protocol=protocol,
            around=self._around,
        )

    async def stop_module(self, message: StopModuleRequest) -> StopModuleResponse:
        """Cancel a job by its id, with or without the prefix `jobs:`; also one that waits for its slot.

        Answers at once: the job's cleanup may still run, and its StartModule stream ends with CANCELLED.

        Raises:
            GRPCError: NOT_FOUND, when no such job is running; UNAVAILABLE, when a sibling that may have it is silent.
        """
        try:
            await self.directory.stop(message.job_id)
        except DkTrioError as error:
            raise status_of(error) from error
        return StopModuleResponse(success=True, job_id=message.job_id)

    async def get_module_status(self, message: GetModuleStatusRequest) -> GetModuleStatusResponse:
        """How a job is, or what has become of it: of the last jobs that have ended this is remembered.

        Raises:
            GRPCError: NOT_FOUND, when no such job is known; UNAVAILABLE, when a sibling that may know it is silent.
        """
        try:
            status = await self.directory.status(message.job_id)
        except DkTrioError as error:
            raise status_of(error) from error
        return GetModuleStatusResponse(success=True, status=status, job_id=message.job_id)

    async def get_module_jobs(self, message: GetModuleJobsRequest) -> GetModuleJobsResponse:
        """Every job that is waiting or running, oldest first, then the last that have ended."""
        jobs = [JobInfo(job_id=job_id, job_status=status) for job_id, status in await self.directory.statuses()]
        return GetModuleJobsResponse(success=True, jobs=jobs)

    # --- configuration -----------------------------------------------------------------------------------------------

    async def config_setup(self, request: ConfigSetupModuleRequest | None, stream: rpc.ServerCall) -> None:
        """Answer ConfigSetupModule on the stream itself.

        Raises:
            GRPCError: The status, unless it is OK.
        """
        stream.send_timeout = self._settings.stream_drain_timeout
        try:
            if request is None:
                raise InvalidSetupError("The request stream ended without a ConfigSetupModuleRequest.")
            version = await self._configure(request, stream)
            setup = SetupVersion(
                id=version.id,
                setup_id=version.setup_id,
                content=_dict(version.content, "content"),
                version=version.version,
            )
            stored = self._store is not None and await self._store(setup)
            if stored:
                self._setups.forget(setup.setup_id)
        except DkTrioError as error:
            if request is not None and not isinstance(error, AdmissionError):
                setup_id = request.setup_version.setup_id if request.setup_version is not None else ""
                log_refusal("ConfigSetupModule", error, request.mission_id, setup_id)
            raise status_of(error) from error
        await stream.send_message(ConfigSetupModuleResponse(success=True, setup_version=version))
        # Only now: a caller that has left was told nothing and stores nothing, so no job may run with it either. A
        # caller that stays sees the end of the call after this.
        if not stored:
            self._setups.put(setup)
            self._configured(setup.setup_id)

    async def _configure(self, request: ConfigSetupModuleRequest, stream: rpc.ServerCall) -> SetupVersionMessage:
        version = request.setup_version
        if version is None or not version.setup_id:
            raise InvalidSetupError(
                "The request names no setup.",
                hint="Fill setup_version.id and .setup_id.",
                violations=[Violation("setup_version.setup_id", "must not be empty")],
            )
        setup = ConfigSetup(
            self._definition,
            self._definition.parse_form(_dict(request.content, "content"), setup_id=version.setup_id),
            ids=self._ids(request.mission_id, version.setup_id, version.id),
            request_metadata=RequestMetadata(stream.metadata.items()),
            environment=self._environment,
            timeout=self._settings.config_setup_timeout,
            patience=ABANDON_AFTER,
            abandon=lambda error: _finish(stream, error),
        )
        self.config_setups.add(setup)
        try:
            async with self._admission.admit():
                # Channels repeat a call by themselves until a response has begun; the author's code must not run twice.
                await stream.send_initial_metadata()
                content = await setup.run()
        finally:
            self.config_setups.remove(setup)
        return SetupVersionMessage(
            id=version.id,
            setup_id=version.setup_id,
            version=version.version,
            content=content,
            creation_date=version.creation_date,
        )

    # --- schemas -----------------------------------------------------------------------------------------------------

    async def get_module_input(self, message: GetModuleInputRequest) -> GetModuleInputResponse:
        """The JSON schema of the inputs. `dk_trio.routing` has looked at the request's module id."""
        with _statuses():
            schema = Struct.from_dict(self._schemas.input(llm=message.llm_format))
        return GetModuleInputResponse(success=True, input_schema=schema)

    async def get_module_output(self, message: GetModuleOutputRequest) -> GetModuleOutputResponse:
        """The JSON schema of the outputs, with the messages that every stream has.

        Raises:
            GRPCError: UNIMPLEMENTED, when the module names no output format.
        """
        with _statuses():
            schema = Struct.from_dict(self._schemas.output(llm=message.llm_format))
        return GetModuleOutputResponse(success=True, output_schema=schema)

    async def get_module_setup(self, message: GetModuleSetupRequest) -> GetModuleSetupResponse:
        """The JSON schema of what jobs run with. It says which values could not be fetched."""
        with _statuses():
            schema = Struct.from_dict(await self._schemas.setup(llm=message.llm_format))
        return GetModuleSetupResponse(success=True, setup_schema=schema)

    async def get_config_setup_module(self, message: GetConfigSetupModuleRequest) -> GetConfigSetupModuleResponse:
        """The form of a setup. It says which values could not be fetched."""
        with _statuses():
            schema = Struct.from_dict(await self._schemas.config_setup(llm=message.llm_format))
        return GetConfigSetupModuleResponse(success=True, config_setup_schema=schema)

    async def get_module_secret(self, message: GetModuleSecretRequest) -> GetModuleSecretResponse:
        """The form of the module's secrets.

        Raises:
            GRPCError: UNIMPLEMENTED, when the module names no secret format.
        """
        with _statuses():
            schema = Struct.from_dict(self._schemas.secret(llm=message.llm_format))
        return GetModuleSecretResponse(success=True, secret_schema=schema)

    async def get_module_cost(self, message: GetModuleCostRequest) -> GetModuleCostResponse:
        """What the module charges, by name."""
        with _statuses():
            schema = Struct.from_dict(self._schemas.cost(llm=message.llm_format))
        return GetModuleCostResponse(success=True, cost_schema=schema)

    async def get_module_select_input(self, message: GetModuleSelectInputRequest) -> GetModuleSelectInputResponse:
        """The form for the selection of triggers."""
        with _statuses():
            schema = Struct.from_dict(self._schemas.select())
        return GetModuleSelectInputResponse(success=True, select_input_schema=schema)


@contextmanager
def _statuses() -> Iterator[None]:
    """What the block raises on purpose becomes its status."""
    try:
        yield
    except DkTrioError as error:
        raise status_of(error) from error


async def fail(stream: rpc.ServerCall, error: DkTrioError, job_id: str) -> None:
    """One response that says `success=false`, then the status, raised so that interceptors see it too."""
    if stream.done:  # told by `abandon`, or there is nobody left
        return
    status = status_of(error)
    code = {
        "code": error.output_code or error.code,
        "message": error.text,
        "short_description": error.short_description,
    }
    if not stream.sending:  # a reader that holds up an output would hold up this one too
        stream.send_timeout = inf  # a shorter one would put its own status in place of this error's
        with trio.move_on_after(LAST_WORDS):
            await stream.send_message(StartModuleResponse(success=False, output=Struct.from_dict(code), job_id=job_id))
    raise status from error


def _finish(stream: rpc.ServerCall, error: DkTrioError) -> None:
    """End the call while its handler goes on."""
    status = status_of(error)
    stream.finish(status.status, status.message, status.details)


def _interruption(stream: rpc.ServerCall) -> Callable[[], Reason]:
    """Why the call's scope was cancelled, in the words of a session."""

    def reason() -> Reason:
        if stream.shut_down:
            return Reason.SHUTDOWN
        if trio.current_time() >= stream.deadline_at:
            return Reason.DEADLINE
        # Neither of them, and no reset: the server itself was cancelled.
        return Reason.CLIENT_GONE if stream.reset_code is not None else Reason.SHUTDOWN

    return reason


def _dict(struct: Struct | None, what: str) -> dict[str, Any]:
    try:
        return struct.to_dict() if struct is not None else {}
    except DecodeError as error:  # a Struct is only parsed when somebody looks into it
        rule = f"is not a valid google.protobuf.Struct: {error}"
        raise InvalidInputError(f"The {what} {rule}.", violations=[Violation(what, rule)]) from error
