"""Modules that the tests define variants of."""

import types
from typing import Any, Literal

from dk_trio.lifecycle import SessionOptions
from dk_trio.module import (
    DataModel,
    DataTrigger,
    ModuleContext,
    ModuleDefinition,
    RequestMetadata,
    SessionIds,
    SetupModel,
    TriggerHandler,
    TrioModule,
)
from dk_trio.session import Session


class Message(DataTrigger):
    protocol: Literal["message"] = "message"
    text: str = ""
    count: int = 0


class Number(DataTrigger):
    protocol: Literal["number"] = "number"
    value: float


class Settings(SetupModel):
    prefix: str = ""


class Input(DataModel[Message | Number]):
    pass


class Output(DataModel[Message]):
    pass


IDS = SessionIds(job_id="j1", mission_id="missions:m", setup_id="setups:s", setup_version_id="setup_versions:v")


def session_of(
    module: type[TrioModule[Any, Any, Any, Any]],
    root: dict[str, Any],
    outputs: list[dict[str, Any]],
    *,
    setup: dict[str, Any] | None = None,
    deliver: Any = None,
    options: SessionOptions | None = None,
    **arguments: Any,
) -> Session:
    """A session whose outputs go to a list."""
    definition = ModuleDefinition.of(module)

    async def append(output: dict[str, Any]) -> None:
        outputs.append(output)

    return Session(
        definition,
        ids=IDS,
        input_data=definition.parse_input({"root": root}),
        setup_data=definition.parse_setup(setup or {}, setup_id="setups:s"),
        deliver=deliver or append,
        request_metadata=RequestMetadata(),
        options=options,
        **arguments,
    )


def module_class(base: Any = TrioModule[Input, Output, Settings], name: str = "Sample", **attributes: Any) -> Any:
    """A module class without triggers."""
    return types.new_class(name, (base,), exec_body=lambda namespace: namespace.update(attributes))


def module_with(handle: Any, **hooks: Any) -> Any:
    """A module whose only handler has this `handle`, with hooks of one's own."""
    module = module_class(**hooks)
    module.register(type("Handler", (TriggerHandler,), {"protocol": "message", "handle": handle}))
    return module


def protocols_of(outputs: list[dict[str, Any]]) -> list[str]:
    return [output["root"]["protocol"] for output in outputs]


async def send_one(self: Any, input_data: Message, setup_data: Settings, context: ModuleContext) -> None:
    await context.send(Output(root=Message(text=setup_data.prefix + input_data.text)))
