"""The module classes: formats from type arguments, the triggers of the class, and the hooks of a job's life."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, ClassVar, Generic

from pydantic import BaseModel
from typing_extensions import TypeVar

from dk_trio.errors import InvalidOutputError, ModuleDefinitionError

from ._formats import is_given, type_arguments
from ._models import DataModel, SetupModel
from ._trigger import TriggerHandler, check_handler

if TYPE_CHECKING:
    from ._context import ModuleContext

InputT = TypeVar("InputT", bound=DataModel[Any], default=Any)
OutputT = TypeVar("OutputT", bound=DataModel[Any], default=Any)
SetupT = TypeVar("SetupT", bound=BaseModel, default=SetupModel)
SecretT = TypeVar("SecretT", bound=BaseModel, default=BaseModel)
HandlerT = TypeVar("HandlerT", bound=type[TriggerHandler[Any, Any, Any]])

_FORMATS = ("input_format", "output_format", "setup_format", "secret_format")


class TrioModule(Generic[InputT, OutputT, SetupT, SecretT]):
    """A module: what it takes, what it gives, and what it does for each protocol.

    The four type parameters are input, output, setup and secret; the same models may be given as the attributes
    `input_format`, `output_format`, `setup_format` and `secret_format`, which win. The formats of a module whose
    handlers name their own `input_format` may be left out.

    An instance lives for one job. Its life: `initialize`, `run`, then `cleanup`, which is called exactly once when
    `initialize` began, however the job ends, and within a bounded time.

    Attributes:
        name: Name in the first message of a stream; the class name when empty.
        description: What the module does.
        metadata: `module_id` and `version` are read; more keys are the author's.
        context: The job's context, from before `initialize` on.
    """

    name: ClassVar[str] = ""
    description: ClassVar[str] = ""
    metadata: ClassVar[Mapping[str, Any]] = {}
    input_format: ClassVar[type[BaseModel] | None] = None
    output_format: ClassVar[type[BaseModel] | None] = None
    setup_format: ClassVar[type[BaseModel]] = SetupModel
    secret_format: ClassVar[type[BaseModel] | None] = None

    context: ModuleContext
    _triggers: Mapping[str, type[TriggerHandler[Any, Any, Any]]]
    _registered: ClassVar[dict[str, type[TriggerHandler[Any, Any, Any]]]]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._registered = {}
        for attribute, argument in zip(_FORMATS, type_arguments(cls, TrioModule), strict=False):
            if is_given(argument) and argument is not Any and attribute not in cls.__dict__:
                setattr(cls, attribute, argument)

    @classmethod
    def register(cls, handler: HandlerT) -> HandlerT:
        """Class decorator: add a trigger handler to this module class and to those that derive from it.

        Raises:
            ModuleDefinitionError: The handler is not complete, or its protocol is taken.
        """
        if "_registered" not in cls.__dict__ or cls in {ToolModule, ArchetypeModule}:
            raise ModuleDefinitionError(
                f"{cls.__name__}.register was called, but {cls.__name__} is shared by all modules.",
                hint="Register handlers on a module class of your own.",
            )
        check_handler(handler, cls.__name__)
        taken = cls._registered.get(handler.protocol)
        if taken is not None:
            raise ModuleDefinitionError(
                f"{cls.__name__} has two handlers for protocol {handler.protocol!r}: "
                f"{taken.__qualname__} and {handler.__qualname__}.",
                hint="Give one of them another protocol.",
            )
        cls._registered[handler.protocol] = handler
        return handler

    @classmethod
    def triggers(cls) -> dict[str, type[TriggerHandler[Any, Any, Any]]]:
        """The handlers by protocol, in the order they were registered; a class's own replace inherited ones."""
        merged: dict[str, type[TriggerHandler[Any, Any, Any]]] = {}
        for base in reversed(cls.__mro__):
            merged.update(base.__dict__.get("_registered", {}))
        return merged

    @classmethod
    def get_module_id(cls) -> str:
        """The id in `metadata`, else "unknown". `DIGITALKIN_MODULE_ID` goes before both, see `ModuleDefinition.id`."""
        return str(cls.metadata.get("module_id") or "unknown")

    def enter(
        self, context: ModuleContext, triggers: Mapping[str, type[TriggerHandler[Any, Any, Any]]] | None = None
    ) -> None:
        """Give the instance its context. Called by the session before `initialize`; a test may do the same."""
        self.context = context
        self._triggers = self.triggers() if triggers is None else triggers

    async def initialize(self, context: ModuleContext, setup_data: SetupT) -> None:
        """Prepare for the job: open what `run` needs. Does nothing unless overridden."""

    async def run(self, input_data: InputT, setup_data: SetupT) -> None:
        """Do the job: give the input's root to the handler of its protocol.

        A small module may override this and send by itself: `await self.context.send(...)`. The override may take
        `context` as a third argument.
        """
        root = input_data.root
        handler = self._triggers[root.protocol](self.context)
        # mypy cannot know that this root is the type of the handler that was chosen by the root's protocol.
        result: Any = handler.handle(root, setup_data, self.context)
        if hasattr(result, "__aiter__"):
            async with aclosing(result) as outputs:
                async for output in outputs:
                    await self.context.send(output)
        elif (value := await result) is not None:
            raise InvalidOutputError(
                f"{type(handler).__qualname__}.handle returned a {type(value).__name__}, which nobody would get.",
                hint="Send outputs with `await context.send(...)` or yield them.",
            )

    async def cleanup(self) -> None:
        """Give back what `initialize` took. Does nothing unless overridden; may take `context` as an argument.

        Called once when `initialize` began, after success, failure and cancellation. It is shielded from cancellation,
        but only for a time: `DIGITALKIN_COMPLETION_TIMEOUT` after the handler's own end, ten seconds
        (`DIGITALKIN_CLEANUP_GRACE`) once the job is cancelled.
        """

    async def run_config_setup(self, context: ModuleContext, config_setup_data: SetupT) -> SetupT:
        """Turn what a user has entered into what jobs run with, for ConfigSetupModule. Returns it unless overridden.

        Runs on an instance of its own, without `initialize` and `cleanup`, for at most
        `DIGITALKIN_CONFIG_SETUP_TIMEOUT` seconds. What it raises reaches the caller with its text.

        Args:
            context: Ids and the caller's metadata; there is no stream to send to.
            config_setup_data: The form as the module's setup format.
        """
        return config_setup_data


BaseModule = TrioModule


class ToolModule(TrioModule[InputT, OutputT, SetupT, SecretT]):
    """A module that other modules call as a tool."""


class ArchetypeModule(TrioModule[InputT, OutputT, SetupT, SecretT]):
    """A module that acts for a user and calls tools."""
