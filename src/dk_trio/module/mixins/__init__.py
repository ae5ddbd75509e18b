"""What a trigger handler has at hand besides its context: short names for the services, histories, logs, AG-UI.

A mixin holds nothing itself. Each method takes the context and passes the call on to a service of it; what has to be
kept for the length of a job, such as a history that is not written yet, hangs on the context. Errors of the services
are not caught here: an author who wants to go on without a cost or a record says so with `except`.
"""

from ._agui import AgUiMixin as AgUiMixin
from ._agui import UserMessageMixin as UserMessageMixin
from ._base import BaseMixin as BaseMixin
from ._histories import ChatHistoryMixin as ChatHistoryMixin
from ._histories import FileHistoryMixin as FileHistoryMixin
from ._services import CostMixin as CostMixin
from ._services import FilesystemMixin as FilesystemMixin
from ._services import LoggerMixin as LoggerMixin
from ._services import StorageMixin as StorageMixin
from .history import AtomicStorage as AtomicStorage
from .history import BaseMessage as BaseMessage
from .history import BaseRole as BaseRole
from .history import ChatHistory as ChatHistory
from .history import FileHistory as FileHistory
from .history import FileModel as FileModel
from .history import History as History
from .history import Role as Role
