"""What a service says to the author's code."""

from __future__ import annotations

from collections.abc import Iterable

from grpclib.const import Status

from ._base import DkTrioError, Fault, Violation


class ServiceError(DkTrioError):
    """A service of the context failed. Raised in the author's code; uncaught, it is what the caller gets.

    Args:
        message: What happened.
        hint: What to do about it.
        violations: The fields that were refused.
        status: What the failure is, where this one differs from its class: UNAVAILABLE for an outage that a later call
            may not see, DEADLINE_EXCEEDED, PERMISSION_DENIED, ...
    """

    code = "SERVICE_FAILED"
    short_description = "Service failed"

    def __init__(
        self, message: str, *, hint: str = "", violations: Iterable[Violation] = (), status: Status | None = None
    ) -> None:
        super().__init__(message, hint=hint, violations=violations)
        if status is not None:
            self.status = status  # type: ignore[misc]  # of this instance


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


class RecordNotFoundError(StorageServiceError):
    """A provider has no record of this id, or no record in this collection."""

    code = "RECORD_NOT_FOUND"
    status = Status.NOT_FOUND
    fault = Fault.CALLER
    short_description = "Record not found"


class RecordChangedError(StorageServiceError):
    """A record was to be changed only if it still had an update date, and has another: nothing was written."""

    code = "RECORD_CHANGED"
    status = Status.ABORTED
    fault = Fault.CALLER
    short_description = "Record changed"


class IdempotencyError(ServiceError):
    """A key that stands for one request came with another one; nothing was done."""

    code = "IDEMPOTENCY_KEY_REUSED"
    status = Status.FAILED_PRECONDITION
    fault = Fault.CALLER
    short_description = "Idempotency key reused"


class ReplyTooLargeError(ServiceError):
    """What was asked for is there, and has more bytes than one message may have."""

    code = "REPLY_TOO_LARGE"
    status = Status.FAILED_PRECONDITION  # RESOURCE_EXHAUSTED would be asked again, in vain
    fault = Fault.CALLER
    short_description = "Reply too large"


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


class SetupExistsError(SetupServiceError, ValueError):
    """The id of a new setup or version is taken, or its setup has a version of this name already."""

    code = "SETUP_EXISTS"
    status = Status.ALREADY_EXISTS
    fault = Fault.CALLER
    short_description = "Setup exists"


class TaskManagerServiceError(ServiceError):
    """A signal was not delivered: the services-provider has refused it, or it was given up."""

    code = "SIGNAL_FAILED"
    short_description = "Signal not delivered"


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
        self, message: str, *, hint: str = "", violations: Iterable[Violation] = (), status: Status | None = None
    ) -> None:
        told = status if status in {Status.UNAVAILABLE, Status.DEADLINE_EXCEEDED, Status.CANCELLED} else None
        super().__init__(message, hint=hint, violations=violations, status=told)


class ToolUnavailableError(ServiceError):
    """A tool that a setup has selected cannot be used: its setup, its module or its server was not found in time."""

    code = "TOOL_UNAVAILABLE"
    status = Status.UNAVAILABLE
    short_description = "Tool unavailable"
