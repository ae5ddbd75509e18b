"""What authors write against: module classes, triggers, models and the context.

Knows nothing of gRPC: a module runs against any `send`. A session (`dk_trio.session`) drives it, a servicer serves it.
"""

from ._base import ArchetypeModule as ArchetypeModule
from ._base import BaseModule as BaseModule
from ._base import ToolModule as ToolModule
from ._base import TrioModule as TrioModule
from ._context import Environment as Environment
from ._context import ModuleContext as ModuleContext
from ._context import Output as Output
from ._context import SessionIds as SessionIds
from ._cost_limits import parse_cost_limits as parse_cost_limits
from ._definition import ModuleDefinition as ModuleDefinition
from ._find_tools import find_tools as find_tools
from ._models import DataModel as DataModel
from ._models import DataTrigger as DataTrigger
from ._models import EndOfStreamOutput as EndOfStreamOutput
from ._models import ModuleStartInfoOutput as ModuleStartInfoOutput
from ._models import SetupModel as SetupModel
from ._output import output_dict as output_dict
from ._request_metadata import RequestMetadata as RequestMetadata
from ._system_messages import end_of_stream as end_of_stream
from ._system_messages import module_start_info as module_start_info
from ._trigger import TriggerHandler as TriggerHandler
from ._utility import UTILITY_PROTOCOLS as UTILITY_PROTOCOLS
