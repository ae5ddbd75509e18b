"""The agent behind a job: the protocol of the agent service."""

from __future__ import annotations

from typing import Protocol


class Agent(Protocol):
    """An agent runtime that an author plugs in with a strategy of his own; the default one has nothing to run.

    `start` and `stop` are for the author's code to call. What must stop with the job belongs into `close` of the
    strategy, which is always called.
    """

    async def start(self) -> None:
        """Start the agent."""
        ...

    async def stop(self) -> None:
        """Stop the agent."""
        ...
