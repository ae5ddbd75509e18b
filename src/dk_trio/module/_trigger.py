"""A trigger handler: the code for one protocol of a module, or for one input type of it."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Sequence
from types import UnionType
from typing import Any, ClassVar, Final, Generic

from pydantic import BaseModel
from typing_extensions import TypeVar

from dk_trio.errors import ModuleDefinitionError

from ._context import ModuleContext
from ._formats import is_given, is_model, protocols, roots, shown, type_arguments, where
from ._models import DataModel, DataTrigger
from ._utility import UTILITY_PROTOCOLS
from .mixins import BaseMixin
from .setup import SetupModel

TriggerInputT = TypeVar("TriggerInputT", bound=BaseModel, default=Any)
TriggerSetupT = TypeVar("TriggerSetupT", bound=BaseModel, default=SetupModel)
TriggerOutputT = TypeVar("TriggerOutputT", bound=BaseModel, default=Any)

RESERVED: Final = UTILITY_PROTOCOLS | {"end_of_stream", "module_start_info"}
"""Protocols that no input of an author may have: what a server answers itself, and the ends of a stream."""

_ORDER = "The type arguments of a handler are input, setup, output: TriggerHandler[Message, MySetup, Reply]."
_HANDLE = "Write `async def handle(self, input_data, setup_data, context)`."


class TriggerHandler(BaseMixin, Generic[TriggerInputT, TriggerSetupT, TriggerOutputT]):
    """Handles the inputs of one protocol. Type parameters, in the order of the guides: input, setup, output.

    A new instance is made for each job, so what it keeps on `self` lives as long as the job.

        @MyModule.register
        class OnMessage(TriggerHandler[Message, MySetup, MyOutput]):
            protocol = "message"

            async def handle(self, input_data, setup_data, context):
                await context.send(MyOutput(root=Reply(text=input_data.text)))

    Several handlers may share a protocol and take different input types of it; an input goes to the handler of its own
    type, else to that of its nearest base class.

    Attributes:
        protocol: The protocol of the inputs it handles. Required.
        description: What it does, for people who choose triggers.
        input_format: The trigger class of its inputs, or a union of them. Taken from the type arguments when not given;
            a handler with neither takes every input of its protocol that no other handler takes.
        output_format: The trigger class of its outputs, for readers; `send` does not check it.
    """

    protocol: ClassVar[str]
    description: ClassVar[str] = ""
    input_format: ClassVar[type[BaseModel] | UnionType | None] = None
    output_format: ClassVar[type[BaseModel] | UnionType | None] = None

    _takes: ClassVar[tuple[type[BaseModel], ...]] = ()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        given, _, output = (*type_arguments(cls, TriggerHandler), None, None, None)[:3]
        for attribute, argument in (("input_format", given), ("output_format", output)):
            if argument is not None and is_given(argument) and attribute not in cls.__dict__:
                setattr(cls, attribute, argument)
        cls._takes = tuple(dict.fromkeys(roots(cls.input_format)))

    def __init__(self, context: ModuleContext) -> None:
        self.context = context

    def handle(
        self, input_data: TriggerInputT, setup_data: TriggerSetupT, context: ModuleContext
    ) -> Awaitable[None] | AsyncIterator[TriggerOutputT | DataModel[TriggerOutputT] | dict[str, Any]]:
        """Handle one input: `async def` that calls `context.send`, or an async generator whose yields are sent.

        Args:
            input_data: The root of the input, an instance of `input_format`.
            setup_data: The setup of this job.
            context: The same as `self.context`.

        Cancellation: `trio.Cancelled` at the next checkpoint when the caller cancels, goes away, or its deadline
        passes. Let it pass; `cleanup` of the module still runs.
        """
        raise ModuleDefinitionError(f"{type(self).__qualname__} has no handle method.")


Handler = type[TriggerHandler[Any, Any, Any]]


def takes(handler: Handler) -> tuple[type[BaseModel], ...]:
    """The input types of a handler; empty: whatever its protocol has."""
    return handler._takes


def pick(handlers: Sequence[Handler], kind: type) -> Handler | None:
    """The handler of one protocol that takes this type: the one that names the nearest of its base classes."""
    for base in kind.__mro__:
        for handler in handlers:
            if base in handler._takes:
                return handler
    return next((handler for handler in handlers if not handler._takes), None)


def check_handler(handler: Any, owner: str) -> None:
    """Refuse a handler that could only fail later.

    Raises:
        ModuleDefinitionError: No protocol, one that is reserved or that its input type does not have, wrong type
            arguments, no `handle`, or a `handle` that is not async or takes other arguments.
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
            f"{name} has no protocol ({where(handler)}).",
            hint=f'Give {name} a class attribute such as protocol = "message".',
        )
    if protocol in RESERVED:
        raise ModuleDefinitionError(
            f"{name} handles protocol {protocol!r}, which every module answers by itself ({where(handler)}).",
            hint="Choose another protocol.",
        )
    _check_types(handler)
    _check_handle(handler)
    check_made(handler, ("context",), "super().__init__(context)")


