"""Setups: a module's stored configurations, by id. What a servicer asks, and the service that keeps them.

A servicer needs one method, `SetupSource.get_setup`. `SetupService` is the whole service, for programs that make and
change setups; it is no service of a module's context. A setup has versions, each with a content; one of them is its
current version, which jobs run with.

Ids are the same with and without their prefixes (`setups:`, `setup_versions:`); what the service returns has them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, NamedTuple, Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict

from dk_trio.errors import SetupExistsError as SetupExistsError

PREFIX: Final = "setups:"
VERSION_PREFIX: Final = "setup_versions:"

PAGE_MAX: Final = 1000
"""Entries of one page at most, as the wire has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SetupVersion:
    """One version of a setup, as a servicer needs it.

    Attributes:
        id: Id of the version, told to the caller as `setup_version_id`.
        setup_id: Id of the setup, with or without the prefix `setups:`.
        content: What the module's setup format is validated against. Not to be changed.
        version: Its name; empty where nobody has given one.
    """

    id: str
    setup_id: str
    content: Mapping[str, Any]
    version: str = ""


class SetupSource(Protocol):
    """Where setups come from."""

    async def get_setup(self, setup_id: str, mission_id: str) -> SetupVersion:
        """The current version of a setup.

        Args:
            setup_id: With or without the prefix `setups:`.
            mission_id: The mission that asks.

        Raises:
            SetupNotFoundError: There is none with this id.
            SetupUnavailableError: It cannot be told now whether there is one.
        """
        ...


@runtime_checkable
class SetupStore(SetupSource, Protocol):
    """A source that also keeps what ConfigSetupModule makes, as a cache and the local setups do.

    By default a configured setup is not written anywhere: ConfigSetupModule returns it, and its caller persists it
    (reference, 3.3). Until the caller has done so, `put` lets this process serve it. A source that asks a remote
    service has no `put`, since there the caller's write is the truth.
    """

    def put(self, version: SetupVersion) -> None:
        """From now on `version` is the current version of its setup."""
        ...


# --- the service -----------------------------------------------------------------------------------------------------


class SetupStatus(StrEnum):
    """How a setup is, for those who manage it. A servicer does not look at it."""

    DRAFT = "draft"
    VALIDATING = "validating"
    READY = "ready"
    PAUSED = "paused"
    FAILED = "failed"
    ARCHIVED = "archived"
    NEEDS_CONFIGURATION = "needs_configuration"
    CONFIGURATION_FAILED = "configuration_failed"
    CONFIGURATION_SUCCEEDED = "configuration_succeeded"


class SetupVersionData(BaseModel):
    """A version as it is stored.

    Attributes:
        id: Unique among all versions, with the prefix `setup_versions:`.
        setup_id: Its setup, with the prefix `setups:`.
        version: Its name, unique in its setup.
        content: What the module's setup format is validated against, when a job starts with it.
        creation_date: When it was made (UTC).
    """

    model_config = ConfigDict(frozen=True)

    id: str
    setup_id: str
    version: str
    content: dict[str, Any]
    creation_date: datetime


class SetupData(BaseModel):
    """A setup as it is stored.

    Attributes:
        id: Unique, with the prefix `setups:`.
        name: For people.
        organisation_id: Whose it is.
        owner_id: Who has made it.
        module_id: The module that it configures.
        current_setup_version: What jobs run with; None: there is no version yet.
        status: How it is.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    name: str
    organisation_id: str
    owner_id: str
    module_id: str
    current_setup_version: SetupVersionData | None = None
    status: SetupStatus = SetupStatus.READY


class SetupPage(NamedTuple):
    """Some of the setups that were asked for.

    Attributes:
        setups: Oldest first.
        total_count: How many there are on all pages.
    """

    setups: list[SetupData]
    total_count: int


class SetupService(Protocol):
    """Setups and their versions. Every method may raise `SetupServiceError`: it was refused, or the service failed.

    Arguments that are None do not restrict a search, and do not change a field. The existing SDK takes one dict for
    each call; the fields of those dicts are arguments here.

    A class may have an attribute `store_configured` besides. If it is true, a server hands it what ConfigSetupModule
    makes, and answers when that is stored: `await put_configured(SetupVersion(...), module_id=..., name=...)`.
    """

    async def create_setup(
        self,
        *,
        name: str,
        module_id: str,
        organisation_id: str = "",
        owner_id: str = "",
        content: Mapping[str, Any] | None = None,
        version: str = "1",
        status: SetupStatus | str = SetupStatus.READY,
    ) -> SetupData:
        """A new setup. With `content` it gets its first version, named `version`, which is its current one."""
        ...

    async def get_setup(self, setup_id: str) -> SetupData:
        """A setup with its current version.

        Raises:
            SetupNotFoundError: There is none with this id.
        """
        ...

    async def update_setup(
        self,
        setup_id: str,
        *,
        name: str | None = None,
        owner_id: str | None = None,
        status: SetupStatus | str | None = None,
        current_setup_version_id: str | None = None,
    ) -> SetupData:
        """Change a setup. Jobs that start from now on run with the version that is current now.

        Raises:
            SetupNotFoundError: There is no such setup, or it has no version of the id `current_setup_version_id`.
        """
        ...

    async def delete_setup(self, setup_id: str) -> bool:
        """Delete a setup and its versions. False when there was none."""
        ...

    async def create_setup_version(
        self, setup_id: str, *, version: str, content: Mapping[str, Any]
    ) -> SetupVersionData:
        """A new version. It becomes current if it is the first; otherwise `update_setup` makes it so.

        Args:
            setup_id: Its setup.
            version: Its name.
            content: JSON values. Whether they fit the module is found when a job starts with them.

        Raises:
            SetupNotFoundError: There is no such setup.
            SetupExistsError: The setup has a version of this name. Of several callers at once one succeeds.
        """
        ...

    async def get_setup_version(self, setup_version_id: str) -> SetupVersionData:
        """A version.

        Raises:
            SetupNotFoundError: There is none with this id.
        """
        ...

    async def search_setup_versions(
        self, *, setup_id: str | None = None, version: str | None = None, limit: int = 100, offset: int = 0
    ) -> list[SetupVersionData]:
        """Versions by setup and name, oldest first.

        Args:
            setup_id: Those of this setup; none when there is no such setup.
            version: Those of this name.
            limit: At most so many, 1 to 1000.
            offset: Leave out so many first.
        """
        ...

    async def update_setup_version(
        self, setup_version_id: str, *, version: str | None = None, content: Mapping[str, Any] | None = None
    ) -> SetupVersionData:
        """Change a version's name or content.

        Raises:
            SetupNotFoundError: There is none with this id.
            SetupExistsError: The setup has another version of this name.
        """
        ...

    async def delete_setup_version(self, setup_version_id: str) -> bool:
        """Delete a version that is not the current one. False when there was none.

        Raises:
            SetupServiceError: It is the current version of its setup.
        """
        ...

    async def list_setups(
        self, *, organisation_id: str | None = None, owner_id: str | None = None, limit: int = 100, offset: int = 0
    ) -> SetupPage:
        """Setups by organisation and owner.

        Args:
            organisation_id: Those of this organisation.
            owner_id: Those of this owner.
            limit: At most so many, 1 to 1000.
            offset: Leave out so many first.
        """
        ...


def bare(setup_id: str) -> str:
    """The id without its prefix: callers send both, and both mean the same setup."""
    return setup_id.removeprefix(PREFIX)


def bare_version(setup_version_id: str) -> str:
    """The id of a version without its prefix."""
    return setup_version_id.removeprefix(VERSION_PREFIX)
