"""A trigger handler: the code for one protocol of a module."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable
from typing import Any, ClassVar, Generic

from pydantic import BaseModel
from typing_extensions import TypeVar

from dk_trio.errors import ModuleDefinitionError

from ._context import ModuleContext
from ._models import SetupModel

TriggerInputT = TypeVar("TriggerInputT", bound=BaseModel, default=Any)
TriggerSetupT = TypeVar("TriggerSetupT", bound=BaseModel, default=SetupModel)
TriggerOutputT = TypeVar("TriggerOutputT", bound=BaseModel, default=Any)


class TriggerHandler(Generic[TriggerInputT, TriggerSetupT, TriggerOutputT]):
    """Handles the inputs of one protocol. Type parameters, in the order of the guides: input, setup, output.

    A new instance is made for each job, so what it keeps on `self` lives as long as the job.

        @MyModule.register
        class OnMessage(TriggerHandler[Message, MySetup, MyOutput]):
            protocol = "message"

            async def handle(self, input_data, setup_data, context):
                await context.send(MyOutput(root=Reply(text=input_data.text)))

    Attributes:
        protocol: The protocol of the inputs it handles. Required.
        description: What it does, for people who choose triggers.
        input_format: The trigger class of its inputs. Found from the module's input format when not given.
        output_format: The trigger class of its outputs, for readers; `send` does not check it.
    """

    protocol: ClassVar[str]
    description: ClassVar[str] = ""
    input_format: ClassVar[type[BaseModel] | None] = None
    output_format: ClassVar[type[BaseModel] | None] = None

    def __init__(self, context: ModuleContext) -> None:
        self.context = context

    def handle(
        self, input_data: TriggerInputT, setup_data: TriggerSetupT, context: ModuleContext
    ) -> Awaitable[None] | AsyncIterator[Any]:
        """Handle one input: `async def` that calls `context.send`, or an async generator whose yields are sent.

        Args:
            input_data: The root of the input, an instance of `input_format`.
            setup_data: The setup of this job.
            context: The same as `self.context`.

        Cancellation: `trio.Cancelled` at the next checkpoint when the caller cancels, goes away, or its deadline
        passes. Let it pass; `cleanup` of the module still runs.
        """
        raise ModuleDefinitionError(f"{type(self).__qualname__} has no handle method.")


def check_handler(handler: Any, owner: str) -> None:
    """Refuse a handler that could only fail later.

    Raises:
        ModuleDefinitionError: No protocol, no `handle`, or a `handle` that is not async or takes other arguments.
    """
    if not (isinstance(handler, type) and issubclass(handler, TriggerHandler)):
        raise ModuleDefinitionError(
            f"{owner}.register got {handler!r}, which is not a TriggerHandler.",
            hint="Decorate a class that derives from TriggerHandler.",
        )
    name = handler.__qualname__
    protocol = getattr(handler, "protocol", None)
    if not isinstance(protocol, str) or not protocol:
        raise ModuleDefinitionError(
            f"{name} has no protocol.", hint=f'Give {name} a class attribute such as protocol = "message".'
        )
    handle = handler.handle
    if handle is TriggerHandler.handle:
        raise ModuleDefinitionError(
            f"{name} has no handle method.",
            hint="Write `async def handle(self, input_data, setup_data, context)`.",
        )
    wrapped = hasattr(handle, "__wrapped__")  # a decorator may return what it likes; the call will show
    if not wrapped and not (inspect.iscoroutinefunction(handle) or inspect.isasyncgenfunction(handle)):
        raise ModuleDefinitionError(f"{name}.handle is not async.", hint="Write it as `async def handle(...)`.")
    if wrapped:
        return
    signature = inspect.signature(handle)
    unbound = not isinstance(inspect.getattr_static(handler, "handle"), (staticmethod, classmethod))
    try:
        signature.bind(*[None] * (3 + unbound))
    except TypeError:
        raise ModuleDefinitionError(
            f"{name}.handle({', '.join(signature.parameters)}) cannot be called with an input, a setup and a context.",
            hint="Write `async def handle(self, input_data, setup_data, context)`.",
        ) from None