def _check_types(handler: Handler) -> None:
    name = handler.__qualname__
    _, setup, output = (*type_arguments(handler, TriggerHandler), None, None, None)[:3]
    if setup is not None and is_given(setup) and (not is_model(setup) or issubclass(setup, (DataModel, DataTrigger))):
        raise ModuleDefinitionError(f"{name} names {shown(setup)} as its setup ({where(handler)}).", hint=_ORDER)
    if is_model(output) and issubclass(output, SetupModel):
        raise ModuleDefinitionError(f"{name} names {shown(output)} as its output ({where(handler)}).", hint=_ORDER)
    given = handler.input_format
    if given is None:
        return
    kinds = takes(handler)
    wrong = "" if kinds else f"{shown(given)} as its input, which is not a model class"
    for kind in kinds:
        if not protocols(kind):
            found = "no Literal protocol" if "protocol" in kind.model_fields else "no protocol"
            wrong = f"{kind.__name__} as its input, which has {found} ({where(kind)})"
            break
    if wrong:
        raise ModuleDefinitionError(
            f"{name} names {wrong} ({where(handler)}).",
            hint=f'Write a class derived from DataTrigger with protocol: Literal["{handler.protocol}"]. {_ORDER}',
        )
    known = [value for kind in kinds for value in protocols(kind)]
    own = handler.protocol
    if own not in known:
        raise ModuleDefinitionError(
            f"{name} handles protocol {own!r}, but its input {shown(given)} has {', '.join(known)} ({where(handler)}).",
            hint="Give the handler the protocol of its input type.",
        )


def _check_handle(handler: Handler) -> None:
    name = handler.__qualname__
    handle: Any = handler.handle
    if handle is TriggerHandler.handle:
        raise ModuleDefinitionError(f"{name} has no handle method ({where(handler)}).", hint=_HANDLE)
    if hasattr(handle, "__wrapped__"):  # a decorator may return what it likes; the call will show
        return
    if not (inspect.iscoroutinefunction(handle) or inspect.isasyncgenfunction(handle)):
        raise ModuleDefinitionError(
            f"{name}.handle is not async ({where(handler)}).", hint="Write it as `async def handle(...)`."
        )
    if not callable_with(handler, "handle", 3):
        raise ModuleDefinitionError(
            f"{name}.handle({', '.join(inspect.signature(handle).parameters)}) cannot be called with an input, a setup "
            f"and a context ({where(handler)}).",
            hint=_HANDLE,
        )


def check_made(cls: type, arguments: tuple[str, ...], hint: str) -> None:
    """Refuse a class of which no instance can be made for a job.

    Raises:
        ModuleDefinitionError: It is abstract, or its `__init__` wants something else.
    """
    name, made = cls.__qualname__, "__init__"
    if inspect.isabstract(cls):
        missing = ", ".join(sorted(getattr(cls, "__abstractmethods__", ())))
        raise ModuleDefinitionError(
            f"{name} is abstract: it lacks {missing} ({where(cls)}).", hint=f"Write {missing} in it."
        )
    if not callable_with(cls, made, len(arguments)):
        raise ModuleDefinitionError(
            f"{name}.__init__({', '.join(inspect.signature(getattr(cls, made)).parameters)}) cannot be called with "
            f"({', '.join(arguments)}) ({where(cls)}).",
            hint=f"Write `def __init__({', '.join(('self', *arguments))})`, and call {hint} in it.",
        )


def takes_self(cls: type, method: str) -> bool:
    """Whether the first argument of a method is its instance."""
    return not isinstance(inspect.getattr_static(cls, method), (staticmethod, classmethod))


def callable_with(cls: type, method: str, count: int) -> bool:
    """Whether an instance's method can be called with so many positional arguments."""
    try:
        inspect.signature(getattr(cls, method)).bind(*[None] * (count + takes_self(cls, method)))
    except TypeError:
        return False
    return True
