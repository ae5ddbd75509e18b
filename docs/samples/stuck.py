"""Three ways to be stuck: `dk-trio serve stuck.py`, then `dk-trio call HOST:PORT --protocol wait --input '{}'`."""

import time
from typing import Literal

import trio
from pydantic import BaseModel

from dk_trio import DataModel, DataTrigger, ModuleContext, SetupModel, TriggerHandler, TrioModule


class Question(DataTrigger):
    protocol: Literal["wait"] = "wait"
    how: Literal["park", "block", "shield"] = "park"


class Input(DataModel[Question]):
    pass


class Answer(DataTrigger):
    protocol: Literal["answer"] = "answer"


class Output(DataModel[Answer]):
    pass


class Nothing(SetupModel):
    pass


class Oracle(TrioModule[Input, Output, Nothing, BaseModel]):
    metadata = {"module_id": "modules:oracle", "name": "oracle"}


@Oracle.register
class Wait(TriggerHandler):
    protocol = "wait"

    # --8<-- [start:handler]
    async def handle(self, input_data: Question, setup_data: Nothing, context: ModuleContext) -> None:
        match input_data.how:
            case "park":
                await ask_the_oracle()
            case "block":
                time.sleep(4)  # noqa: ASYNC251  what this page is about
            case "shield":
                with trio.CancelScope(shield=True):
                    await trio.sleep(3600)

    # --8<-- [end:handler]


async def ask_the_oracle() -> None:
    await trio.sleep_forever()
