"""Tools as an agent wants them: descriptions for a language model, and functions that call the other modules."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

from dk_trio.services.communication import Answers, Communication

from .cache import ToolCache, slug
from .models import ToolDefinition, ToolModuleInfo

if TYPE_CHECKING:
    from dk_trio.module._context import SessionIds
    from dk_trio.module._request_metadata import RequestMetadata

ToolFunction: TypeAlias = Callable[..., Answers]
"""Called with the function's arguments as keywords, it is what the other module answers: see `call_module`."""

NAME_MAX: Final = 64
"""Length of a function's name that OpenAI's API takes, in characters of `[a-zA-Z0-9_-]`."""

_DIGEST: Final = 8


class CallContext(Protocol):
    """What calls of tools take from the context of a module."""

    @property
    def tool_cache(self) -> ToolCache:
        """The job's tools."""
        ...

    @property
    def communication(self) -> Communication:
        """Calls the other modules."""
        ...

    @property
    def session(self) -> SessionIds:
        """The ids of the job."""
        ...

    @property
    def request_metadata(self) -> RequestMetadata:
        """The metadata of the own caller."""
        ...


def openai_style_tools(cache: ToolCache, setup_id: str) -> list[dict[str, Any]]:
    """The functions of one tool in the form of OpenAI's `tools`; empty when no such tool was selected.

    Beside `function` stands `cost_info`. The names are unique among all tools of the cache.

    Raises:
        ToolUnavailableError: The tool was selected, but cannot be called.
    """
    tool = cache.get(setup_id)
    if tool is None:
        return []
    names = _names(cache)
    costs = _cost_text(tool.cost_config)
    return [
        {
            "type": "function",
            "function": {
                "module_id": tool.module_id,
                "toolkit_name": tool.tool_name,
                "name": names[tool.setup_id, function.name],
                "description": f"{function.description} {costs}".strip(),
                "parameters": function.parameters_schema,
            },
            "cost_info": tool.cost_config,
        }
        for function in tool.tools
    ]


def tool_functions(context: CallContext, setup_id: str) -> list[tuple[ToolDefinition, ToolFunction]]:
    """The functions of one tool, to be called; empty when no such tool was selected.

    A function is called with keywords. It starts a job of the other module, with the tool's setup, in the mission and
    with the request metadata of `context`, and gives its answers. Whether the keywords fit is for the other module to
    say. Its `__name__` is the name that `openai_style_tools` tells.

    Raises:
        ToolUnavailableError: The tool was selected, but cannot be called.
    """
    tool = context.tool_cache.get(setup_id)
    if tool is None:
        return []
    names = _names(context.tool_cache)
    return [
        (function, _function(context, tool, function, names[tool.setup_id, function.name])) for function in tool.tools
    ]


def _function(context: CallContext, tool: ToolModuleInfo, definition: ToolDefinition, name: str) -> ToolFunction:
    def call(**arguments: Any) -> Answers:
        return context.communication.call_module(
            tool.address,
            tool.port,
            {"root": {**arguments, "protocol": definition.name}},
            tool.setup_id,
            context.session.mission_id,
            metadata=context.request_metadata,
        )

    call.__name__ = call.__qualname__ = name
    call.__doc__ = definition.description
    return call


def _names(cache: ToolCache) -> dict[tuple[str, str], str]:
    """A name for each function by setup id and protocol; one that is too long, or not unique, ends in a digest."""
    plain = {
        (tool.setup_id, function.name): f"{slug(tool.tool_name)}__{slug(function.name)}"
        for tool in cache.entries.values()
        for function in tool.tools
    }
    taken = Counter(plain.values())
    return {
        key: name if len(name) <= NAME_MAX and taken[name] == 1 else _with_digest(name, key)
        for key, name in plain.items()
    }


def _with_digest(name: str, key: tuple[str, str]) -> str:
    digest = hashlib.sha256("\0".join(key).encode(errors="surrogatepass")).hexdigest()[:_DIGEST]
    return f"{name[: NAME_MAX - _DIGEST - 1]}_{digest}"


def _cost_text(costs: Mapping[str, Any]) -> str:
    texts = []
    for name, cost in costs.items():
        if isinstance(cost, Mapping) and isinstance(cost.get("rate"), int | float):
            about = f" ({cost['description']})" if cost.get("description") else ""
            texts.append(f"{cost.get('name', name)} {cost['rate']:g} per {cost.get('unit') or 'unit'}{about}")
    return f"Cost: {'; '.join(texts)}." if texts else ""
