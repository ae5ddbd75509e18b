"""From a selection to tools that can be called, and why the others cannot, in virtual time."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from pydantic import BaseModel
from tests.tools.neighbours import Process, echo, hanging, process, refused, tool_module

from dk_trio.errors import ToolUnavailableError
from dk_trio.module.tools import ToolModuleInfo, ToolReference, build_tool_cache
from dk_trio.rpc import CallInfo


class Setup(BaseModel):
    tools: ToolReference = ToolReference()
    more: list[ToolReference] = []
    resolved_tools: dict[str, ToolModuleInfo] = {}


def setup_of(*names: str, triggers: dict[str, bool] | None = None) -> Setup:
    chosen = triggers or {"search": True, "fetch": True}
    return Setup.model_validate({"tools": [{"setupId": f"setups:{name}", "triggers": chosen} for name in names]})


async def build(here: Process, setup: BaseModel, timeout: float = 10.0, metadata: Any = None) -> Any:
    job = here.job
    return await build_tool_cache(setup, job.registry, job.communication, timeout=timeout, metadata=metadata)


async def test_a_tool_is_its_setup_its_module_and_its_functions(autojump_clock: trio.abc.Clock) -> None:
    async with process() as here, here.serving(tool_module(echo)):
        cache = await build(here, setup_of("tool"))
    assert cache.failures == {}
    assert cache.list_tools() == ["setups:tool"]
    tool = cache.get("tool")
    assert tool is cache.get("setups:tool")
    assert (tool.module_id, tool.tool_name, tool.address) == ("modules:tool", "My tool", "tool.memory")
    assert [function.name for function in tool.tools] == ["search", "fetch"]
    assert tool.tools[0].description == "Search the web."
    assert list(tool.tools[0].parameters_schema["properties"]) == ["query", "limit"]
    assert cache.get("setups:other") is None


async def test_only_selected_triggers_are_functions(autojump_clock: trio.abc.Clock) -> None:
    setup = setup_of("tool", triggers={"fetch": True, "search": False})
    async with process() as here, here.serving(tool_module(echo)):
        cache = await build(here, setup)
    assert [function.name for function in cache.get("tool").tools] == ["fetch"]
    # Kept whole: another selection of the same setup, or a later one, may want the others.
    assert [function.name for function in setup.resolved_tools["setups:tool"].tools] == ["search", "fetch"]


async def test_a_setup_that_is_selected_twice_has_the_triggers_of_both(autojump_clock: trio.abc.Clock) -> None:
    setup = Setup.model_validate(
        {
            "tools": [{"setupId": "setups:tool", "triggers": {"fetch": True, "search": False}}],
            "more": [[{"setupId": "tool", "triggers": {"search": True}}]],
        }
    )
    async with process() as here, here.serving(tool_module(echo)):
        cache = await build(here, setup)
    assert cache.list_tools() == ["setups:tool"]
    assert [function.name for function in cache.get("tool").tools] == ["search", "fetch"]


async def test_what_a_setup_has_kept_is_not_asked_for_again(autojump_clock: trio.abc.Clock) -> None:
    setup = setup_of("tool", "other")
    async with process() as here:
        async with here.serving(tool_module(echo)):
            first = await build(here, setup)
        assert list(first.failures) == ["setups:other"]
        assert here.connected == ["tool"]
        kept = Setup.model_validate_json(setup.model_dump_json())
        async with here.serving(tool_module(echo), "other"):
            second = await build(here, kept)
        assert here.connected == ["tool", "other"]
    assert second.failures == {}
    assert second.get("tool") == first.get("tool")
    assert sorted(kept.resolved_tools) == ["setups:other", "setups:tool"]
    without = await build_tool_cache(kept)
    assert without.list_tools() == ["setups:tool", "setups:other"]


async def test_a_model_that_keeps_nothing_has_tools_too(autojump_clock: trio.abc.Clock) -> None:
    class Plain(BaseModel):
        tools: ToolReference

    plain = Plain.model_validate({"tools": [{"setupId": "tool", "triggers": {"search": True}}]})
    async with process() as here, here.serving(tool_module(echo)):
        assert (await build(here, plain)).list_tools() == ["tool"]


# --- failures --------------------------------------------------------------------------------------------------------


async def the_failure(here: Process, name: str, **arguments: Any) -> ToolUnavailableError:
    setup = setup_of("good", name)
    cache = await build(here, setup, **arguments)
    assert cache.list_tools() == ["setups:good"], "one that fails does not disturb the others"
    assert list(setup.resolved_tools) == ["setups:good"], "what failed is not kept"
    with pytest.raises(ToolUnavailableError) as caught:
        cache.get(name)
    error = caught.value
    assert error is not cache.failures[f"setups:{name}"], "many may ask, and raising writes to an exception"
    assert f"'setups:{name}'" in error.message
    assert error.hint
    assert error.violations[0].field == "content.tools[1].setupId"
    return error


async def test_a_setup_that_is_not_there(autojump_clock: trio.abc.Clock) -> None:
    async with process() as here, here.serving(tool_module(echo), "good"):
        error = await the_failure(here, "wrong")
    assert "the registry has no setup of this id" in error.message
    assert "content.tools[1]" in error.message


async def test_a_module_that_is_not_there(autojump_clock: trio.abc.Clock) -> None:
    async with process() as here, here.serving(tool_module(echo), "good"):
        with here.known("stopped", refused):
            pass
        error = await the_failure(here, "stopped")
    assert "asked for its module 'stopped', does not know it" in error.message
    assert "Start the module" in error.hint


async def test_a_server_that_is_not_there(autojump_clock: trio.abc.Clock) -> None:
    async with process() as here, here.serving(tool_module(echo), "good"):
        with here.known("down", refused, address="10.1.1.1", port=7):
            error = await the_failure(here, "down")
    assert "its module 'modules:down' at 10.1.1.1:7 failed" in error.message
    assert "connection refused" in error.message


async def test_a_server_that_is_too_slow_does_not_hold_up_the_others(autojump_clock: trio.abc.Clock) -> None:
    async with process() as here, here.serving(tool_module(echo), "good"):
        began = trio.current_time()
        with here.known("slow", hanging), here.known("slower", hanging):
            cache = await build(here, setup_of("slow", "slower"), timeout=7)
            assert trio.current_time() - began == pytest.approx(7)
            assert len(cache.failures) == 2
            error = await the_failure(here, "slow", timeout=7)
    assert "its module 'modules:slow' at slow.memory:0 did not answer within 7 s" in error.message
    assert "DIGITALKIN_TOOL_RESOLVE_TIMEOUT" in error.hint


async def test_a_module_without_an_address(autojump_clock: trio.abc.Clock) -> None:
    async with process() as here, here.serving(tool_module(echo), "good"):
        await here.job.registry.register("modules:nowhere", "", 0, "1")
        with here.known("nowhere", None):
            pass
        error = await the_failure(here, "nowhere")
    assert "registered without an address" in error.message


async def test_triggers_that_the_module_does_not_have(autojump_clock: trio.abc.Clock) -> None:
    async with process() as here, here.serving(tool_module(echo)):
        cache = await build(here, setup_of("tool", triggers={"fly": True, "search": False}))
    error = cache.failures["setups:tool"]
    assert "has no trigger 'fly' (its triggers: 'search', 'fetch')" in error.message


async def test_a_registry_that_breaks_is_the_failure_of_its_tools(autojump_clock: trio.abc.Clock) -> None:
    class Broken:
        async def get_setup(self, setup_id: str) -> None:
            raise KeyError("a bug")

    async with process() as here:
        cache = await build_tool_cache(setup_of("a", "b"), Broken(), here.job.communication)  # type: ignore[arg-type]
    assert len(cache.failures) == 2
    assert "KeyError: 'a bug'" in cache.failures["setups:a"].message
    assert isinstance(cache.failures["setups:a"].__cause__, KeyError)


async def test_without_a_registry_nothing_is_found(autojump_clock: trio.abc.Clock) -> None:
    cache = await build_tool_cache(setup_of("a"))
    assert "there is no registry" in cache.failures["setups:a"].message


async def test_being_cancelled_ends_the_search(autojump_clock: trio.abc.Clock) -> None:
    async with process() as here:
        with here.known("slow", hanging), trio.move_on_after(2) as scope:
            await build(here, setup_of("slow"))
        assert scope.cancelled_caught
        assert here.channels.statistics().leases == 0


async def test_clearing_forgets_tools_and_failures(autojump_clock: trio.abc.Clock) -> None:
    async with process() as here, here.serving(tool_module(echo)):
        cache = await build(here, setup_of("tool", "wrong"))
    cache.clear("wrong")
    assert cache.get("wrong") is None
    tool = cache.get("tool")
    cache.clear()
    assert cache.get("tool") is None
    cache.add(tool)
    assert cache.list_tools() == ["setups:tool"]


async def test_metadata_is_sent_with_the_questions(autojump_clock: trio.abc.Clock) -> None:
    got: list[Any] = []

    @asynccontextmanager
    async def note(call: CallInfo) -> AsyncIterator[None]:
        got.append(call.metadata.get("x-api-key"))
        yield

    async with process() as here, here.serving(tool_module(echo), interceptors=[note]):
        await build(here, setup_of("tool"), metadata=[("x-api-key", "k")])
    assert got == ["k"] * 5
