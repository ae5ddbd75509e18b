"""new-module: a conversation that is remembered, its answers streamed word by word.

    dk-trio serve new_module.py --port 50055
    dk-trio call 127.0.0.1:50055 --protocol message --input '{"text": "my name is Ada"}'

Put a language model into `think`. What was said belongs to the mission (`--mission-id`) and outlives the job.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from typing import Annotated, Literal

import trio
from dk_trio import (
    ArchetypeModule,
    DataModel,
    DataTrigger,
    Dynamic,
    ModuleContext,
    SetupModel,
    TriggerHandler,
)
from dk_trio.module import BaseRole, ChatHistory, ChatHistoryMixin
from dk_trio.services import CostConfig, CostType
from pydantic import Field

PACE_S = {"fast": 0.01, "slow": 0.2}
"""Seconds for a word, by model; stands for a provider of language models."""


class Message(DataTrigger):
    """What the user says."""

    protocol: Literal["message"] = "message"
    text: str = Field(min_length=1)


class Piece(DataTrigger):
    """A piece of the answer, as it comes."""

    protocol: Literal["piece"] = "piece"
    text: str


async def models() -> list[str]:
    """The choices of the form, asked for when somebody opens it."""
    await trio.sleep(0.1)  # stands for a call of the provider
    return list(PACE_S)


class Setup(SetupModel):
    """What an operator chooses."""

    model: Annotated[str, Dynamic(enum=models)] = Field(default="fast", title="Model")
    instructions: str = Field(
        default="You are brief.", title="Instructions", json_schema_extra={"ui:widget": "textarea"}
    )


WORD = CostConfig(cost_name="words", cost_type=CostType.TOKEN_OUTPUT, unit="word", rate=0.001)


class NewModule(ArchetypeModule[DataModel[Message], DataModel[Piece], Setup]):
    """Talks, and remembers."""

    name = "new-module"
    description = "Talks, and remembers."
    metadata = {"module_id": "modules:new-module", "version": "0.1.0"}
    services_config_params = {
        "cost": {"config": {"words": WORD}},
        "storage": {"config": {"chat_history": ChatHistory}},
    }


@NewModule.register
class OnMessage(ChatHistoryMixin, TriggerHandler[Message, Setup, Piece]):
    """Remembers what was said, also of a job that was cancelled, and of an answer what the user has got of it."""

    protocol = "message"

    async def handle(self, input_data: Message, setup_data: Setup, context: ModuleContext) -> AsyncIterator[Piece]:
        """Answer one message."""
        history = await self.load_chat_history(context)
        said = [str(message.content) for message in history.messages if message.role == BaseRole.USER]
        await self.append_chat_history_message(context, BaseRole.USER, input_data.text)
        words: list[str] = []
        async with aclosing(think(input_data.text, said, setup_data)) as answer:
            async for word in answer:
                words.append(word)
                yield Piece(text=word)
        await context.cost.add("answers", "words", len(words))
        await self.append_chat_history_message(context, BaseRole.ASSISTANT, " ".join(words))


async def think(text: str, said: Sequence[str], setup: Setup) -> AsyncGenerator[str, None]:
    """The answer, word by word. A language model goes here, with `setup.instructions` and the whole history."""
    answer = f"Before that you said: {said[-1]}" if said else f"You say: {text}"
    for word in answer.split():
        await trio.sleep(PACE_S[setup.model])
        yield word
