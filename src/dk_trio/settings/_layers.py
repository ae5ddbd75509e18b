"""The layers: one frozen dataclass each, in the order in which a request meets them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ._channel import ChannelSettings as ChannelSettings
from ._lifecycle import LifecycleSettings as LifecycleSettings
from ._observe import ObserveSettings as ObserveSettings
from ._security import SecuritySettings as SecuritySettings
from ._server import RPCS_PER_CPU as RPCS_PER_CPU
from ._server import ModuleSettings as ModuleSettings
from ._server import ServerSettings as ServerSettings
from ._services import ServicesSettings as ServicesSettings
from ._signals import QuerySettings as QuerySettings
from ._signals import SignalSettings as SignalSettings
from ._tasks import SlotWait as SlotWait
from ._tasks import TaskSettings as TaskSettings

LAYERS: Mapping[str, type[Any]] = {
    "server": ServerSettings,
    "module": ModuleSettings,
    "tasks": TaskSettings,
    "lifecycle": LifecycleSettings,
    "services": ServicesSettings,
    "signals": SignalSettings,
    "query": QuerySettings,
    "channel": ChannelSettings,
    "security": SecuritySettings,
    "observe": ObserveSettings,
}
"""By the name of the field of `Settings`."""
