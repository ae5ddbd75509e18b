"""Other modules as tools of this one: selected in a form, resolved once, called as functions.

Walks setup models generically, so it knows nothing of `SetupModel`.
"""

from .models import ToolDefinition as ToolDefinition
from .models import ToolModuleInfo as ToolModuleInfo
