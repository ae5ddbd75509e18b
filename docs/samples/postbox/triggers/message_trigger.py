"""One protocol, two handlers: an input goes to the handler of its own type."""

from dk_trio import ModuleContext, SetupModel, TriggerHandler
from postbox.module import Letter, Note, Postbox, Receipt


@Postbox.register
class OnNote(TriggerHandler[Note, SetupModel, Receipt]):
    protocol = "message"
    description = "Takes a note, or a letter"

    async def handle(self, input_data: Note, setup_data: SetupModel, context: ModuleContext) -> None:
        await context.send(Receipt(line=f"note: {input_data.text}"))


@Postbox.register
class OnLetter(TriggerHandler[Letter, SetupModel, Receipt]):
    protocol = "message"

    async def handle(self, input_data: Letter, setup_data: SetupModel, context: ModuleContext) -> None:
        await context.send(Receipt(line=f"letter: {input_data.subject}"))
