"""Module definitions as an author writes them: `mypy --strict` finds nothing in them."""

from collections.abc import AsyncIterator
from typing import Any, ClassVar, Literal

from pydantic import BaseModel

from dk_trio import (
    ArchetypeModule,
    BaseModule,
    DataModel,
    DataTrigger,
    ModuleContext,
    SetupModel,
    ToolModule,
    TriggerHandler,
    TrioModule,
)
from dk_trio.services.strategy import ServicesStrategy


class Text(DataTrigger):
    protocol: Literal["text"] = "text"
    text: str


class Number(DataTrigger):
    protocol: Literal["number"] = "number"
    value: float


class Word(DataTrigger):
    protocol: Literal["word"] = "word"
    word: str


class Input(DataModel[Text | Number]):
    pass


class Output(DataModel[Word]):
    pass


class Setup(SetupModel):
    prefix: str = ""


class Secret(BaseModel):
    key: str


class Full(TrioModule[Input, Output, Setup, Secret]):
    name = "full"
    description = "Has everything."
    metadata: ClassVar[dict[str, Any]] = {"module_id": "modules:full"}
    services_config_params: ClassVar[dict[str, dict[str, Any]]] = {"storage": {}}
    services_config_strategies: ClassVar[dict[str, ServicesStrategy | None]] = {"storage": None}

    async def initialize(self, context: ModuleContext, setup_data: Setup) -> None:
        context.state.prefix = setup_data.prefix

    async def run_config_setup(self, context: ModuleContext, config_setup_data: Setup) -> Setup:
        return config_setup_data

    async def cleanup(self) -> None:
        pass


@Full.register
class OnText(TriggerHandler[Text, Setup, Word]):
    protocol = "text"
    description = "Says it."

    async def handle(self, input_data: Text, setup_data: Setup, context: ModuleContext) -> None:
        await context.send(Word(word=setup_data.prefix + input_data.text))
        await context.send(Output(root=Word(word="x")))
        await context.send({"protocol": "word", "word": "x"})


@Full.register
class OnNumber(TriggerHandler[Number, Setup, Word]):
    protocol = "number"
    input_format = Number

    async def handle(self, input_data: Number, setup_data: Setup, context: ModuleContext) -> AsyncIterator[Word]:
        yield Word(word=str(input_data.value))


class WithContext(ToolModule[Input, Output, Setup]):
    async def run(self, input_data: Input, setup_data: Setup, context: ModuleContext) -> None:
        await context.send(Word(word=setup_data.prefix))
        await super().run(input_data, setup_data)

    async def cleanup(self, context: ModuleContext) -> None:
        await super().cleanup()


class WithoutContext(ArchetypeModule[Input, Output, Setup]):
    async def run(self, input_data: Input, setup_data: Setup) -> None:
        await self.context.send(Word(word="x"))


class ByAttributes(BaseModule):
    input_format = Input
    output_format = Output
    setup_format = Setup
    secret_format = Secret


@ByAttributes.register
class OnEither(TriggerHandler[Text | Number, Setup, Output]):
    protocol = "text"

    async def handle(
        self, input_data: Text | Number, setup_data: Setup, context: ModuleContext
    ) -> AsyncIterator[Output | dict[str, Any]]:
        yield Output(root=Word(word=input_data.protocol))
        yield {"protocol": "word", "word": "x"}


@ToolModule.from_function
async def shout(text: Text, setup: Setup, context: ModuleContext) -> AsyncIterator[Word]:
    yield Word(word=setup.prefix + text.text)


@ToolModule.from_function(name="double")
async def double(value: Number) -> Number:
    return Number(value=2 * value.value)


name: str = shout.name
served: list[type[TrioModule[Any, Any, Any, Any]]] = [Full, WithContext, WithoutContext, ByAttributes, shout, double]
