"""A module that waits, notes what it reminds of, and says so."""

from typing import Literal

import trio
from grpclib import Status
from pydantic import BaseModel, Field

from dk_trio import DataModel, DataTrigger, DkTrioError, ModuleContext, SetupModel, TriggerHandler, TrioModule

PATIENCE = 10
"""Seconds between two tries to keep a note."""


class Remind(DataTrigger):
    protocol: Literal["remind"] = "remind"
    text: str
    after: float = Field(description="Seconds to wait.")


class Reminder(DataTrigger):
    protocol: Literal["reminder"] = "reminder"
    text: str


class Setup(SetupModel):
    sign: str = "!"


class Note(BaseModel):
    text: str


class Reminders(TrioModule[DataModel[Remind], DataModel[Reminder], Setup]):
    name = "reminders"
    metadata = {"module_id": "modules:reminders"}
    services_config_params = {"storage": {"config": {"notes": Note}}}


@Reminders.register
class OnRemind(TriggerHandler[Remind, Setup, Reminder]):
    protocol = "remind"

    async def handle(self, input_data: Remind, setup_data: Setup, context: ModuleContext) -> None:
        await trio.sleep(input_data.after)
        while True:
            try:
                await context.storage.store("notes", None, Note(text=input_data.text))
                break
            except DkTrioError as error:
                if error.status is not Status.UNAVAILABLE:
                    raise
            await trio.sleep(PATIENCE)  # whoever keeps the notes is away
        await context.send(Reminder(text=input_data.text + setup_data.sign))
