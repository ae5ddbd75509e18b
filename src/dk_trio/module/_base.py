"""The module classes: formats from type arguments, the triggers of the class, and the hooks of a job's life."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import aclosing
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar, Generic, overload

from pydantic import BaseModel, ValidationError
from typing_extensions import TypeVar

from dk_trio.errors import InvalidOutputError, ModuleDefinitionError, RequestError

from ._discovery import ModuleDiscoverer, check_discovered
from ._formats import is_given, type_arguments, where
from ._function import AuthorsFunction, module_from_function
from ._models import DataModel
from ._trigger import Handler, TriggerHandler, check_handler, pick, takes
from ._utility import UTILITY_INPUTS
from ._validation import explain, rows_of, violations_of
from .schema import SelectSchema
from .setup import SetupModel

if TYPE_CHECKING:
    from dk_trio.services.strategy import ServicesStrategy

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
        triggers_discoverer: Finds the files of its triggers, for modules that have them in files of their own.
        select_format: What users choose triggers with; None: they do not.
        services_config_strategies: Service name -> the classes behind it, in place of the usual ones.
        services_config_params: Service name -> parameters of these classes.
        context: The job's context, from before `initialize` on.
    """

    name: ClassVar[str] = ""
    description: ClassVar[str] = ""
    metadata: ClassVar[Mapping[str, Any]] = {}
    input_format: ClassVar[type[BaseModel] | None] = None
    output_format: ClassVar[type[BaseModel] | None] = None
    setup_format: ClassVar[type[BaseModel]] = SetupModel
    secret_format: ClassVar[type[BaseModel] | None] = None
    select_format: ClassVar[type[SelectSchema] | None] = SelectSchema
    triggers_discoverer: ClassVar[ModuleDiscoverer | None] = None
    services_config_strategies: ClassVar[Mapping[str, ServicesStrategy | None]] = {}
    services_config_params: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    context: ModuleContext
    _triggers: Mapping[str, tuple[Handler, ...]]
    _registered: ClassVar[dict[str, tuple[Handler, ...]]]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._registered = {}
        for attribute, argument in zip(_FORMATS, type_arguments(cls, TrioModule), strict=False):
            if is_given(argument) and attribute not in cls.__dict__:
                setattr(cls, attribute, argument)
        # Own dicts: a module that changes its parameters does not change those of its siblings.
        cls.services_config_strategies = dict(cls.services_config_strategies)
        cls.services_config_params = {name: dict(given) for name, given in cls.services_config_params.items()}

    @classmethod
    def register(cls, handler: HandlerT) -> HandlerT:
        """Class decorator: add a trigger handler to this module class and to those that derive from it.

        Raises:
            ModuleDefinitionError: The handler is not complete, or another one takes the same inputs. Names the place.
        """
        if "_registered" not in cls.__dict__ or cls in {ToolModule, ArchetypeModule}:
            raise ModuleDefinitionError(
                f"{cls.__name__}.register was called, but {cls.__name__} is shared by all modules.",
                hint="Register handlers on a module class of your own.",
            )
        check_handler(handler, cls.__name__)
        others = cls._registered.get(handler.protocol, ())
        for other in others:
            same = set(takes(other)) & set(takes(handler))
            if same or not (takes(other) or takes(handler)):
                inputs = f" and input type {same.pop().__name__}" if same else ""
                raise ModuleDefinitionError(
                    f"{cls.__name__} has two handlers for protocol {handler.protocol!r}{inputs}: "
                    f"{other.__qualname__} ({where(other)}) and {handler.__qualname__} ({where(handler)}).",
                    hint="Give one of them another protocol, or an input type of its own.",
                )
        cls._registered[handler.protocol] = (*others, handler)
        return handler

    @classmethod
    def triggers(cls) -> dict[str, tuple[Handler, ...]]:
        """The handlers by protocol, in the order they were registered.

        A class's own handlers of a protocol replace all inherited ones of it.
        """
        merged: dict[str, tuple[Handler, ...]] = {}
        for base in reversed(cls.__mro__):
            merged.update(base.__dict__.get("_registered", {}))
        return merged

    @classmethod
    def discover(cls) -> None:
        """Import the files that `triggers_discoverer` finds. Called when the module is served; again, it does nothing.

        Raises:
            DiscoveryError: Names every file that cannot be used, with its cause.
        """
        if cls.triggers_discoverer is not None:
            check_discovered(cls.__name__, cls.triggers_discoverer.explain(_registered_from))

    @classmethod
    def get_registered_protocols_with_info(cls, *, exclude_utility: bool = False) -> dict[str, str]:
        """What a caller may send: protocol -> description, or the protocol again where there is none.

        Args:
            exclude_utility: Without the protocols that every module answers.
        """
        own = {protocol: handlers[0].description or protocol for protocol, handlers in cls.triggers().items()}
        if exclude_utility:
            return own
        return {**own, **{str(each.model_fields["protocol"].default): each.__doc__ or "" for each in UTILITY_INPUTS}}

    @overload
    @classmethod
    def from_function(cls, function: AuthorsFunction, /) -> type[TrioModule[Any, Any, Any, Any]]: ...

    @overload
    @classmethod
    def from_function(
        cls,
        function: None = None,
        /,
        *,
        name: str = "",
        description: str = "",
        metadata: Mapping[str, Any] | None = None,
    ) -> Callable[[AuthorsFunction], type[TrioModule[Any, Any, Any, Any]]]: ...

    @classmethod
    def from_function(
        cls,
        function: AuthorsFunction | None = None,
        /,
        *,
        name: str = "",
        description: str = "",
        metadata: Mapping[str, Any] | None = None,
    ) -> Any:
        """Decorator: make a module class of this kind out of one function.

            @ToolModule.from_function
            async def shout(text: Shout, setup: ShoutSetup, context: ModuleContext) -> AsyncIterator[Word]:
                for word in text.text.split():
                    yield Word(text=word.upper())

        The function is an async generator, or an async function that returns one output or None. Its parameters are
        told by their annotations: the input is a trigger or a union of triggers, whose protocols are the module's; a
        setup and a context may be left out. The annotation of what it yields or returns is the output.

        Args:
            function: What to decorate.
            name: Name of the module; that of the function when empty.
            description: What the module does; the first paragraph of the docstring when empty.
            metadata: As in a class.

        Raises:
            ModuleDefinitionError: An annotation is missing, or means nothing here.
        """

        def made(function: AuthorsFunction) -> Any:
            return module_from_function(cls, function, name=name, description=description, metadata=metadata)

        return made if function is None else made(function)

    @classmethod
    def get_module_id(cls) -> str:
        """The id in `metadata`, else "unknown". `DIGITALKIN_MODULE_ID` goes before both, see `ModuleDefinition.id`."""
        return str(cls.metadata.get("module_id") or "unknown")

    @classmethod
    def create_input_model(cls, data: Mapping[str, Any]) -> Any:
        """Parse an input as the server does, see `ModuleDefinition.parse_input`.

        Raises:
            ModuleDefinitionError: The module is not complete.
            InvalidInputError: Names each field that does not fit.
        """
        from ._definition import ModuleDefinition

        return ModuleDefinition.of(cls).parse_input(data)

    @classmethod
    def create_output_model(cls, data: Mapping[str, Any]) -> OutputT:
        """Parse an output.

        Raises:
            ModuleDefinitionError: The module names no output format.
            InvalidOutputError: Names each field that does not fit.
        """
        model: Any = cls._format("output")
        try:
            parsed: OutputT = model.model_validate(data)
        except ValidationError as error:
            rows = rows_of(error, data)
            raise InvalidOutputError(
                f"The output does not fit {cls.__name__}: {explain(rows)}.",
                violations=violations_of(rows, "output"),
            ) from None
        return parsed

    @classmethod
    def create_secret_model(cls, data: Mapping[str, Any]) -> SecretT:
        """Parse secrets. No value is shown in an error.

        Raises:
            ModuleDefinitionError: The module names no secret format.
            RequestError: Names each field that does not fit.
        """
        model: Any = cls._format("secret")
        try:
            parsed: SecretT = model.model_validate(data)
        except ValidationError as error:
            rows = rows_of(error, data)
            raise RequestError(
                f"The secrets do not fit {cls.__name__}: {explain(rows, values=False)}.",
                violations=violations_of(rows, "secret", values=False),
            ) from None
        return parsed

    @classmethod
    def _format(cls, what: str) -> type[BaseModel]:
        model = getattr(cls, f"{what}_format")
        if model is None:
            raise ModuleDefinitionError(
                f"{cls.__name__} has no {what}_format ({where(cls)}).", hint="Name it in the type arguments."
            )
        found: type[BaseModel] = model
        return found

    def enter(self, context: ModuleContext, triggers: Mapping[str, tuple[Handler, ...]] | None = None) -> None:
        """Give the instance its context. Called by the session before `initialize`; a test may do the same."""
        self.context = context
        self._triggers = self.triggers() if triggers is None else triggers

    async def initialize(self, context: ModuleContext, setup_data: SetupT) -> None:
        """Prepare for the job: open what `run` needs. Does nothing unless overridden."""

    async def run(self, input_data: InputT, setup_data: SetupT, *_: Any, **__: Any) -> None:
        """Do the job: give the input's root to the handler of its protocol and type.

        A small module may override this and send by itself: `await self.context.send(...)`. The override may take
        `context` as a third argument; so that type checkers accept both, this one takes more arguments than it needs.
        """
        root = input_data.root
        handlers = self._triggers[root.protocol]
        # Not None, and made for this root: ModuleDefinition.of has looked where each type goes. mypy cannot know that.
        kind: Any = handlers[0] if len(handlers) == 1 else pick(handlers, type(root))
        handler = kind(self.context)
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

    async def cleanup(self, *_: Any, **__: Any) -> None:
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


def module_classes(
    base: type[TrioModule[Any, Any, Any, Any]] = TrioModule,
) -> Iterator[type[TrioModule[Any, Any, Any, Any]]]:
    """Every module class that there is."""
    yield base
    for derived in base.__subclasses__():
        yield from module_classes(derived)


def _registered_from(file: ModuleType) -> int:
    """How many handlers of any module class stand in this file, or have methods that are written in it."""
    inside = vars(file)
    classes = {value for value in inside.values() if isinstance(value, type)}
    return sum(
        handler in classes or any(getattr(each, "__globals__", None) is inside for each in vars(handler).values())
        for module in module_classes()
        for handlers in module.__dict__.get("_registered", {}).values()
        for handler in handlers
    )
