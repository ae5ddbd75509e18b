"""A module out of one function: its annotations say what it takes and gives, its docstring what it does."""

from collections.abc import AsyncIterator
from typing import Literal

from dk_trio import DataTrigger, SetupModel, ToolModule


class Start(DataTrigger):
    protocol: Literal["count"] = "count"
    start: int


class Tick(DataTrigger):
    protocol: Literal["tick"] = "tick"
    left: int


class CountdownSetup(SetupModel):
    step: int = 1


@ToolModule.from_function
async def countdown(start: Start, setup: CountdownSetup) -> AsyncIterator[Tick]:
    """Counts down."""
    for left in range(start.start, 0, -setup.step):
        yield Tick(left=left)
