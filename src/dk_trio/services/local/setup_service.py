"""The setup service of this process: setups that are stored in the platform's database.

async with server.opened():
    setups = DefaultSetup(platform=server.platform)
    setup = await setups.create_setup(name="Loud", module_id="modules:shout", content={"prefix": "!"})
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from dk_trio import chance
from dk_trio.errors import SetupServiceError, StorageServiceError
from dk_trio.services.setup import (
    PREFIX,
    SetupData,
    SetupPage,
    SetupService,
    SetupStatus,
    SetupVersion,
    SetupVersionData,
    bare,
    bare_version,
)
from dk_trio.services.setup_checks import (
    check_page,
    checked_id,
    checked_json,
    checked_status,
    checked_text,
    checked_text_or_none,
    new_version,
    not_found,
)
from dk_trio.services.strategy import BaseStrategy

if TYPE_CHECKING:
    from .platform import LocalPlatform


class DefaultSetup(BaseStrategy, SetupService):
    """The local `SetupService`: see there for what its methods promise.

    What a method has returned for is durable, in a platform with a directory. A server in this process that serves the
    module runs its next job with what was stored.

    Args:
        mission_id: The mission of the job; there is none where a server or a program asks.
        setup_id: Its setup.
        setup_version_id: The version of the setup.
        platform: Where setups are kept.
        store_configured: A server stores what ConfigSetupModule makes, before it answers.
    """

    def __init__(
        self,
        mission_id: str = "",
        setup_id: str = "",
        setup_version_id: str = "",
        *,
        platform: LocalPlatform,
        store_configured: bool = False,
    ) -> None:
        super().__init__(mission_id, setup_id, setup_version_id)
        self.store_configured = store_configured
        self._platform = platform
        self._table = platform.setups

    def __repr__(self) -> str:
        return f"<DefaultSetup in {self._platform!r}>"

    async def check_health(self) -> None:
        """See `Database.check_health`."""
        with _told():
            await self._platform.database.check_health()

    # --- setups ------------------------------------------------------------------------------------------------------

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
        setup_id: str | None = None,
    ) -> SetupData:
        """See `SetupService.create_setup`.

        Args:
            name: For people.
            module_id: The module that it configures.
            organisation_id: Whose it is.
            owner_id: Who makes it.
            content: Of its first version; without it there is none.
            version: Name of the first version.
            status: How it is.
            setup_id: The id by which callers choose it; a new one when None.

        Raises:
            SetupExistsError: There is a setup with the id `setup_id`.
        """
        setup_id = PREFIX + (chance.new_uuid().hex if setup_id is None else checked_id("setup_id", bare, setup_id))
        setup = SetupData(
            id=setup_id,
            name=checked_text("name", name),
            organisation_id=checked_text("organisation_id", organisation_id, empty=True),
            owner_id=checked_text("owner_id", owner_id, empty=True),
            module_id=checked_text("module_id", module_id),
            status=checked_status(status),
            current_setup_version=None if content is None else new_version(setup_id, version, content),
        )
        with _told():
            await self._table.create(setup)
        return setup

    async def get_setup(self, setup_id: str) -> SetupData:
        with _told():
            setup = await self._table.get(checked_id("setup_id", bare, setup_id))
        if setup is None:
            raise not_found("setup", "setup_id", setup_id)
        return setup

    async def update_setup(
        self,
        setup_id: str,
        *,
        name: str | None = None,
        owner_id: str | None = None,
        status: SetupStatus | str | None = None,
        current_setup_version_id: str | None = None,
    ) -> SetupData:
        if current_setup_version_id is not None:
            checked_id("current_setup_version_id", bare_version, current_setup_version_id)
        with _told():
            return await self._table.update(
                checked_id("setup_id", bare, setup_id),
                name=None if name is None else checked_text("name", name),
                owner_id=checked_text_or_none("owner_id", owner_id),
                status=None if status is None else checked_status(status).value,
                current=current_setup_version_id,
            )

    async def delete_setup(self, setup_id: str) -> bool:
        with _told():
            return await self._table.delete(checked_id("setup_id", bare, setup_id))

    async def list_setups(
        self, *, organisation_id: str | None = None, owner_id: str | None = None, limit: int = 100, offset: int = 0
    ) -> SetupPage:
        check_page(limit, offset)
        owners = {
            "organisation_id": checked_text_or_none("organisation_id", organisation_id),
            "owner_id": checked_text_or_none("owner_id", owner_id),
        }
        with _told():
            return await self._table.page(**owners, limit=limit, offset=offset)

    # --- versions ----------------------------------------------------------------------------------------------------

    async def create_setup_version(
        self, setup_id: str, *, version: str, content: Mapping[str, Any]
    ) -> SetupVersionData:
        made = new_version(PREFIX + checked_id("setup_id", bare, setup_id), version, content)
        with _told():
            await self._table.create_version(made)
        return made

    async def get_setup_version(self, setup_version_id: str) -> SetupVersionData:
        with _told():
            version = await self._table.get_version(checked_id("setup_version_id", bare_version, setup_version_id))
        if version is None:
            raise not_found("setup version", "setup_version_id", setup_version_id)
        return version

    async def search_setup_versions(
        self, *, setup_id: str | None = None, version: str | None = None, limit: int = 100, offset: int = 0
    ) -> list[SetupVersionData]:
        check_page(limit, offset)
        which = {
            "setup_id": checked_text_or_none("setup_id", setup_id),
            "version": checked_text_or_none("version", version),
        }
        with _told():
            return await self._table.versions(**which, limit=limit, offset=offset)

    async def update_setup_version(
        self, setup_version_id: str, *, version: str | None = None, content: Mapping[str, Any] | None = None
    ) -> SetupVersionData:
        with _told():
            return await self._table.update_version(
                checked_id("setup_version_id", bare_version, setup_version_id),
                version=None if version is None else checked_text("version", version),
                content=None if content is None else checked_json(content),
            )

    async def delete_setup_version(self, setup_version_id: str) -> bool:
        with _told():
            return await self._table.delete_version(checked_id("setup_version_id", bare_version, setup_version_id))

    async def put_configured(self, version: SetupVersion, *, module_id: str, name: str) -> None:
        """What ConfigSetupModule has made is the current version of its setup, which is made if need be.

        A version with the same id or the same name is replaced. Where the caller has given no name or no id, they are
        made of each other and of the setup's id, as in the file of setups.

        Args:
            version: What was made.
            module_id: The module that has made it.
            name: Of the setup, if it is new.

        Raises:
            SetupExistsError: The setup is another module's, or the id of the version another setup's.
        """
        key = checked_id("setup_version.setup_id", bare, version.setup_id)
        label = checked_text("setup_version.version", version.version or bare_version(version.id) or "1")
        version_key = checked_id("setup_version.id", bare_version, version.id or f"{key}-{label}")
        made = new_version(PREFIX + key, label, version.content, version_key)
        setup = SetupData(
            id=PREFIX + key, name=name, organisation_id="", owner_id="", module_id=module_id, current_setup_version=made
        )
        with _told():
            await self._table.put_version(setup)


@contextmanager
def _told() -> Iterator[None]:
    """What the database says, as an error of this service."""
    try:
        yield
    except StorageServiceError as error:
        raise SetupServiceError(error.message, hint=error.hint) from error
