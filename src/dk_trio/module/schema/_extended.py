"""A module's input or output model, widened by the triggers that every module has."""

from __future__ import annotations

import types
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, Field, create_model

from dk_trio.module._formats import is_model, protocols


def extended_model(
    model: type[BaseModel], utilities: Sequence[type[BaseModel]], *, cost_limit: type[BaseModel] | None = None
) -> type[BaseModel]:
    """`<name>Utilities`: a subclass of the model whose root may also be one of the utilities.

    The union is discriminated by `protocol` when each member has it as a `Literal` and no two share a value. A protocol
    that the author declares takes the place of the utility's.

    Args:
        model: The author's input or output format; returned as it is when it has no root.
        utilities: Triggers to add.
        cost_limit: Adds `cost_limits`, a list of these or null.
    """
    if "root" not in model.model_fields:
        return model
    own = tuple(_members(model.model_fields["root"].annotation))
    taken = {name for member in own if is_model(member) for name in protocols(member)}
    members = (*own, *(utility for utility in utilities if not taken.intersection(protocols(utility))))
    names = [protocols(member) if is_model(member) else () for member in members]
    flat = [name for group in names for name in group]
    root: Any = Union[members]  # noqa: UP007 - the members are known at run time only
    if len(members) > 1 and all(names) and len(set(flat)) == len(flat):
        root = Annotated[root, Field(discriminator="protocol")]
    fields: dict[str, Any] = {"root": (root, ...)}
    if cost_limit is not None and "cost_limits" not in model.model_fields:
        limits: Any = list[cost_limit] | None  # type: ignore[valid-type]
        fields["cost_limits"] = (limits, None)
    return create_model(f"{model.__name__}Utilities", __base__=model, __doc__=vars(model).get("__doc__"), **fields)


def _members(annotation: Any) -> Iterator[Any]:
    """The types that a root may have, also those that are no models; a `DataModel` would be one."""
    origin = get_origin(annotation)
    if origin in {Union, types.UnionType}:
        for member in get_args(annotation):
            yield from _members(member)
    elif origin is Annotated:
        yield from _members(get_args(annotation)[0])
    else:
        yield annotation
