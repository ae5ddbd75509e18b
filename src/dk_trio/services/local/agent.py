"""No agent: what stands behind the service unless a module names a strategy of its own."""

from __future__ import annotations

from dk_trio.services.agent import Agent
from dk_trio.services.strategy import BaseStrategy


class DefaultAgent(BaseStrategy, Agent):
    """Starts and stops nothing."""

    async def start(self) -> None:
        pass

    async def stop(self) -> None:
        pass
