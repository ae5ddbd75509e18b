"""Strategies: which class stands behind each service of a context, and how it is made.

A service is a Protocol (`dk_trio.services.storage.Storage`, ...). Behind it stands one class in local mode and one in
remote mode. A module overrides the pairs with `services_config_strategies`, and gives its own parameters with
`services_config_params`; a parameter is passed to whichever class takes it, so one dict serves both modes.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class ServicesMode(StrEnum):
    """Where a module's services are: in this process, or behind a services-provider."""

    LOCAL = "local"
    REMOTE = "remote"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServicesStrategy:
    """The classes behind one service, by mode; None: the one that it has without this.

    A class is called as `cls(mission_id, setup_id, setup_version_id, **parameters)`, once for each job that uses the
    service. `BaseStrategy` has that constructor, and methods that do nothing.
    """

    local: type | None = None
    remote: type | None = None


class BaseStrategy:
    """What a strategy has besides the methods of its Protocol. Deriving from it is convenient, not required.

    Args:
        mission_id: The mission of the job.
        setup_id: Its setup.
        setup_version_id: The version of the setup.
    """

    def __init__(self, mission_id: str, setup_id: str, setup_version_id: str) -> None:
        self.mission_id = mission_id
        self.setup_id = setup_id
        self.setup_version_id = setup_version_id

    async def close(self) -> None:
        """Called when the job has ended, for at most a bounded time, shielded from its cancellation."""

    async def check_health(self) -> None:
        """Raise when the service cannot work now. Awaited with a deadline by the `healthcheck_services` protocol."""
