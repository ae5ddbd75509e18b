"""ModuleService on the wire: messages to sessions and back, and the one function that gives an error its status.

StartModule is served by a handler on the stream itself and not by a generator of responses: the author's `send` then
awaits the HTTP/2 stream directly, and cleanup ends inside the RPC. A failed job sends one response with `success=false`
and `output={code, message, short_description}`, then a status that is not OK: callers that look only at outputs and
callers that look only at the status both see it.

The table of jobs is the set of sessions that are running now: an entry lives inside an RPC's task and leaves with it.
"""

from __future__ import annotations

import logging
import uuid
from dataclasses import dataclass
from typing import Any

from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError, ProtocolError, StreamTerminatedError

from dk_trio.errors import DkTrioError, InvalidInputError, InvalidOutputError, JobNotFoundError, SessionEndedError
from dk_trio.module import ModuleDefinition, RequestMetadata, SessionIds
from dk_trio.module._schema import llm_format
from dk_trio.pb import DecodeError
from dk_trio.pb.agentic_mesh_protocol.module.v1 import (
    GetModuleInputRequest,
    GetModuleInputResponse,
    GetModuleOutputRequest,
    GetModuleOutputResponse,
    ModuleServiceBase,
    StartModuleRequest,
    StartModuleResponse,
    StopModuleRequest,
    StopModuleResponse,
)
from dk_trio.pb.google.protobuf import Struct
from dk_trio.pb.google.rpc import ErrorInfo
from dk_trio.services.setup import SetupSource
from dk_trio.session import Session, SessionOptions

_log = logging.getLogger("dk_trio.servicer")

START_MODULE = "/agentic_mesh_protocol.module.v1.ModuleService/StartModule"
_JOB_PREFIX = "jobs:"

# `ErrorInfo.domain` of our errors: who defines the reasons.
ERROR_DOMAIN = "dk-trio"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServicerStatistics:
    """What a servicer has seen since it was made. Every job that has ended is in exactly one of the last three."""

    running: int
    started: int
    succeeded: int
    failed: int
    cancelled: int


