"""Reading classes: which models a class names in its type arguments, which protocols a root has, where a class stands.

Pure functions over `typing` objects; no registry, no state.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, TypeGuard, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel

from ._models import DataModel


def type_arguments(cls: type, base: type) -> tuple[Any, ...]:
    """What `cls` gives for the type parameters of the generic class `base`, through any classes between them.

    A parameter that nobody gave is left as its `TypeVar`.
    """
    parameters = getattr(base, "__parameters__", ())
    found = _bound(cls, base, {})
    return found if found is not None else parameters


def _bound(cls: type, base: type, given: Mapping[Any, Any]) -> tuple[Any, ...] | None:
    for parent in getattr(cls, "__orig_bases__", cls.__bases__):
        origin = get_origin(parent) or parent
        arguments = tuple(given.get(argument, argument) for argument in get_args(parent))
        if origin is base:
            return arguments or getattr(base, "__parameters__", ())
        if isinstance(origin, type) and issubclass(origin, base):
            parameters = getattr(origin, "__parameters__", ())
            return _bound(origin, base, dict(zip(parameters, arguments, strict=False)))
    return None


def is_model(candidate: Any) -> TypeGuard[type[BaseModel]]:
    """Whether this is a pydantic model class and not a type variable or a union."""
    return isinstance(candidate, type) and issubclass(candidate, BaseModel)


def is_given(argument: Any) -> bool:
    """Whether a type argument was given: it is not still a type variable, nor a default that says nothing."""
    return not isinstance(argument, TypeVar) and argument is not Any and argument is not BaseModel


def roots(model: Any) -> Iterator[type[BaseModel]]:
    """The trigger classes that may stand as root: of a `DataModel` the members of its root, of a trigger itself."""
    origin = get_origin(model)
    if origin is Annotated:
        yield from roots(get_args(model)[0])
    elif origin in {Union, types.UnionType}:
        for member in get_args(model):
            yield from roots(member)
    elif is_model(model):
        if issubclass(model, DataModel):
            yield from roots(model.model_fields["root"].annotation)
        else:
            yield model


def protocols(trigger: type[BaseModel]) -> tuple[str, ...]:
    """The values of a trigger's `protocol`; empty when it is not a `Literal`."""
    field = trigger.model_fields.get("protocol")
    if field is None or get_origin(field.annotation) is not Literal:
        return ()
    return tuple(str(value) for value in get_args(field.annotation))


def shown(thing: Any) -> str:
    """A type as an author has written it: `Message | Number`, not `<class 'x.Message'>`."""
    return thing.__name__ if isinstance(thing, type) else repr(thing).replace("typing.", "")


def where(thing: Any) -> str:
    """`file:line` of a class or function, for messages. Reads the source of a class: only for errors.

    The line of a class that was made at run time is that of its first method.
    """
    members = vars(thing).values() if isinstance(thing, type) else (thing,)
    functions = (getattr(member, "__func__", member) for member in members)
    codes = [inspect.unwrap(each).__code__ for each in functions if inspect.isfunction(each)]
    if isinstance(thing, type):
        try:
            lines, start = inspect.getsourcelines(thing)
            block = range(start, start + len(lines))
            # Two classes of one name in one file: the source that is found is that of the first.
            if not codes or codes[0].co_firstlineno in block:
                return f"{inspect.getsourcefile(thing)}:{start}"
        except (OSError, TypeError, SyntaxError, IndexError):
            pass
    if codes:
        return f"{codes[0].co_filename}:{codes[0].co_firstlineno}"
    return f"module {getattr(thing, '__module__', '?')}"
