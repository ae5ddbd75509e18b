"""A module out of one function: what a class would say is read from the function's annotations and docstring."""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Union

from pydantic import create_model

from dk_trio.errors import ModuleDefinitionError

from ._context import ModuleContext
from ._formats import is_model, protocols, roots, shown, where
from ._models import DataModel
from ._trigger import TriggerHandler
from .setup import SetupModel

if TYPE_CHECKING:
    from ._base import TrioModule

AuthorsFunction = Callable[..., AsyncIterator[Any]] | Callable[..., Awaitable[Any]]

_SHAPE = "Write `async def name(input: MyTrigger, setup: MySetup, context: ModuleContext) -> AsyncIterator[MyOutput]`."
_INPUT, _SETUP, _CONTEXT = range(3)  # the places of a handler's arguments
_STREAMS = (AsyncIterator, AsyncGenerator, AsyncIterable)


@dataclass
class _Signature:
    """What the annotations of a function say."""

    input: Any = None
    setup: Any = None
    output: Any = None
    positional: list[int] = field(default_factory=list)
    named: dict[str, int] = field(default_factory=dict)


def module_from_function(
    base: type[TrioModule[Any, Any, Any, Any]],
    function: AuthorsFunction,
    *,
    name: str,
    description: str,
    metadata: Mapping[str, Any] | None,
) -> type[TrioModule[Any, Any, Any, Any]]:
    """A class derived from `base` whose handlers call the function.

    Raises:
        ModuleDefinitionError: An annotation is missing, or means nothing here.
    """
    if not (inspect.isasyncgenfunction(function) or inspect.iscoroutinefunction(function)):
        at = f" ({where(function)})" if inspect.isfunction(function) else ""
        raise ModuleDefinitionError(f"{shown(function)} is no async function{at}.", hint=_SHAPE)
    signature = _read(function)
    own = function.__name__
    about = description or (inspect.getdoc(function) or "").split("\n\n")[0].replace("\n", " ")
    attributes: dict[str, Any] = {
        "__module__": function.__module__,
        "__qualname__": function.__qualname__,
        "__doc__": function.__doc__,
        "name": name or own,
        "description": about,
        # The handlers say what the inputs are; not whatever `base` may have.
        "input_format": None,
        "output_format": signature.output,
    }
    if metadata is not None:
        attributes["metadata"] = metadata
    if signature.setup is not None:
        attributes["setup_format"] = signature.setup
    module: Any = types.new_class(own, (base,), exec_body=lambda namespace: namespace.update(attributes))
    handle = _handle(function, signature)
    made: type[TrioModule[Any, Any, Any, Any]] = module
    for protocol in dict.fromkeys(value for kind in roots(signature.input) for value in protocols(kind)):
        handler = type(
            own,
            (TriggerHandler,),
            {
                "__module__": function.__module__,
                "__qualname__": function.__qualname__,
                "protocol": protocol,
                "description": about,
                "input_format": signature.input,
                "handle": handle,
            },
        )
        made.register(handler)
    return made


def _handle(function: Any, signature: _Signature) -> Any:
    def arguments(given: tuple[Any, ...]) -> tuple[list[Any], dict[str, Any]]:
        return [given[place] for place in signature.positional], {
            name: given[place] for name, place in signature.named.items()
        }

    if inspect.isasyncgenfunction(function):

        @functools.wraps(function)
        def handle(_: Any, *given: Any) -> Any:
            positional, named = arguments(given)
            return function(*positional, **named)
    else:

        @functools.wraps(function)
        async def handle(self: Any, *given: Any) -> None:
            positional, named = arguments(given)
            output = await function(*positional, **named)
            if output is not None:
                await self.context.send(output)

    return handle


def _read(function: Any) -> _Signature:
    at = f"{function.__qualname__} ({where(function)})"
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except (NameError, TypeError, SyntaxError) as error:
        raise ModuleDefinitionError(
            f"The annotations of {at} cannot be read: {error}.",
            hint="Define the types at module level, or import them there, not under TYPE_CHECKING.",
        ) from None
    found = _Signature()
    seen: dict[int, str] = {}
    for parameter in inspect.signature(function).parameters.values():
        hint = hints.get(parameter.name)
        place = None if hint is None else _place(hint)
        if place is None:
            if parameter.default is not parameter.empty or parameter.kind in {
                parameter.VAR_POSITIONAL,
                parameter.VAR_KEYWORD,
            }:
                continue
            what = (
                "has no annotation"
                if hint is None
                else f"is a {shown(hint)}, which is neither input, setup nor context"
            )
            raise ModuleDefinitionError(f"Parameter {parameter.name!r} of {at} {what}.", hint=_SHAPE)
        if place in seen:
            both = ("inputs", "setups", "contexts")[place]
            raise ModuleDefinitionError(f"{at} takes two {both}: {seen[place]} and {parameter.name}.", hint=_SHAPE)
        seen[place] = parameter.name
        if parameter.kind is parameter.POSITIONAL_ONLY:
            found.positional.append(place)
        else:
            found.named[parameter.name] = place
        if place == _INPUT:
            _check_input(hint, parameter.name, at)
            found.input = hint
        elif place == _SETUP:
            found.setup = hint
    if _INPUT not in seen:
        raise ModuleDefinitionError(f"{at} takes no input.", hint=_SHAPE)
    if "return" not in hints:
        raise ModuleDefinitionError(f"{at} does not say what it gives.", hint=_SHAPE)
    found.output = _output(hints["return"], function, at)
    return found


def _place(hint: Any) -> int | None:
    """Which argument of a handler an annotation means."""
    if hint is ModuleContext:
        return _CONTEXT
    if is_model(hint) and (issubclass(hint, SetupModel) or not {"protocol", "root"} & hint.model_fields.keys()):
        return _SETUP
    return _INPUT if any(True for _ in roots(hint)) else None


def _check_input(hint: Any, name: str, at: str) -> None:
    if is_model(hint) and issubclass(hint, DataModel):
        raise ModuleDefinitionError(
            f"Parameter {name!r} of {at} is a {shown(hint)}; a function gets the root of an input.",
            hint="Annotate it with the trigger class, or with a union of them.",
        )
    for kind in roots(hint):
        if not protocols(kind):
            raise ModuleDefinitionError(
                f"{kind.__name__}, the input of {at}, has no Literal protocol ({where(kind)}).",
                hint='Write protocol: Literal["..."] = "..." in it.',
            )


def _output(hint: Any, function: Any, at: str) -> Any:
    """The output format that a return annotation means; None where the function sends dicts, or by itself."""
    if inspect.isasyncgenfunction(function):
        if typing.get_origin(hint) not in _STREAMS:
            raise ModuleDefinitionError(
                f"{at} yields, so what it gives is AsyncIterator[...], not {shown(hint)}.", hint=_SHAPE
            )
        hint = typing.get_args(hint)[0]
    if is_model(hint) and issubclass(hint, DataModel):
        return hint
    members = tuple(dict.fromkeys(roots(hint)))
    if not members:
        if hint in {None, type(None), Any} or (typing.get_origin(hint) or hint) is dict:
            return None
        raise ModuleDefinitionError(f"{at} gives {shown(hint)}, which is no output model.", hint=_SHAPE)
    union: Any = Union[members]  # noqa: UP007 - the members are known at run time only
    return create_model(f"{function.__name__}_output", __base__=DataModel[union])
