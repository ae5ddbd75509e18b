"""What authors write against: module classes, triggers, models, setups, tools and the context.

Knows nothing of serving: a module runs against any `send`. A session (`dk_trio.session`) drives it, a servicer serves
it. `events` are the agent events, `agui` (an extra) turns them into AG-UI.
"""

from ._base import ArchetypeModule as ArchetypeModule
from ._base import BaseModule as BaseModule
from ._base import ToolModule as ToolModule
from ._base import TrioModule as TrioModule
from ._context import Environment as Environment
from ._context import ModuleContext as ModuleContext
from ._context import Output as Output
from ._context import SessionIds as SessionIds
from ._definition import ModuleDefinition as ModuleDefinition
from ._discovery import ModuleDiscoverer as ModuleDiscoverer
from ._models import DataModel as DataModel
from ._models import DataTrigger as DataTrigger
from ._models import EndOfStreamOutput as EndOfStreamOutput
from ._models import ModuleCodeModel as ModuleCodeModel
from ._models import ModuleStartInfoOutput as ModuleStartInfoOutput
from ._request_metadata import RequestMetadata as RequestMetadata
from ._trigger import TriggerHandler as TriggerHandler
from ._utility import UtilityProtocol as UtilityProtocol
from .mixins import BaseMessage as BaseMessage
from .mixins import BaseMixin as BaseMixin
from .mixins import BaseRole as BaseRole
from .mixins import ChatHistory as ChatHistory
from .mixins import ChatHistoryMixin as ChatHistoryMixin
from .mixins import FileHistory as FileHistory
from .mixins import FileHistoryMixin as FileHistoryMixin
from .mixins import FileModel as FileModel
from .mixins import FilesystemMixin as FilesystemMixin
from .mixins import Role as Role
from .mixins import UserMessageMixin as UserMessageMixin
from .schema import SchemaSplitter as SchemaSplitter
from .schema import SelectSchema as SelectSchema
from .schema import inline_refs as inline_refs
from .schema import llm_ready_schema as llm_ready_schema
from .setup import Conditional as Conditional
from .setup import ConditionalField as ConditionalField
from .setup import ConditionalSchemaMixin as ConditionalSchemaMixin
from .setup import Dynamic as Dynamic
from .setup import DynamicField as DynamicField
from .setup import ResolveResult as ResolveResult
from .setup import SetupModel as SetupModel
from .setup import resolve as resolve
from .setup import resolve_safe as resolve_safe
from .tools import ToolCache as ToolCache
from .tools import ToolDefinition as ToolDefinition
from .tools import ToolModuleInfo as ToolModuleInfo
from .tools import ToolOptions as ToolOptions
from .tools import ToolReference as ToolReference
from .tools import ToolSelection as ToolSelection
from .tools import tool_reference_input as tool_reference_input
