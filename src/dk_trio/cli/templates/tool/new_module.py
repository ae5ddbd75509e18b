"""new-module: a tool with two functions. Replace what they do.

dk-trio serve new_module.py --port 50055
dk-trio call 127.0.0.1:50055 --protocol count --input '{"text": "two words"}'
"""

import re
from collections.abc import AsyncIterator
from typing import Literal

import trio
from dk_trio import DataModel, DataTrigger, ModuleContext, SetupModel, ToolModule, TriggerHandler
from pydantic import Field


class Count(DataTrigger):
    """Count the words and the lines of a text."""  # what an agent reads to choose among its tools

    protocol: Literal["count"] = "count"
    text: str = Field(description="The text to count in.")


class Find(DataTrigger):
    """Find the lines of a text that have a word."""

    protocol: Literal["find"] = "find"
    text: str = Field(description="The text to look through.")
    word: str = Field(min_length=1, description="The word to look for.")


class Counted(DataTrigger):
    """How many there are."""

    protocol: Literal["counted"] = "counted"
    words: int
    lines: int


class Line(DataTrigger):
    """A line that has the word."""

    protocol: Literal["line"] = "line"
    number: int = Field(description="Of the line, from 1.")
    text: str


class Setup(SetupModel):
    """What an operator chooses. All fields have defaults, so the module also runs without a setup."""

    ignore_case: bool = Field(default=True, title="Ignore case")


class NewModule(ToolModule[DataModel[Count | Find], DataModel[Counted | Line], Setup]):
    """Counts and finds words."""

    name = "new-module"
    description = "Counts and finds words in a text."
    metadata = {"module_id": "modules:new-module", "version": "0.1.0"}


@NewModule.register
class OnCount(TriggerHandler[Count, Setup, Counted]):
    """One answer: it is sent."""

    protocol = "count"

    async def handle(self, input_data: Count, setup_data: Setup, context: ModuleContext) -> None:
        """Count them."""
        text = input_data.text
        await context.send(Counted(words=len(text.split()), lines=len(text.splitlines())))


@NewModule.register
class OnFind(TriggerHandler[Find, Setup, Line]):
    """Many answers: each is yielded, and the next one waits until the caller has room for it."""

    protocol = "find"

    async def handle(self, input_data: Find, setup_data: Setup, context: ModuleContext) -> AsyncIterator[Line]:
        """Find them, one by one."""
        flags = re.IGNORECASE if setup_data.ignore_case else re.NOFLAG
        word = re.compile(rf"\b{re.escape(input_data.word)}\b", flags)
        for number, line in enumerate(input_data.text.splitlines(), 1):
            if word.search(line):
                yield Line(number=number, text=line)
            await trio.lowlevel.checkpoint()  # others run, and a cancel arrives, also where nothing is found
