"""Agentic modules served over gRPC, natively on Trio.

The names below are the public API. Each is loaded when it is first used, so that a client process does not pay for
pydantic and a program that wants only `dk_trio.rpc` does not load modules at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dk_trio.lazy import lazily

if TYPE_CHECKING:
    from .client import ModuleClient as ModuleClient
    from .errors import DkTrioError as DkTrioError
    from .module import ArchetypeModule as ArchetypeModule
    from .module import BaseModule as BaseModule
    from .module import Conditional as Conditional
    from .module import ConditionalSchemaMixin as ConditionalSchemaMixin
    from .module import DataModel as DataModel
    from .module import DataTrigger as DataTrigger
    from .module import Dynamic as Dynamic
    from .module import EndOfStreamOutput as EndOfStreamOutput
    from .module import ModuleContext as ModuleContext
    from .module import ModuleDiscoverer as ModuleDiscoverer
    from .module import ModuleStartInfoOutput as ModuleStartInfoOutput
    from .module import RequestMetadata as RequestMetadata
    from .module import SelectSchema as SelectSchema
    from .module import SetupModel as SetupModel
    from .module import ToolModule as ToolModule
    from .module import ToolOptions as ToolOptions
    from .module import ToolReference as ToolReference
    from .module import TriggerHandler as TriggerHandler
    from .module import TrioModule as TrioModule
    from .module import tool_reference_input as tool_reference_input
    from .server import ModuleServer as ModuleServer
    from .services import BaseStrategy as BaseStrategy
    from .services import CostConfig as CostConfig
    from .services import ServicesStrategy as ServicesStrategy
    from .settings import Settings as Settings

__version__ = "0.1.0"

_HOMES = {
    "ArchetypeModule": "module",
    "BaseModule": "module",
    "BaseStrategy": "services",
    "Conditional": "module",
    "ConditionalSchemaMixin": "module",
    "CostConfig": "services",
    "DataModel": "module",
    "DataTrigger": "module",
    "DkTrioError": "errors",
    "Dynamic": "module",
    "EndOfStreamOutput": "module",
    "ModuleClient": "client",
    "ModuleContext": "module",
    "ModuleDiscoverer": "module",
    "ModuleServer": "server",
    "ModuleStartInfoOutput": "module",
    "RequestMetadata": "module",
    "SelectSchema": "module",
    "ServicesStrategy": "services",
    "Settings": "settings",
    "SetupModel": "module",
    "ToolModule": "module",
    "ToolOptions": "module",
    "ToolReference": "module",
    "TriggerHandler": "module",
    "TrioModule": "module",
    "tool_reference_input": "module",
}

__all__ = [  # noqa: PLE0604, RUF100
    "ArchetypeModule",
    "BaseModule",
    "BaseStrategy",
    "Conditional",
    "ConditionalSchemaMixin",
    "CostConfig",
    "DataModel",
    "DataTrigger",
    "DkTrioError",
    "Dynamic",
    "EndOfStreamOutput",
    "ModuleClient",
    "ModuleContext",
    "ModuleDiscoverer",
    "ModuleServer",
    "ModuleStartInfoOutput",
    "RequestMetadata",
    "SelectSchema",
    "ServicesStrategy",
    "Settings",
    "SetupModel",
    "ToolModule",
    "ToolOptions",
    "ToolReference",
    "TriggerHandler",
    "TrioModule",
    "tool_reference_input",
]

__getattr__, __dir__ = lazily(__name__, _HOMES)
