"""Setups: a module's stored configurations, by id. The protocol that a servicer asks; strategies stand beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

PREFIX = "setups:"


@dataclass(frozen=True, slots=True, kw_only=True)
class SetupVersion:
    """One version of a setup.

    Attributes:
        id: Id of the version, told to the caller as `setup_version_id`.
        setup_id: Id of the setup.
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
        """
        ...


def bare(setup_id: str) -> str:
    """The id without its prefix: callers send both, and both mean the same setup."""
    return setup_id.removeprefix(PREFIX)
