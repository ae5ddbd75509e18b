"""The services of a module's context: one Protocol each, the records that they speak in, and the strategies behind.

The service of setups is there too. Servers and programs use it; a context does not have it.

A strategy is a class with the methods of the Protocol. `Default...` keeps its data in this process and its directory;
`Grpc...` asks another process. Names are loaded when they are first used: a module without storage needs no database.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dk_trio.lazy import lazily

if TYPE_CHECKING:
    from .agent import Agent as Agent
    from .communication import Answers as Answers
    from .communication import Communication as Communication
    from .config import ServicesConfig as ServicesConfig
    from .cost import AmountLimit as AmountLimit
    from .cost import Cost as Cost
    from .cost import CostConfig as CostConfig
    from .cost import CostData as CostData
    from .cost import CostLimit as CostLimit
    from .cost import CostType as CostType
    from .cost import QuantityLimit as QuantityLimit
    from .filesystem import DeleteResult as DeleteResult
    from .filesystem import FileFilter as FileFilter
    from .filesystem import Filesystem as Filesystem
    from .filesystem import FilesystemRecord as FilesystemRecord
    from .filesystem import UploadFailure as UploadFailure
    from .filesystem import UploadFileData as UploadFileData
    from .filesystem import UploadResult as UploadResult
    from .identity import Identity as Identity
    from .local.agent import DefaultAgent as DefaultAgent
    from .local.communication import DefaultCommunication as DefaultCommunication
    from .local.cost import DefaultCost as DefaultCost
    from .local.filesystem import DefaultFilesystem as DefaultFilesystem
    from .local.identity import DefaultIdentity as DefaultIdentity
    from .local.platform import LocalPlatform as LocalPlatform
    from .local.registry import DefaultRegistry as DefaultRegistry
    from .local.setup_service import DefaultSetup as DefaultSetup
    from .local.snapshot import DefaultSnapshot as DefaultSnapshot
    from .local.storage import DefaultStorage as DefaultStorage
    from .local.user_profile import DefaultUserProfile as DefaultUserProfile
    from .registry import ModuleInfo as ModuleInfo
    from .registry import ModuleStatusInfo as ModuleStatusInfo
    from .registry import Registry as Registry
    from .registry import SetupInfo as SetupInfo
    from .remote.communication import GrpcCommunication as GrpcCommunication
    from .remote.cost import GrpcCost as GrpcCost
    from .remote.filesystem import GrpcFilesystem as GrpcFilesystem
    from .remote.registry import GrpcRegistry as GrpcRegistry
    from .remote.setup import GrpcSetup as GrpcSetup
    from .remote.storage import GrpcStorage as GrpcStorage
    from .remote.user_profile import GrpcUserProfile as GrpcUserProfile
    from .setup import SetupData as SetupData
    from .setup import SetupExistsError as SetupExistsError
    from .setup import SetupPage as SetupPage
    from .setup import SetupService as SetupService
    from .setup import SetupStatus as SetupStatus
    from .setup import SetupVersionData as SetupVersionData
    from .snapshot import Snapshot as Snapshot
    from .storage import DataType as DataType
    from .storage import Storage as Storage
    from .storage import StorageRecord as StorageRecord
    from .strategy import BaseStrategy as BaseStrategy
    from .strategy import ServicesMode as ServicesMode
    from .strategy import ServicesStrategy as ServicesStrategy
    from .user_profile import UserProfile as UserProfile

_HOMES = {
    name: home
    for home, names in {
        "agent": "Agent",
        "communication": "Answers Communication",
        "config": "ServicesConfig",
        "cost": "AmountLimit Cost CostConfig CostData CostLimit CostType QuantityLimit",
        "filesystem": "DeleteResult FileFilter Filesystem FilesystemRecord UploadFailure UploadFileData UploadResult",
        "identity": "Identity",
        "local.agent": "DefaultAgent",
        "local.communication": "DefaultCommunication",
        "local.cost": "DefaultCost",
        "local.filesystem": "DefaultFilesystem",
        "local.identity": "DefaultIdentity",
        "local.platform": "LocalPlatform",
        "local.registry": "DefaultRegistry",
        "local.setup_service": "DefaultSetup",
        "local.snapshot": "DefaultSnapshot",
        "local.storage": "DefaultStorage",
        "local.user_profile": "DefaultUserProfile",
        "registry": "ModuleInfo ModuleStatusInfo Registry SetupInfo",
        "remote.communication": "GrpcCommunication",
        "remote.cost": "GrpcCost",
        "remote.filesystem": "GrpcFilesystem",
        "remote.registry": "GrpcRegistry",
        "remote.setup": "GrpcSetup",
        "remote.storage": "GrpcStorage",
        "remote.user_profile": "GrpcUserProfile",
        "setup": "SetupData SetupExistsError SetupPage SetupService SetupStatus SetupVersionData",
        "snapshot": "Snapshot",
        "storage": "DataType Storage StorageRecord",
        "strategy": "BaseStrategy ServicesMode ServicesStrategy",
        "user_profile": "UserProfile",
    }.items()
    for name in names.split()
}

__all__ = sorted(_HOMES)  # noqa: PLE0605

__getattr__, __dir__ = lazily(__name__, _HOMES)
