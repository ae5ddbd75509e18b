"""The one tree of errors: what went wrong, whose fault it was, what the wire says, and what to do about it.

Every error that dk-trio raises on purpose derives from `DkTrioError`. Each class is a row of the error table: a stable
`code` in UPPER_SNAKE_CASE, the gRPC `status` a caller sees, the `fault`, and the `short_description` of the in-stream
failure message. The translation of an error into a status is one function, `dk_trio.statuses.status_of`; nothing else
chooses a status.

Imports nothing of ours.
"""

from ._base import DkTrioError as DkTrioError
from ._base import Fault as Fault
from ._base import Violation as Violation
from ._server import AdmissionError as AdmissionError
from ._server import AmbiguousModuleError as AmbiguousModuleError
from ._server import CallerGoneError as CallerGoneError
from ._server import CleanupFailedError as CleanupFailedError
from ._server import ConfigSetupFailedError as ConfigSetupFailedError
from ._server import ConfigSetupTimeoutError as ConfigSetupTimeoutError
from ._server import ConfigurationError as ConfigurationError
from ._server import DatabaseError as DatabaseError
from ._server import DiscoveryError as DiscoveryError
from ._server import DiscoverySecurityError as DiscoverySecurityError
from ._server import InitializeFailedError as InitializeFailedError
from ._server import InspectorRefusedError as InspectorRefusedError
from ._server import InspectorUnavailableError as InspectorUnavailableError
from ._server import InvalidInputError as InvalidInputError
from ._server import InvalidOutputError as InvalidOutputError
from ._server import InvalidSetupError as InvalidSetupError
from ._server import JobCancelledError as JobCancelledError
from ._server import JobDeadlineError as JobDeadlineError
from ._server import JobEndedError as JobEndedError
from ._server import JobNotFoundError as JobNotFoundError
from ._server import JobStoppedError as JobStoppedError
from ._server import JobTimeoutError as JobTimeoutError
from ._server import ListenError as ListenError
from ._server import MissingPackageError as MissingPackageError
from ._server import ModuleDefinitionError as ModuleDefinitionError
from ._server import ModuleFailedError as ModuleFailedError
from ._server import ModuleLoadError as ModuleLoadError
from ._server import ModuleNotServedError as ModuleNotServedError
from ._server import NoFreeSlotError as NoFreeSlotError
from ._server import NoSchemaError as NoSchemaError
from ._server import QueueFullError as QueueFullError
from ._server import RequestError as RequestError
from ._server import SessionEndedError as SessionEndedError
from ._server import SettingError as SettingError
from ._server import SetupFileError as SetupFileError
from ._server import SetupNotFoundError as SetupNotFoundError
from ._server import SetupUnavailableError as SetupUnavailableError
from ._server import ShutdownError as ShutdownError
from ._server import TaskLeftBehindError as TaskLeftBehindError
from ._server import TLSFileError as TLSFileError
from ._server import TokenFileError as TokenFileError
from ._server import UnknownProtocolError as UnknownProtocolError
from ._server import WorkerUnavailableError as WorkerUnavailableError
from ._service import CostLimitError as CostLimitError
from ._service import CostServiceError as CostServiceError
from ._service import FileExistsInContextError as FileExistsInContextError
from ._service import FilesystemServiceError as FilesystemServiceError
from ._service import IdempotencyError as IdempotencyError
from ._service import InvalidFileError as InvalidFileError
from ._service import InvalidRecordError as InvalidRecordError
from ._service import ModuleCallError as ModuleCallError
from ._service import RecordChangedError as RecordChangedError
from ._service import RecordExistsError as RecordExistsError
from ._service import RecordNotFoundError as RecordNotFoundError
from ._service import RegistryModuleNotFoundError as RegistryModuleNotFoundError
from ._service import RegistryServiceError as RegistryServiceError
from ._service import ReplyTooLargeError as ReplyTooLargeError
from ._service import ServiceError as ServiceError
from ._service import SetupExistsError as SetupExistsError
from ._service import SetupServiceError as SetupServiceError
from ._service import StorageServiceError as StorageServiceError
from ._service import StoredFileNotFoundError as StoredFileNotFoundError
from ._service import TaskManagerServiceError as TaskManagerServiceError
from ._service import ToolUnavailableError as ToolUnavailableError
from ._service import UserProfileServiceError as UserProfileServiceError
