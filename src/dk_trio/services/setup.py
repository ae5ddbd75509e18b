"""Setups: a module's stored configurations, by id. The protocol that a servicer asks; strategies stand beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

PREFIX = "setups:"


@dataclass(frozen=True, slots=True, kw_only=True)
class SetupVersion:
    """One version of a setup.

    Attributes:
        id: Id of the version, told to the caller as `setup_version_id`.
        setup_id: Id of the setup, with or without the prefix `setups:`.
        content: What the module's setup format is validated against. Not to be changed.
    """

    id: str
    setup_id: str
    content: Mapping[str, Any]


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

    A configured setup is not written anywhere: ConfigSetupModule returns it, and its caller persists it (reference,
    3.3). Until the caller has done so, `put` lets this process serve it. A source that asks a remote service has no
    `put`, since there the caller's write is the truth.
    """

    def put(self, version: SetupVersion) -> None:
        """From now on `version` is the current version of its setup."""
        ...


def bare(setup_id: str) -> str:
    """The id without its prefix: callers send both, and both mean the same setup."""
    return setup_id.removeprefix(PREFIX)
