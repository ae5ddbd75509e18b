"""Tools as an agent gets them: descriptions, and functions whose calls belong to the caller's job."""

import json
import re
from types import SimpleNamespace
from typing import Any

import pytest
import trio
import trio.testing
from tests.tools.neighbours import Process, echo, process, tool_module

from dk_trio.errors import ModuleCallError, ToolUnavailableError
from dk_trio.module import ModuleContext, RequestMetadata
from dk_trio.module.tools import (
    ToolCache,
    ToolDefinition,
    ToolModuleInfo,
    openai_style_tools,
    slug,
    tool_functions,
)
from dk_trio.services.communication import HOLDS

OPENAI_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
COSTS = {
    "tokens": {"name": "tokens", "type": "TOKEN_INPUT", "description": "prompt", "unit": "token", "rate": 0.002},
    "calls": {"rate": 1.0, "unit": "call"},
    "broken": {"rate": "much"},
}


def tool(setup_id: str = "setups:a", name: str = "Web Search", *protocols: str, **fields: Any) -> ToolModuleInfo:
    return ToolModuleInfo(
        module_id="modules:m",
        address="tool.memory",
        setup_id=setup_id,
        tool_name=name,
        tools=[
            ToolDefinition(name=protocol, description="Finds.", parameters_schema={"type": "object", "properties": {}})
            for protocol in protocols or ("search",)
        ],
        **fields,
    )


def cache_of(*tools: ToolModuleInfo) -> ToolCache:
    cache = ToolCache()
    for each in tools:
        cache.add(each)
    return cache


def names_of(cache: ToolCache) -> list[str]:
    return [
        description["function"]["name"]
        for setup_id in cache.list_tools()
        for description in openai_style_tools(cache, setup_id)
    ]


def test_the_description_of_a_function() -> None:
    (description,) = openai_style_tools(cache_of(tool(cost_config=COSTS)), "a")
    assert description == {
        "type": "function",
        "function": {
            "module_id": "modules:m",
            "toolkit_name": "Web Search",
            "name": "web_search__search",
            "description": "Finds. Cost: tokens 0.002 per token (prompt); calls 1 per call.",
            "parameters": {"type": "object", "properties": {}},
        },
        "cost_info": COSTS,
    }
    json.dumps(description)


def test_nothing_is_offered_of_a_tool_that_was_not_selected() -> None:
    assert openai_style_tools(ToolCache(), "setups:x") == []
    assert tool_functions(SimpleNamespace(tool_cache=ToolCache()), "setups:x") == []  # type: ignore[arg-type]


def test_names_are_what_openai_takes_and_unique() -> None:
    cache = cache_of(
        tool("setups:a", "Suche (schnell!)", "find"),
        tool("setups:b", "Suche: schnell", "find", "FIND"),
        tool("setups:c", "検索", "search", "検索", "捜索"),
        tool("setups:d", "a long name " * 20, "search", "search_more"),
    )
    names = names_of(cache)
    assert len(set(names)) == len(names) == 8
    assert all(OPENAI_NAME.fullmatch(name) for name in names), names
    assert names == names_of(cache), "a conversation goes on with the names that it began with"


def test_a_slug() -> None:
    assert slug("Web  Search-2") == "web_search_2"


def test_a_tool_that_cannot_be_used_says_so_where_it_is_used() -> None:
    cache = ToolCache()
    cache.failures["setups:a"] = ToolUnavailableError("The tool is down.", hint="Start it.")
    with pytest.raises(ToolUnavailableError, match="The tool is down"):
        openai_style_tools(cache, "a")
    with pytest.raises(ToolUnavailableError, match="The tool is down"):
        tool_functions(SimpleNamespace(tool_cache=cache), "setups:a")  # type: ignore[arg-type]


# --- calling ---------------------------------------------------------------------------------------------------------


def context_of(here: Process, *protocols: str, metadata: RequestMetadata | None = None) -> Any:
    return SimpleNamespace(
        tool_cache=cache_of(tool("setups:tool", "Web Search", *protocols)),
        communication=here.job.communication,
        session=SimpleNamespace(mission_id="missions:mine"),
        request_metadata=metadata or RequestMetadata(),
    )


async def test_a_call_carries_protocol_setup_mission_and_metadata(autojump_clock: trio.abc.Clock) -> None:
    seen: list[ModuleContext] = []

    async def handle(input_data: Any, context: ModuleContext) -> None:
        seen.append(context)
        await echo(input_data, context)

    metadata = RequestMetadata([("tag", "1"), ("id-bin", b"\xff"), ("tag", "2")])
    async with process() as here, here.serving(tool_module(handle)):
        (_, search), (definition, fetch) = tool_functions(
            context_of(here, "search", "fetch", metadata=metadata), "setups:tool"
        )
        assert definition.name == "fetch"
        assert (search.__name__, fetch.__name__) == ("web_search__search", "web_search__fetch")
        assert fetch.__doc__ == "Finds."
        answers = [answer async for answer in fetch(url="http://x")]
    assert answers[-1]["output"]["root"]["text"] == '{"protocol":"fetch","url":"http://x"}'
    assert seen[0].session.mission_id == "missions:mine"
    assert seen[0].session.setup_id == "setups:tool"
    got = [pair for pair in seen[0].request_metadata.to_grpc_metadata() if pair[0] != HOLDS]
    assert got == metadata.to_grpc_metadata()


async def test_arguments_that_do_not_fit_are_refused_by_the_other_module(autojump_clock: trio.abc.Clock) -> None:
    async with process() as here, here.serving(tool_module(echo)):
        ((_, search),) = tool_functions(context_of(here), "tool")
        with pytest.raises(ModuleCallError, match=r"INVALID_ARGUMENT.*query"):
            async for _ in search(protocol="fetch", limit=5):
                pass


async def test_a_tool_that_hangs_ends_with_its_callers_deadline(autojump_clock: trio.abc.Clock) -> None:
    """The deadline of the agent's own caller is a scope around the call, so the tool is told of it."""
    told: list[float] = []

    async def handle(input_data: Any, context: ModuleContext) -> None:
        told.append(round(trio.current_effective_deadline() - trio.current_time()))
        try:
            await trio.sleep_forever()
        finally:
            told.append(-1)

    async with process() as here, here.serving(tool_module(handle)) as server:
        ((_, search),) = tool_functions(context_of(here), "tool")
        began = trio.current_time()
        with trio.move_on_after(12):
            async for _ in search(query="cats"):
                pass
        assert trio.current_time() - began == pytest.approx(12)
        await trio.testing.wait_all_tasks_blocked()
        assert told == [12, -1]
        assert server.statistics().jobs.running == 0


async def test_a_hundred_calls_at_once_leave_nothing_behind(autojump_clock: trio.abc.Clock) -> None:
    async def handle(input_data: Any, context: ModuleContext) -> None:
        await trio.sleep(input_data.limit)
        await echo(input_data, context)

    async with process() as here, here.serving(tool_module(handle)) as server:
        ((_, search),) = tool_functions(context_of(here), "tool")
        ends: list[int] = []

        async def call(limit: int) -> None:
            with trio.move_on_after(50):
                async for _ in search(query="cats", limit=limit):
                    pass
                ends.append(limit)

        async with trio.open_nursery() as nursery:
            for limit in range(100):
                nursery.start_soon(call, limit)
        assert sorted(ends) == list(range(50))
        await trio.testing.wait_all_tasks_blocked()
        assert server.statistics().jobs.running == 0
        assert here.channels.statistics().leases == 0
        assert here.connected == ["tool"]
