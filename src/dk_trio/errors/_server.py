"""What a server says: to its operator before it serves, to callers, and to the author of its module."""

from __future__ import annotations

from grpclib.const import Status

from ._base import DkTrioError, Fault

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


class MissingPackageError(ConfigurationError, ImportError):
    """What was asked for needs a package that is not installed; the hint names the extra that brings it."""

    code = "PACKAGE_MISSING"


class TLSFileError(ConfigurationError):
    """A certificate, a key or a file of authorities cannot be used."""

    code = "BAD_TLS_FILE"


class TokenFileError(ConfigurationError):
    """The file of tokens cannot be used."""

    code = "BAD_TOKEN_FILE"


class InspectorUnavailableError(DkTrioError):
    """No inspector answers where one was looked for."""

    code = "INSPECTOR_UNAVAILABLE"
    status = Status.UNAVAILABLE
    fault = Fault.OPERATOR
    short_description = "No inspector"


class InspectorRefusedError(DkTrioError):
    """The inspector asks for its token, or does not allow what was asked for."""

    code = "INSPECTOR_REFUSED"
    status = Status.UNAUTHENTICATED
    fault = Fault.OPERATOR
    short_description = "Refused by the inspector"


class DatabaseError(ConfigurationError):
    """A database cannot be used: its URL, its server, its file, or a schema that is newer than this program."""

    code = "DATABASE"


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


class ModuleNotServedError(RequestError):
    """The call is for a module that this server does not have."""

    code = "MODULE_NOT_SERVED"
    status = Status.NOT_FOUND
    short_description = "Module not served here"


class AmbiguousModuleError(RequestError):
    """The server has several modules, and the call does not say which one it is for."""

    code = "AMBIGUOUS_MODULE"
    short_description = "Which module is not said"


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


class WorkerUnavailableError(DkTrioError):
    """What was asked for may be with another process behind the same address, and that did not answer."""

    code = "WORKER_UNAVAILABLE"
    status = Status.UNAVAILABLE
    fault = Fault.PLATFORM
    short_description = "Worker unavailable"


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
