"""A form that a user fills in, and what jobs run with: `run_config_setup` makes one of the other."""

from typing import Literal

from dk_trio import DataModel, DataTrigger, ModuleContext, SetupModel, TriggerHandler, TrioModule

WORDS = {"en": "hello", "fr": "bonjour"}  # stands for a service that is slow, or not always there


class Name(DataTrigger):
    protocol: Literal["greet"] = "greet"
    name: str


class Language(SetupModel):
    language: str = "en"
    word: str = ""  # found out once, when the setup is configured


class Polyglot(TrioModule[DataModel[Name], DataModel[Name], Language]):
    name = "polyglot"

    async def run_config_setup(self, context: ModuleContext, config_setup_data: Language) -> Language:
        return config_setup_data.model_copy(update={"word": WORDS[config_setup_data.language]})


@Polyglot.register
class Greet(TriggerHandler[Name, Language, Name]):
    protocol = "greet"

    async def handle(self, input_data: Name, setup_data: Language, context: ModuleContext) -> None:
        await context.send(Name(name=f"{setup_data.word}, {input_data.name}"))
