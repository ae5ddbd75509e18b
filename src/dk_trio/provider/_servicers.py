"""The services of the provider: one line for each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .cost import CostServicer
from .filesystem import FilesystemServicer
from .module_registry import ModuleRegistryServicer
from .provider_service import ProviderServicer
from .registry import RegistryServicer
from .setup import SetupServicer
from .storage import StorageServicer
from .task_manager import TaskManagerServicer
from .user_profile import UserProfileServicer

if TYPE_CHECKING:
    from ._base import Servicer

SERVICERS: Final[tuple[type[Servicer], ...]] = (
    CostServicer,
    FilesystemServicer,
    ModuleRegistryServicer,
    ProviderServicer,
    RegistryServicer,
    SetupServicer,
    StorageServicer,
    TaskManagerServicer,
    UserProfileServicer,
)
