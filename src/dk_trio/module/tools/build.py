"""The tools that a setup has selected, wherever in its model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, get_args

from pydantic import BaseModel

from dk_trio.services.communication import Communication, Metadata
from dk_trio.services.registry import Registry

from .cache import ToolCache
from .resolve import TIMEOUT, Wanted, resolve
from .selection import ToolReference, ToolSelection

_RESOLVED = "resolved_tools"


async def build_tool_cache(
    setup: BaseModel,
    registry: Registry | None = None,
    communication: Communication | None = None,
    *,
    timeout: float = TIMEOUT,
    metadata: Metadata | None = None,
) -> ToolCache:
    """The tools that `setup` selects: in its fields, in nested models, in lists and in values of dicts.

    What `setup.resolved_tools` has is taken from there; what is missing is asked for and put there, so that it is kept
    with the setup. Clear it first to ask for everything anew.

    Args:
        setup: Any model. One without `resolved_tools` keeps nothing.
        registry: Where setups and modules are found; None finds none.
        communication: Asks the modules for their schemas; None asks none.
        timeout: Seconds for each tool. All are asked at once.
        metadata: Sent with each call of a module.
    """
    resolved = getattr(setup, _RESOLVED, None)
    return await resolve(
        selections(setup, "content"),
        registry=registry,
        communication=communication,
        timeout=timeout,
        metadata=metadata,
        resolved=resolved if isinstance(resolved, dict) else None,
    )


def selections(value: Any, path: str) -> Iterator[Wanted]:
    """The tools selected in a value, each with the path of its selection below `path`."""
    if isinstance(value, ToolReference):
        yield from value.wanted(path)
    elif isinstance(value, ToolSelection):
        yield value.wanted(path)
    elif isinstance(value, BaseModel):
        for name, field in type(value).model_fields.items():
            if name != _RESOLVED:
                yield from selections(getattr(value, name, None), f"{path}.{field.alias or name}")
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from selections(item, f"{path}.{key}")
    elif isinstance(value, list | tuple | set | frozenset):
        for index, item in enumerate(value):
            yield from selections(item, f"{path}[{index}]")


def may_select(model: Any, _seen: frozenset[Any] = frozenset()) -> bool:
    """Whether values of a model, or of any type, may hold selections of tools: asked once, not for each job."""
    if isinstance(model, type) and issubclass(model, BaseModel):
        if model in _seen:
            return False
        if issubclass(model, (ToolReference, ToolSelection)):
            return True
        fields = [field for name, field in model.model_fields.items() if name != _RESOLVED]
        return any(may_select(field.annotation, _seen | {model}) for field in fields)
    return any(may_select(argument, _seen) for argument in get_args(model))
