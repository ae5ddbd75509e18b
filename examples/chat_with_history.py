"""A conversation that is remembered: the next job of the mission knows what was said in this one.

    dk-trio serve examples/chat_with_history.py --port 50055
    dk-trio call 127.0.0.1:50055 --protocol message --input '{"text": "my name is Ada"}'
    dk-trio call 127.0.0.1:50055 --protocol message --input '{"text": "what did I say?"}'

Messages are written together, every `DIGITALKIN_CHAT_HISTORY_FLUSH_THRESHOLD` of them, and when the job ends: also when
it fails or is cancelled.
"""

from typing import Literal

import trio

from dk_trio import DataModel, DataTrigger, ModuleContext, SetupModel, TriggerHandler, TrioModule
from dk_trio.module import BaseRole, ChatHistory, ChatHistoryMixin


class Message(DataTrigger):
    """Something that is said."""

    protocol: Literal["message"] = "message"
    text: str


class ChatSetup(SetupModel):
    """How the other side talks."""

    think_s: float = 0.1
    """Seconds to think about an answer."""


class Chat(TrioModule[DataModel[Message], DataModel[Message], ChatSetup]):
    """Talks, and remembers."""

    name = "chat"
    services_config_params = {"storage": {"config": {"chat_history": ChatHistory}}}


@Chat.register
class OnMessage(ChatHistoryMixin, TriggerHandler[Message, ChatSetup, Message]):
    """Answers with what it remembers; a language model would be given the same messages."""

    protocol = "message"

    async def handle(self, input_data: Message, setup_data: ChatSetup, context: ModuleContext) -> None:
        """Remember, think, answer."""
        before = await self.load_chat_history(context)
        said = [message.content for message in before.messages if message.role == BaseRole.USER]
        await self.append_chat_history_message(context, BaseRole.USER, input_data.text)
        await trio.sleep(setup_data.think_s)
        text = f"You have said: {'; '.join(said)}." if said else "Tell me more."
        await self.append_chat_history_message(context, BaseRole.ASSISTANT, text)
        await context.send(Message(text=text))
