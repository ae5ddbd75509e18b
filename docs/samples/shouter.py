from typing import Literal

from dk_trio import DataModel, DataTrigger, ModuleContext, SetupModel, TriggerHandler, TrioModule


class Text(DataTrigger):
    protocol: Literal["shout"] = "shout"
    text: str


class Shouter(TrioModule[DataModel[Text], DataModel[Text], SetupModel]):
    name = "shouter"


@Shouter.register
class Shout(TriggerHandler[Text, SetupModel, Text]):
    protocol = "shout"

    async def handle(self, input_data: Text, setup_data: SetupModel, context: ModuleContext) -> None:
        for word in input_data.text.split():
            await context.send(Text(text=f"{word.upper()}!"))
