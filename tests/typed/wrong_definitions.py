"""Module definitions with a mistake each: the lines that mypy refuses are marked with the code of its error."""

from collections.abc import AsyncIterator
from typing import Any, Literal

from dk_trio import DataModel, DataTrigger, ModuleContext, SetupModel, ToolModule, TriggerHandler, TrioModule


class Text(DataTrigger):
    protocol: Literal["text"] = "text"
    text: str


class Word(DataTrigger):
    protocol: Literal["word"] = "word"
    word: str


class Other(DataTrigger):
    protocol: Literal["other"] = "other"


class Input(DataModel[Text]):
    pass


class Output(DataModel[Word]):
    pass


class Setup(SetupModel):
    prefix: str = ""


# --- type arguments of modules


class BareInput(TrioModule[Text, Output, Setup]):  # expect: type-var
    pass


class WrongOrder(TrioModule[Setup, Input, Output]):  # expect: type-var
    pass


class NoSetup(TrioModule[Input, Output, int]):  # expect: type-var
    pass


class NoModel(ToolModule[str]):  # expect: type-var
    pass


# --- hooks


class Hooks(TrioModule[Input, Output, Setup]):
    async def initialize(self, context: ModuleContext, setup_data: Input) -> None:  # expect: override
        pass

    async def run(self, input_data: Setup, setup_data: Setup, context: ModuleContext) -> None:  # expect: override
        pass

    async def run_config_setup(self, context: ModuleContext, config_setup_data: Setup) -> str:  # expect: override
        return ""

    def cleanup(self) -> None:  # expect: override
        pass


class HooksWithFewArguments(TrioModule[Input, Output, Setup]):
    async def initialize(self, context: ModuleContext) -> None:  # expect: override
        pass

    async def run(self, input_data: Input) -> None:  # expect: override
        pass


class Attributes(TrioModule[Input, Output, Setup]):
    name = 3  # expect: assignment
    setup_format = "Setup"  # expect: assignment
    input_format = Input()  # expect: assignment, call-arg


class UsesSetup(TrioModule[Input, Output, Setup]):
    async def initialize(self, context: ModuleContext, setup_data: Setup) -> None:
        context.state.prefix = setup_data.prefixx  # expect: attr-defined


# --- handlers


class Module(TrioModule[Input, Output, Setup]):
    pass


class NoModelInput(TriggerHandler[str, Setup, Word]):  # expect: type-var
    pass


class NoModelSetup(TriggerHandler[Text, int, Word]):  # expect: type-var
    pass


class OtherInput(TriggerHandler[Text, Setup, Word]):
    async def handle(self, input_data: Other, setup_data: Setup, context: ModuleContext) -> None:  # expect: override
        pass


class OtherSetup(TriggerHandler[Text, Setup, Word]):
    async def handle(self, input_data: Text, setup_data: Input, context: ModuleContext) -> None:  # expect: override
        pass


class FewArguments(TriggerHandler[Text, Setup, Word]):
    async def handle(self, input_data: Text, setup_data: Setup) -> None:  # expect: override
        pass


class NotAsync(TriggerHandler[Text, Setup, Word]):
    def handle(self, input_data: Text, setup_data: Setup, context: ModuleContext) -> None:  # expect: override
        pass


class OtherOutput(TriggerHandler[Text, Setup, Word]):
    async def handle(  # expect: override
        self, input_data: Text, setup_data: Setup, context: ModuleContext
    ) -> AsyncIterator[Other]:
        yield Other()


class YieldsAnother(TriggerHandler[Text, Setup, Word]):
    async def handle(self, input_data: Text, setup_data: Setup, context: ModuleContext) -> AsyncIterator[Word]:
        yield Other()  # expect: misc


class Returns(TriggerHandler[Text, Setup, Word]):
    async def handle(self, input_data: Text, setup_data: Setup, context: ModuleContext) -> Word:  # expect: override
        return Word(word="")


class Sends(TriggerHandler[Text, Setup, Word]):
    protocol = 3  # expect: assignment

    async def handle(self, input_data: Text, setup_data: Setup, context: ModuleContext) -> None:
        await context.send("text")  # expect: arg-type
        context.send(input_data)  # expect: unused-coroutine


Module.register(Module)  # expect: type-var
Module.register(object)  # expect: type-var


# --- functions


@TrioModule.from_function  # expect: arg-type
def not_async(text: Text) -> Word:
    return Word(word=text.text)


@TrioModule.from_function(title="x")  # expect: call-overload, untyped-decorator
async def unknown_option(text: Text) -> Word:
    return Word(word=text.text)


any_module: type[TrioModule[Any, Any, Any, Any]] = Module
