"""The smallest module: it says what it was told.

dk-trio serve examples/echo.py --port 50055
dk-trio call 127.0.0.1:50055 --protocol message --input '{"text": "hello"}'
"""

from typing import Literal

from dk_trio import DataModel, DataTrigger, ModuleContext, SetupModel, TriggerHandler, TrioModule


class Message(DataTrigger):
    """Something to say."""

    protocol: Literal["message"] = "message"
    text: str


class EchoSetup(SetupModel):
    """How to say it."""

    prefix: str = ""


class Echo(TrioModule[DataModel[Message], DataModel[Message], EchoSetup]):
    """Answers each message with its own text."""

    name = "echo"


@Echo.register
class OnMessage(TriggerHandler[Message, EchoSetup, Message]):
    """Handles the protocol "message"."""

    protocol = "message"

    async def handle(self, input_data: Message, setup_data: EchoSetup, context: ModuleContext) -> None:
        """Send one output."""
        await context.send(Message(text=setup_data.prefix + input_data.text))
