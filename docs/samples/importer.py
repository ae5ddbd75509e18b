"""A module that writes what it has gathered, however its job ends."""

from typing import Literal

import trio

from dk_trio import DataModel, DataTrigger, ModuleContext, SetupModel, TriggerHandler, TrioModule

store: list[int] = []  # stands for a database


class Import(DataTrigger):
    protocol: Literal["import"] = "import"
    count: int


class Importer(TrioModule[DataModel[Import], DataModel[Import], SetupModel]):
    name = "importer"

    async def initialize(self, context: ModuleContext, setup_data: SetupModel) -> None:
        context.state.unsaved = []  # first, and without an await: cleanup runs as soon as initialize began

    async def cleanup(self) -> None:
        # The session shields this from cancellation, for a bounded time: an await works here as anywhere else.
        await trio.sleep(1)  # the way to the database
        store.extend(self.context.state.unsaved)


@Importer.register
class OnImport(TriggerHandler[Import, SetupModel, Import]):
    protocol = "import"

    async def handle(self, input_data: Import, setup_data: SetupModel, context: ModuleContext) -> None:
        for number in range(input_data.count):
            await trio.sleep(10)  # ask somebody for a record
            context.state.unsaved.append(number)
            await context.send(Import(count=number + 1))
