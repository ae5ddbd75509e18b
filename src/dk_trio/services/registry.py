"""The registry: which modules and setups there are, and where the modules are served. Protocol and models.

Ids of modules and setups are the same with and without their prefixes (`modules:`, `setups:`).
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any, Final, Protocol

from pydantic import BaseModel, Field

from dk_trio.addresses import with_port

MODULE_PREFIX: Final = "modules:"
SETUP_PREFIX: Final = "setups:"


class RegistryModuleType(StrEnum):
    """What a module is for."""

    UNSPECIFIED = "unspecified"
    ARCHETYPE = "archetype"
    TOOL = "tool"


class RegistryModuleStatus(StrEnum):
    """How a module is: READY was registered, ACTIVE is served now, ARCHIVED is gone for good."""

    UNSPECIFIED = "unspecified"
    READY = "ready"
    ACTIVE = "active"
    ARCHIVED = "archived"


class ModuleInfo(BaseModel):
    """A module, and where it is served.

    Attributes:
        module_id: With or without the prefix `modules:`.
        module_type: `archetype`, `tool` or `unspecified`.
        address: Name or IP address of the server's host.
        port: The server's port.
        version: The module's version.
        module_name: Its name, for people.
        documentation: What it does, for people.
        status: Whether it is served now.
    """

    module_id: str
    module_type: RegistryModuleType = RegistryModuleType.UNSPECIFIED
    address: str = ""
    port: int = 0
    version: str = ""
    module_name: str = ""
    documentation: str = ""
    status: RegistryModuleStatus = RegistryModuleStatus.UNSPECIFIED


class ModuleStatusInfo(BaseModel):
    """How a module is."""

    module_id: str
    status: RegistryModuleStatus = RegistryModuleStatus.UNSPECIFIED


class SetupInfo(BaseModel):
    """A setup: a stored configuration of one module.

    `status` and `visibility` are the registry's words in lower case, such as `ready` and `private`; `config` is the
    content of the current version, where the registry tells it.
    """

    setup_id: str
    module_id: str
    name: str = ""
    documentation: str = ""
    status: str = "unspecified"
    visibility: str = "unspecified"
    organization_id: str = ""
    owner_id: str = ""
    card_id: str = ""
    setup_version_id: str = ""
    setup_version: str = ""
    config: dict[str, Any] = Field(default_factory=dict)


class Registry(Protocol):
    """Finds modules and setups. Every method may raise `RegistryServiceError`."""

    async def discover_by_id(self, module_id: str) -> ModuleInfo:
        """The module of this id.

        Raises:
            RegistryModuleNotFoundError: No module has this id.
        """
        ...

    async def search(
        self,
        name: str | None = None,
        module_type: RegistryModuleType | str | None = None,
        organization_id: str | None = None,
    ) -> Sequence[ModuleInfo]:
        """The modules whose name or id contains `name`, in any case of letters; None does not restrict."""
        ...

    async def get_status(self, module_id: str) -> ModuleStatusInfo:
        """How a module is.

        Raises:
            RegistryModuleNotFoundError: No module has this id.
        """
        ...

    async def register(self, module_id: str, address: str, port: int, version: str) -> ModuleInfo | None:
        """From now on the module is served at this address. None: the registry took it without saying more."""
        ...

    async def heartbeat(self, module_id: str) -> RegistryModuleStatus:
        """Say that a module is still served.

        Raises:
            RegistryModuleNotFoundError: No module has this id; it has to be registered again.
        """
        ...

    async def get_setup(self, setup_id: str) -> SetupInfo | None:
        """The setup of this id; None when there is none."""
        ...

    async def deregister(self, module_id: str) -> bool:
        """The module is no longer served here. Whether the registry knew it."""
        ...

    async def wait_for_ready(self, timeout: float) -> bool:
        """Whether the registry can be asked, within `timeout` seconds."""
        ...


def bare_module_id(module_id: str) -> str:
    """The id without its prefix, by which modules are compared."""
    return module_id.removeprefix(MODULE_PREFIX)


def bare_setup_id(setup_id: str) -> str:
    """The id without its prefix, by which setups are compared."""
    return setup_id.removeprefix(SETUP_PREFIX)


def target_of(address: str, port: int) -> str:
    """Host and port as one target; an IPv6 address gets its brackets, a Unix socket has no port."""
    if address.startswith("unix:"):
        return address
    return with_port(address, port)
