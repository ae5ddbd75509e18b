"""From an input's root to its handler, and what can be wrong with that: found when the server starts.

`input_model` is what inputs are validated with, `check_routes` walks every type that a root of it can have and asks
where it would go. A handler to which none goes, and a type that goes nowhere, are mistakes of the author.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Union

from pydantic import BaseModel, Field, create_model

from dk_trio.errors import ModuleDefinitionError

from ._formats import is_model, protocols, roots, shown, where
from ._models import DataModel
from ._trigger import RESERVED, Handler, pick, takes

if TYPE_CHECKING:
    from ._base import TrioModule

Triggers = Mapping[str, tuple[Handler, ...]]
Roots = Mapping[str, tuple[type[BaseModel], ...]]


def input_model(module: type[TrioModule[Any, Any, Any, Any]], triggers: Triggers) -> type[BaseModel]:
    """The module's input format, or a union of what its handlers take.

    Raises:
        ModuleDefinitionError: Neither is there.
    """
    given = module.input_format
    if given is not None:
        return _envelope(given, "input", module)
    members: list[type[BaseModel]] = []
    for protocol, handlers in triggers.items():
        for handler in handlers:
            if not takes(handler):
                raise ModuleDefinitionError(
                    f"Protocol {protocol!r} of {module.__name__} has no input type: {_at(handler)} names none.",
                    hint=f"Name an input format in {module.__name__}'s type arguments, or give {handler.__qualname__} "
                    f'an input_format whose protocol is Literal["{protocol}"].',
                )
            members += (kind for kind in takes(handler) if protocol in protocols(kind))
    if not members:
        raise ModuleDefinitionError(
            f"{module.__name__} has no input format ({where(module)}).",
            hint=f"Write class {module.__name__}(TrioModule[MyInput, MyOutput, MySetup]), or set input_format.",
        )
    # Where an input fits two of them equally well, pydantic takes the first: the derived class, which says more.
    members = sorted(dict.fromkeys(members), key=lambda member: -len(member.__mro__))
    union: Any = Union[tuple(members)]  # noqa: UP007 - the members are known at run time only
    values = [value for member in members for value in protocols(member)]
    if len(members) > 1 and len(set(values)) == len(values):  # a discriminator must tell all members apart
        union = Annotated[union, Field(discriminator="protocol")]
    return create_model(f"{module.__name__}Input", __base__=DataModel[union])


def check_output(module: type[TrioModule[Any, Any, Any, Any]]) -> None:
    """Refuse an output format whose roots cannot be told apart by their protocol.

    Raises:
        ModuleDefinitionError: Names the root.
    """
    if module.output_format is None:
        return
    for root in roots(_envelope(module.output_format, "output", module).model_fields["root"].annotation):
        if not protocols(root):
            raise ModuleDefinitionError(
                f"{root.__name__}, a root of the output format of {module.__name__}, has no Literal protocol "
                f"({where(root)}).",
                hint=f'Write protocol: Literal["{root.__name__.lower()}"] = "{root.__name__.lower()}" in it.',
            )


def roots_by_protocol(model: type[BaseModel]) -> Roots:
    """The types that a root with this protocol may have, in the order of the union."""
    found: dict[str, list[type[BaseModel]]] = {}
    for root in roots(model.model_fields["root"].annotation):
        for protocol in protocols(root):
            found.setdefault(protocol, []).append(root)
    return {protocol: tuple(kinds) for protocol, kinds in found.items()}


def check_routes(model: type[BaseModel], triggers: Triggers, known: Roots) -> None:
    """Refuse handlers that no input can reach, and inputs that reach no handler.

    Raises:
        ModuleDefinitionError: Names the handler, its place and the type.
    """
    for protocol in known:
        if protocol in RESERVED:
            raise ModuleDefinitionError(
                f"{known[protocol][0].__name__}, a root of {model.__name__}, has protocol {protocol!r}, which every "
                f"module answers by itself ({where(known[protocol][0])}).",
                hint="Leave it out, or choose another protocol.",
            )
    for protocol, handlers in triggers.items():
        if protocol not in known:
            raise ModuleDefinitionError(
                f"{handlers[0].__qualname__} handles protocol {protocol!r}, but no root of {model.__name__} has it "
                f"(they have {', '.join(sorted(known)) or 'no Literal protocol at all'}) ({where(handlers[0])}).",
                hint=f'Add a trigger class with protocol: Literal["{protocol}"] = "{protocol}" to its root.',
            )
        _check_protocol(protocol, handlers, known[protocol], model)
    if triggers:
        for root in roots(model.model_fields["root"].annotation):
            if not protocols(root):
                raise ModuleDefinitionError(
                    f"{root.__name__}, a root of {model.__name__}, has no Literal protocol, so no handler is for it "
                    f"({where(root)}).",
                    hint='Write protocol: Literal["..."] = "..." in it.',
                )


def _check_protocol(
    protocol: str, handlers: tuple[Handler, ...], kinds: tuple[type[BaseModel], ...], model: type[BaseModel]
) -> None:
    reached: dict[Handler, list[type[BaseModel]]] = {handler: [] for handler in handlers}
    hidden: dict[type[BaseModel], type[BaseModel]] = {}
    for index, kind in enumerate(kinds):
        handler = pick(handlers, kind)
        if handler is None:
            raise ModuleDefinitionError(
                f"No handler of protocol {protocol!r} takes {kind.__name__}, which is a root of {model.__name__} "
                f"({where(kind)}). It has {_listed(handlers)}.",
                hint=f"Register a handler that takes {kind.__name__}, or leave it out of {model.__name__}.",
            )
        twin = next((earlier for earlier in kinds[:index] if _alike(earlier, kind)), None)
        if twin is None:
            reached[handler].append(kind)
        else:
            hidden[kind] = twin
    for handler, found in reached.items():
        if not found:
            raise ModuleDefinitionError(
                f"No input can reach {_at(handler)}: {_why(handler, handlers, kinds, hidden, model)}.",
                hint=f"Protocol {protocol!r} has the input types {', '.join(kind.__name__ for kind in kinds)}.",
            )


def _why(
    handler: Handler,
    handlers: tuple[Handler, ...],
    kinds: tuple[type[BaseModel], ...],
    hidden: Mapping[type[BaseModel], type[BaseModel]],
    model: type[BaseModel],
) -> str:
    mine = takes(handler)
    within = [kind for kind in kinds if not mine or issubclass(kind, mine)]
    if not within:
        return f"it takes {shown(handler.input_format)}, which is not a root of {model.__name__}"
    for kind in within:
        if kind in hidden:
            twin = hidden[kind]
            first = pick(handlers, twin)
            taken = f" and goes to {_at(first)}" if first is not None else ""
            return (
                f"{kind.__name__} has the same fields as {twin.__name__} ({where(twin)}), which is tried first{taken}"
            )
    others = dict.fromkeys(other for kind in within if (other := pick(handlers, kind)) is not None)
    what = "everything of its protocol" if not mine else shown(handler.input_format)
    return f"it takes {what}, and all of that goes to {_listed(tuple(others))}"


def _alike(earlier: type[BaseModel], later: type[BaseModel]) -> bool:
    """Whether whatever fits `later` fits `earlier` too and just as well, so that pydantic always takes `earlier`."""
    checks = earlier.__pydantic_decorators__
    if checks.validators or checks.field_validators or checks.root_validators or checks.model_validators:
        return False
    if earlier.model_config.get("extra") != later.model_config.get("extra"):
        return False
    ours, theirs = earlier.model_fields, later.model_fields
    return ours.keys() == theirs.keys() and all(
        ours[name].annotation == theirs[name].annotation and ours[name].metadata == theirs[name].metadata
        for name in ours
        if name != "protocol"
    )


def _envelope(given: Any, what: str, module: type[TrioModule[Any, Any, Any, Any]]) -> type[BaseModel]:
    if is_model(given) and "root" in given.model_fields:
        return given
    order = "The type arguments of a module are input, output, setup, secret."
    if not is_model(given):
        raise ModuleDefinitionError(
            f"The {what} format of {module.__name__} is {shown(given)}, which is not a model class ({where(module)}).",
            hint=f"Give a class that derives from DataModel. {order}",
        )
    raise ModuleDefinitionError(
        f"The {what} format {given.__name__} of {module.__name__} has no root ({where(module)}).",
        hint=f"Derive it from DataModel: class {given.__name__}(DataModel[...]). {order}",
    )


def _at(handler: Handler) -> str:
    return f"{handler.__qualname__} ({where(handler)})"


def _listed(handlers: tuple[Handler, ...]) -> str:
    return ", ".join(_at(handler) for handler in handlers)
