"""The one tree of errors: what went wrong, whose fault it was, what the wire says, and what to do about it.

Every error that dk-trio raises on purpose derives from `DkTrioError`. Each class is a row of the error table: a stable
`code` in UPPER_SNAKE_CASE, the gRPC `status` a caller sees, the `fault`, and the `short_description` of the in-stream
failure message. The translation of an error into a status is one function, `dk_trio.statuses.status_of`; nothing else
chooses a status.

Imports nothing of ours.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from grpclib.const import Status


class Fault(enum.Enum):
    """Who can mend it."""

    CALLER = "caller"  # the request
    AUTHOR = "author"  # the module's code
    OPERATOR = "operator"  # settings, files, ports
    PLATFORM = "platform"  # dk-trio or what it talks to


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing that was refused, as a google.rpc.BadRequest.FieldViolation tells it.

    Attributes:
        field: Path of the field from the root of what the caller sent, such as `input.root.text`.
        description: The rule, and the value that breaks it.
    """

    field: str
    description: str


class DkTrioError(Exception):
    """Root of the tree.

    Args:
        message: What happened, naming the value that was refused.
        hint: What to do about it, one sentence; empty when the message says it.
        violations: The fields that were refused, for programs: they travel in the details of the status.
    """

    code: ClassVar[str] = "INTERNAL_ERROR"
    status: ClassVar[Status] = Status.INTERNAL
    fault: ClassVar[Fault] = Fault.PLATFORM
    short_description: ClassVar[str] = "Internal error"
    output_code: ClassVar[str] = ""
    """`code` of the in-stream failure message, where callers know another than ours."""

    message: str = ""  # what an author's subclass has that does not call this `__init__`
    hint: str = ""
    violations: tuple[Violation, ...] = ()

    def __init__(self, message: str, *, hint: str = "", violations: Iterable[Violation] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.violations = tuple(violations)

    @property
    def text(self) -> str:
        """The message and the hint as one paragraph, which can be sent: lone surrogates are written as escapes.

        Names of files may hold them (PEP 383); no protobuf string does.
        """
        text = f"{self.message} {self.hint}" if self.hint else self.message
        return text.encode(errors="backslashreplace").decode()


# --- before anything is served ---------------------------------------------------------------------------------------


class ConfigurationError(DkTrioError):
    """Something the operator gave cannot be used."""

    code = "CONFIGURATION_ERROR"
    status = Status.FAILED_PRECONDITION
    fault = Fault.OPERATOR
    short_description = "Configuration error"


class SettingError(ConfigurationError):
    """An environment variable has a value that cannot be used."""

    code = "BAD_SETTING"


class SetupFileError(ConfigurationError):
    """The file of setups cannot be read, or a setup in it does not fit the module."""

    code = "BAD_SETUP_FILE"


class ListenError(ConfigurationError):
    """The address cannot be listened on."""

    code = "CANNOT_LISTEN"


class ModuleDefinitionError(DkTrioError):
    """A module class is not complete: found when it is registered or served, never while a job runs."""

    code = "MODULE_DEFINITION"
    status = Status.FAILED_PRECONDITION
    fault = Fault.AUTHOR
    short_description = "The module is not complete"


class DiscoveryError(ModuleDefinitionError):
    """Files of triggers cannot be found or imported; each is named with its cause."""

    code = "DISCOVERY"


class DiscoverySecurityError(DiscoveryError):
    """A package name or a file pattern could reach outside of the packages that an author meant (reference, 2.4)."""

    code = "DISCOVERY_SECURITY"


class ModuleLoadError(DkTrioError):
    """The module's file, package or class cannot be loaded."""

    code = "MODULE_LOAD"
    status = Status.FAILED_PRECONDITION
    fault = Fault.AUTHOR
    short_description = "The module cannot be loaded"


# --- what a caller asked for -----------------------------------------------------------------------------------------


class RequestError(DkTrioError):
    """A request that cannot be served as it is."""

    code = "INVALID_REQUEST"
    status = Status.INVALID_ARGUMENT
    fault = Fault.CALLER
    short_description = "Invalid request"


class InvalidInputError(RequestError):
    """The input does not match the module's input format."""

    code = "INVALID_INPUT"
    short_description = "Invalid input"


class UnknownProtocolError(InvalidInputError):
    """No trigger of the module handles this protocol."""

    code = "UNKNOWN_PROTOCOL"
    short_description = "Unknown protocol"


class InvalidSetupError(RequestError):
    """The setup exists but does not match the module's setup format."""

    code = "INVALID_SETUP"
    short_description = "Invalid setup"


class SetupNotFoundError(RequestError):
    """No setup has this id."""

    code = "SETUP_NOT_FOUND"
    status = Status.NOT_FOUND
    short_description = "Setup not found"


class SetupUnavailableError(DkTrioError):
    """Whether there is a setup with this id cannot be told now: what stores it failed, or did not answer in time."""

    code = "SETUP_UNAVAILABLE"
    status = Status.UNAVAILABLE
    fault = Fault.PLATFORM
    short_description = "Setup unavailable"


class JobNotFoundError(RequestError):
    """No job has this id, or it has ended."""

    code = "JOB_NOT_FOUND"
    status = Status.NOT_FOUND
    short_description = "Job not found"


class NoSchemaError(RequestError):
    """The module names no such format."""

    code = "NO_SCHEMA"
    status = Status.UNIMPLEMENTED
    short_description = "No schema"


# --- what a server has no room for -----------------------------------------------------------------------------------


class AdmissionError(DkTrioError):
    """A server at its limit refused a job before anything of it ran: the same request may be sent again, later.

    Only the operator can mend it, with a larger limit or another server, so it is not the caller's fault.

    Args:
        limit: The variable that names the limit, such as `DIGITALKIN_MAX_QUEUED_TASKS`.
        size: The value of `limit`.
        waited: Seconds that the job waited before it was refused.
        retry_after: Seconds after which there may be room, estimated from how fast jobs end.
    """

    code = "ADMISSION_REFUSED"
    status = Status.RESOURCE_EXHAUSTED
    fault = Fault.OPERATOR
    short_description = "The server is full"

    def __init__(
        self, message: str, *, hint: str = "", limit: str, size: int, waited: float, retry_after: float
    ) -> None:
        super().__init__(message, hint=hint)
        self.limit = limit
        self.size = size
        self.waited = waited
        self.retry_after = retry_after


class QueueFullError(AdmissionError):
    """All slots and all places in the queue are taken."""

    code = "QUEUE_FULL"
    short_description = "The queue is full"


class NoFreeSlotError(AdmissionError):
    """All slots are taken, and none became free within the wait that the settings allow."""

    code = "NO_FREE_SLOT"
    short_description = "No free slot"


# --- what happened to a job ------------------------------------------------------------------------------------------


class ModuleFailedError(DkTrioError):
    """The author's code raised. The cause is the author's exception.

    `output_code` and `short_description` are those that callers of the existing SDK look for (reference, 2.16).
    """

    code = "MODULE_FAILED"
    output_code = "Error"
    fault = Fault.AUTHOR
    short_description = "Module execution failed"


class InitializeFailedError(ModuleFailedError):
    """`initialize` raised."""

    code = "INITIALIZE_FAILED"
    short_description = "Error initializing module"


class CleanupFailedError(ModuleFailedError):
    """`cleanup` raised, after the module had done its work."""

    code = "CLEANUP_FAILED"
    short_description = "Error cleaning up module"


class InvalidOutputError(ModuleFailedError):
    """An output is neither a model nor a dict of JSON values. Raised by `send`, in the author's code."""

    code = "INVALID_OUTPUT"


class SessionEndedError(ModuleFailedError):
    """`send` was called after the session's last message, or after its caller had gone."""

    code = "SESSION_ENDED"


class TaskLeftBehindError(ModuleFailedError):
    """The module returned with a nursery or a cancel scope still open; their tasks were cancelled."""

    code = "TASK_LEFT_BEHIND"


class ConfigSetupFailedError(ModuleFailedError):
    """`run_config_setup` raised, or returned what is no setup. The cause is the author's exception."""

    code = "CONFIG_SETUP_FAILED"
    short_description = "Module config setup failed"


class ConfigSetupTimeoutError(ModuleFailedError):
    """`run_config_setup` did not end within CONFIG_SETUP_TIMEOUT."""

    code = "CONFIG_SETUP_TIMEOUT"
    status = Status.DEADLINE_EXCEEDED
    short_description = "Module config setup timed out"


class JobEndedError(DkTrioError):
    """The job was ended from outside before it ended by itself. One kind for each reason, see `dk_trio.lifecycle`."""

    code = "JOB_CANCELLED"
    status = Status.CANCELLED
    fault = Fault.CALLER
    short_description = "Job cancelled"


class JobCancelledError(JobEndedError):
    """A `cancel` signal came for the job."""


class JobStoppedError(JobEndedError):
    """StopModule was called for the job, or a `stop` signal came for it."""

    code = "JOB_STOPPED"
    short_description = "Job stopped"


class CallerGoneError(JobEndedError):
    """The caller has cancelled its call, or its connection was lost: there is nobody left to tell."""

    code = "CALLER_GONE"


class JobDeadlineError(JobEndedError):
    """The caller's deadline has passed."""

    code = "DEADLINE_EXCEEDED"
    status = Status.DEADLINE_EXCEEDED
    short_description = "Deadline exceeded"


class JobTimeoutError(JobEndedError):
    """One of the server's times has passed: for completion, for draining the stream, for the whole execution."""

    code = "JOB_TIMEOUT"
    status = Status.DEADLINE_EXCEEDED
    fault = Fault.OPERATOR
    short_description = "Job timed out"


class ShutdownError(JobEndedError):
    """The server stops, and the job had not ended within the grace. Another server may be asked."""

    code = "SHUTDOWN"
    status = Status.UNAVAILABLE
    fault = Fault.PLATFORM
    short_description = "Server is shutting down"


# --- what a service says to the author's code -------------------------------------------------------------------------


class ServiceError(DkTrioError):
    """A service of the context failed. Raised in the author's code; uncaught, it is what the caller gets."""

    code = "SERVICE_FAILED"
    short_description = "Service failed"


class StorageServiceError(ServiceError):
    """The storage cannot do what was asked."""

    code = "STORAGE_FAILED"
    short_description = "Storage failed"


class InvalidRecordError(StorageServiceError, ValueError):
    """A record does not fit the model of its collection, or its collection, scope or data type does not exist."""

    code = "INVALID_RECORD"
    status = Status.INVALID_ARGUMENT
    fault = Fault.AUTHOR
    short_description = "Invalid record"


class RecordExistsError(StorageServiceError, ValueError):
    """`store` was called for a record that is there already; `upsert` or `update` was meant."""

    code = "RECORD_EXISTS"
    status = Status.ALREADY_EXISTS
    fault = Fault.AUTHOR
    short_description = "Record exists"


class FilesystemServiceError(ServiceError):
    """The filesystem cannot do what was asked."""

    code = "FILESYSTEM_FAILED"
    short_description = "Filesystem failed"


class InvalidFileError(FilesystemServiceError):
    """A file's name, type, filter or page is not allowed; a name with `..` too."""

    code = "INVALID_FILE"
    status = Status.INVALID_ARGUMENT
    fault = Fault.CALLER
    short_description = "Invalid file"


class FileExistsInContextError(FilesystemServiceError):
    """A file of this name is there already, and was not to be replaced."""

    code = "FILE_EXISTS"
    status = Status.ALREADY_EXISTS
    fault = Fault.CALLER
    short_description = "File exists"


class StoredFileNotFoundError(FilesystemServiceError):
    """No file has this id, in this context."""

    code = "FILE_NOT_FOUND"
    status = Status.NOT_FOUND
    fault = Fault.CALLER
    short_description = "File not found"


class CostServiceError(ServiceError):
    """The cost service cannot do what was asked: no such cost, or a quantity that is none."""

    code = "COST_FAILED"
    fault = Fault.AUTHOR
    short_description = "Cost failed"


class CostLimitError(CostServiceError):
    """A cost would exceed a limit; nothing was added."""

    code = "COST_LIMIT"
    status = Status.FAILED_PRECONDITION
    fault = Fault.CALLER
    short_description = "Cost limit reached"


class RegistryServiceError(ServiceError):
    """The registry cannot do what was asked."""

    code = "REGISTRY_FAILED"
    short_description = "Registry failed"


class RegistryModuleNotFoundError(RegistryServiceError):
    """No module of this id is registered."""

    code = "MODULE_NOT_FOUND"
    status = Status.NOT_FOUND
    short_description = "Module not found"


class SetupServiceError(ServiceError):
    """The setup service cannot do what was asked."""

    code = "SETUP_SERVICE_FAILED"
    short_description = "Setup service failed"


class UserProfileServiceError(ServiceError):
    """The user profile service failed."""

    code = "USER_PROFILE_FAILED"
    short_description = "User profile failed"


class ModuleCallError(ServiceError):
    """A call of another module failed.

    UNAVAILABLE, DEADLINE_EXCEEDED and CANCELLED stay what they are on the way up; all else is INTERNAL here.
    """

    code = "MODULE_CALL_FAILED"
    short_description = "Call of another module failed"

    def __init__(
        self, message: str, *, hint: str = "", violations: Iterable[Violation] = (), status: Status = Status.INTERNAL
    ) -> None:
        super().__init__(message, hint=hint, violations=violations)
        if status in {Status.UNAVAILABLE, Status.DEADLINE_EXCEEDED, Status.CANCELLED}:
            self.status = status  # type: ignore[misc]  # of this instance


class ToolUnavailableError(ServiceError):
    """A tool that a setup has selected cannot be used: its setup, its module or its server was not found in time."""

    code = "TOOL_UNAVAILABLE"
    status = Status.UNAVAILABLE
    short_description = "Tool unavailable"
