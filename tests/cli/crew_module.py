"""A module that tells which process serves a call."""

import os
from pathlib import Path
from typing import Literal

import trio
from pydantic import BaseModel

from dk_trio import DataModel, ModuleContext, SetupModel, TriggerHandler, TrioModule

EDITION = 1


class Who(BaseModel):
    protocol: Literal["who"] = "who"
    until: str = ""
    """Stay until this file is there."""


class Me(BaseModel):
    protocol: Literal["me"] = "me"
    pid: int
    edition: int


class CrewModule(TrioModule[DataModel[Who], DataModel[Me], SetupModel]):
    name = "crew"


@CrewModule.register
class OnWho(TriggerHandler[Who, SetupModel, Me]):
    protocol = "who"

    async def handle(self, input_data: Who, setup_data: SetupModel, context: ModuleContext) -> None:
        await context.send({"protocol": "me", "pid": os.getpid(), "edition": EDITION})
        while input_data.until and not Path(input_data.until).exists():  # noqa: ASYNC110 - an event would need a caller
            await trio.sleep(0.05)
