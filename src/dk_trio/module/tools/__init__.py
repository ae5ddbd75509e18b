"""Other modules as tools of this one: selected in a form, found once, called as functions.

Walks models generically, so it knows nothing of `SetupModel`.
"""

from .build import build_tool_cache as build_tool_cache
from .build import may_select as may_select
from .build import selections as selections
from .cache import ToolCache as ToolCache
from .cache import slug as slug
from .definitions import tool_definitions as tool_definitions
from .functions import ToolFunction as ToolFunction
from .functions import openai_style_tools as openai_style_tools
from .functions import tool_functions as tool_functions
from .models import ToolDefinition as ToolDefinition
from .models import ToolModuleInfo as ToolModuleInfo
from .selection import ToolOptions as ToolOptions
from .selection import ToolReference as ToolReference
from .selection import ToolSelection as ToolSelection
from .selection import tool_reference_input as tool_reference_input