class ModuleServicer(ModuleServiceBase):
    """Serves one module class.

    Args:
        definition: The module.
        setups: Where setups come from.
        session_options: Times of each session.
    """

    def __init__(
        self, definition: ModuleDefinition, *, setups: SetupSource, session_options: SessionOptions | None = None
    ) -> None:
        self._definition = definition
        self._setups = setups
        self._session_options = session_options or SessionOptions()
        self._sessions: dict[str, Session] = {}
        self._started = self._succeeded = self._failed = 0

    def __repr__(self) -> str:
        return f"<ModuleServicer {self._definition.name}, {len(self._sessions)} jobs>"

    def statistics(self) -> ServicerStatistics:
        """Counts of jobs; requests that were refused before a job began are not counted."""
        running = len(self._sessions)
        return ServicerStatistics(
            running=running,
            started=self._started,
            succeeded=self._succeeded,
            failed=self._failed,
            cancelled=self._started - running - self._succeeded - self._failed,
        )

    def __mapping__(self) -> dict[str, Handler]:
        """The generated table, with StartModule on the stream itself."""
        mapping: dict[str, Handler] = super().__mapping__()
        mapping[START_MODULE] = Handler(
            self._start_module, Cardinality.UNARY_STREAM, StartModuleRequest, StartModuleResponse
        )
        return mapping

    # --- jobs --------------------------------------------------------------------------------------------------------

    async def _start_module(self, stream: Any) -> None:
        request: StartModuleRequest | None = await stream.recv_message()
        job_id = ""  # a refused request has no job
        try:
            if request is None:
                raise InvalidInputError("The request stream ended without a StartModuleRequest.")
            session = await self._session(request, stream)
            job_id = session.ids.job_id
            await self._run(session)
        except DkTrioError as error:
            await _fail(stream, error, job_id)

    async def _session(self, request: StartModuleRequest, stream: Any) -> Session:
        """Everything that can be refused before a job exists."""
        definition = self._definition
        job_id = str(uuid.uuid4())
        try:
            document = request.input.to_dict() if request.input is not None else {}
        except DecodeError as error:  # a Struct is only parsed when somebody looks into it
            raise InvalidInputError(f"The input is not a valid google.protobuf.Struct: {error}.") from error
        input_data = definition.parse_input(document)
        setup = await self._setups.get_setup(request.setup_id, request.mission_id)
        setup_data = definition.parse_setup(setup.content, setup_id=setup.setup_id)

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
            ids=SessionIds(
                job_id=job_id,
                mission_id=request.mission_id,
                setup_id=request.setup_id,
                setup_version_id=setup.id,
            ),
            input_data=input_data,
            setup_data=setup_data,
            deliver=deliver,
            request_metadata=RequestMetadata(stream.metadata.items()),
            options=self._session_options,
        )

    async def _run(self, session: Session) -> None:
        job_id = session.ids.job_id
        self._sessions[job_id] = session
        self._started += 1
        try:
            await session.run()
        except DkTrioError as error:
            if error.status is not Status.CANCELLED:
                self._failed += 1
            raise
        else:
            self._succeeded += 1
        finally:
            del self._sessions[job_id]

    async def stop_module(self, message: StopModuleRequest) -> StopModuleResponse:
        """Cancel a job by its id, with or without the prefix `jobs:`.

        Answers at once: the job's cleanup may still run, and its StartModule stream ends with CANCELLED.

        Raises:
            GRPCError: NOT_FOUND, when no such job is running.
        """
        session = self._sessions.get(message.job_id.removeprefix(_JOB_PREFIX))
        if session is None:
            raise status_of(JobNotFoundError(f"Job {message.job_id} not found"))
        session.stop("StopModule was called")
        return StopModuleResponse(success=True, job_id=message.job_id)

    # --- schemas -----------------------------------------------------------------------------------------------------

    async def get_module_input(self, message: GetModuleInputRequest) -> GetModuleInputResponse:
        """The JSON schema of the inputs. The request's module id is ignored: there is one module here."""
        return GetModuleInputResponse(
            success=True, input_schema=_schema(self._definition.input_schema, llm=message.llm_format)
        )

    async def get_module_output(self, message: GetModuleOutputRequest) -> GetModuleOutputResponse:
        """The JSON schema of the outputs, with the messages that every stream has.

        Raises:
            GRPCError: UNIMPLEMENTED, when the module names no output format.
        """
        schema = self._definition.output_schema
        if schema is None:
            raise GRPCError(Status.UNIMPLEMENTED, f"{self._definition.name} names no output format.")
        return GetModuleOutputResponse(success=True, output_schema=_schema(schema, llm=message.llm_format))


def _schema(schema: dict[str, Any], *, llm: bool) -> Struct:
    return Struct.from_dict(llm_format(schema) if llm else schema)


def status_of(error: Exception) -> GRPCError:
    """The status of an error: the only place where errors become statuses.

    A `DkTrioError` carries its own, and its `code` as the reason of a google.rpc.ErrorInfo; a `GRPCError` stays what it
    is; anything else is a defect of ours and INTERNAL.
    """
    if isinstance(error, GRPCError):
        return error
    if isinstance(error, DkTrioError):
        return GRPCError(error.status, error.text, [ErrorInfo(reason=error.code, domain=ERROR_DOMAIN)])
    return GRPCError(Status.INTERNAL, f"{type(error).__name__}: {error}")


async def _fail(stream: Any, error: DkTrioError, job_id: str) -> None:
    """One response that says `success=false`, then the status, raised so that interceptors see it too."""
    status = status_of(error)
    code = {
        "code": error.output_code or error.code,
        "message": error.text,
        "short_description": error.short_description,
    }
    await stream.send_message(StartModuleResponse(success=False, output=Struct.from_dict(code), job_id=job_id))
    raise status from error
