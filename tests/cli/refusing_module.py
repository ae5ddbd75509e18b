"""A module that refuses, and whose services refuse, in every way that a caller can bring about.

Served by tests in a process of its own, with setups of the test and a registry whose tool nobody serves: its port is in
the environment, as `TOOL_PORT`.
"""

import os
from typing import Annotated, Literal

import trio
from pydantic import BaseModel, Field, model_validator

from dk_trio import (
    CostConfig,
    DataModel,
    DataTrigger,
    Dynamic,
    ModuleContext,
    SetupModel,
    TriggerHandler,
    TrioModule,
    tool_reference_input,
)
from dk_trio.services import UploadFileData


class Ask(DataTrigger):
    """Costs as many tokens as its text is long."""

    protocol: Literal["ask"] = "ask"
    text: str = Field(min_length=2)
    times: int = Field(default=1, le=10)


class Write(DataTrigger):
    """Writes a file."""

    protocol: Literal["write"] = "write"
    name: str


class Keep(DataTrigger):
    """Keeps a record."""

    protocol: Literal["keep"] = "keep"
    collection: str
    number: str


class Delegate(DataTrigger):
    """Calls every tool of the setup."""

    protocol: Literal["delegate"] = "delegate"


class Done(DataTrigger):
    """What the module answers."""

    protocol: Literal["done"] = "done"
    records: int = 0


async def never() -> list[str]:
    await trio.sleep_forever()
    raise AssertionError


class Setup(SetupModel):
    words: int = Field(default=5, ge=1)
    word: str = "a"
    language: Annotated[str, Dynamic(enum=never)] = "en"
    tools: tool_reference_input(max_tools=2)  # type: ignore[valid-type]

    @model_validator(mode="after")
    def _known(self) -> "Setup":
        if self.word == "secret":
            raise ValueError("is no word for everybody")
        return self


class Number(BaseModel):
    number: int


class Refusing(TrioModule[DataModel[Ask | Write | Keep | Delegate], DataModel[Done], Setup]):
    name = "refusing"
    services_config_params = {
        "storage": {"config": {"numbers": Number}},
        "cost": {"config": {"tokens": CostConfig(cost_name="tokens", cost_type="OTHER", unit="token", rate=1)}},
        "registry": {
            "modules": [{"module_id": "modules:tool", "address": "127.0.0.1", "port": int(os.environ["TOOL_PORT"])}],
            "setups": [{"setup_id": "setups:tool", "module_id": "modules:tool", "name": "Tool"}],
        },
    }


@Refusing.register
class OnAsk(TriggerHandler[Ask, Setup, Done]):
    protocol = "ask"

    async def handle(self, input_data: Ask, setup_data: Setup, context: ModuleContext) -> None:
        await context.cost.add("an answer", "tokens", len(input_data.text))
        await context.send(Done())


@Refusing.register
class OnWrite(TriggerHandler[Write, Setup, Done]):
    protocol = "write"

    async def handle(self, input_data: Write, setup_data: Setup, context: ModuleContext) -> None:
        file = UploadFileData(name=input_data.name, content=b"text", file_type="DOCUMENT", content_type="text/plain")
        await context.filesystem.upload_files([file])
        await context.send(Done())


@Refusing.register
class OnKeep(TriggerHandler[Keep, Setup, Done]):
    protocol = "keep"

    async def handle(self, input_data: Keep, setup_data: Setup, context: ModuleContext) -> None:
        await context.storage.store(input_data.collection, None, {"number": input_data.number})
        await context.send(Done(records=len(await context.storage.list(input_data.collection))))


@Refusing.register
class OnDelegate(TriggerHandler[Delegate, Setup, Done]):
    protocol = "delegate"

    async def handle(self, input_data: Delegate, setup_data: Setup, context: ModuleContext) -> None:
        for setup_id in ("setups:tool", *context.tool_cache.list_tools()):
            for _, call in context.create_tool_functions(setup_id):
                async for _ in call(text="hello"):
                    pass
        await context.send(Done())
