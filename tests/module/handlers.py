"""Trigger handlers made for a test: which took an input, and of which type, is what they send."""

import types
from typing import Any, Literal

from dk_trio.module import DataTrigger, TriggerHandler, TrioModule

from .sample import module_class

# Where handlers are made, as errors tell it.
PLACE = f"{__file__}:"


class Text(DataTrigger):
    protocol: Literal["say"] = "say"
    text: str


class Loud(Text):
    volume: int


class Picture(DataTrigger):
    protocol: Literal["say"] = "say"
    url: str


def handler(protocol: str = "say", name: str = "Handler", base: Any = TriggerHandler, **attributes: Any) -> Any:
    async def handle(self: Any, input_data: Any, setup_data: Any, context: Any) -> None:
        await context.send({"protocol": "took", "handler": name, "type": type(input_data).__name__})

    namespace = {"protocol": protocol, "handle": handle, **attributes}
    made = types.new_class(name, (base,), exec_body=lambda body: body.update(namespace))
    made.__qualname__ = name
    return made


def module_of(*handlers: Any, base: Any = TrioModule) -> Any:
    module = module_class(base, "Module")
    for each in handlers:
        module.register(each)
    return module
