"""Setups as jobs need them, from the service that keeps them."""

from __future__ import annotations

from dk_trio.errors import DkTrioError, SetupNotFoundError, SetupUnavailableError, Violation
from dk_trio.services.registry import bare_module_id
from dk_trio.services.setup import SetupData, SetupService, SetupVersion, bare


async def stored_setup(service: SetupService | None, setup_id: str) -> SetupData | None:
    """A stored setup of any module; None when none is stored under this id.

    Raises:
        SetupUnavailableError: It cannot be told now.
    """
    if service is None or not bare(setup_id):  # callers may name none: nothing is stored under no id
        return None
    try:
        return await service.get_setup(setup_id)
    except SetupNotFoundError:
        return None
    except DkTrioError as error:
        text = f"Whether there is a setup {setup_id!r} cannot be told: {error.message}"
        raise SetupUnavailableError(text, hint=error.hint) from error


async def owner_of(service: SetupService | None, setup_id: str) -> str:
    """The id of the module that a stored setup is for; empty when none is stored under this id."""
    setup = await stored_setup(service, setup_id)
    return "" if setup is None else setup.module_id


class StoredSetups:
    """The current versions of a module's stored setups: a `SetupSource`.

    Args:
        service: Keeps them, here or behind a provider.
        module_id: The module; setups of others do not count.
    """

    def __init__(self, service: SetupService, module_id: str) -> None:
        self._service = service
        self._module_id = module_id

    def __repr__(self) -> str:
        return f"<StoredSetups of {self._module_id} in {self._service!r}>"

    async def get_setup(self, setup_id: str, mission_id: str) -> SetupVersion:
        """See `SetupSource.get_setup`."""
        setup = await stored_setup(self._service, setup_id)
        if setup is None:
            raise self._not_found(setup_id, "none is stored under it" if bare(setup_id) else "it is empty")
        if bare_module_id(setup.module_id) != bare_module_id(self._module_id):
            raise self._not_found(setup_id, f"it is one of the module {setup.module_id!r}")
        version = setup.current_setup_version
        if version is None:
            raise SetupNotFoundError(
                f"Setup {setup_id!r} is stored without a version.", hint="Make one with create_setup_version."
            )
        return SetupVersion(id=version.id, setup_id=setup_id, content=version.content, version=version.version)

    async def owner(self, setup_id: str) -> str:
        """The module that a stored setup is for; empty when none is stored under this id.

        Raises:
            SetupUnavailableError: It cannot be told now.
        """
        return await owner_of(self._service, setup_id)

    def _not_found(self, setup_id: str, why: str) -> SetupNotFoundError:
        return SetupNotFoundError(
            f"Setup {setup_id!r} not found for the module {self._module_id!r}: {why}.",
            violations=[Violation("setup_id", f"must be the id of a setup of this module, not {setup_id!r}: {why}")],
        )
