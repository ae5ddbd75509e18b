"""The module of the migration page, on Trio: served, configured and called."""

import ast
import re
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from grpclib import GRPCError, Status
from migration.after import News
from tests.docs.test_module_pages import rows
from tests.module.served import outputs_of, served

from dk_trio import ModuleClient, ModuleContext

SAMPLES = Path(__file__).parents[2] / "docs" / "samples" / "migration"
PAGE = (SAMPLES.parents[1] / "migrating.md").read_text()
SETUP = "setups:mine"


async def headlines(client: ModuleClient, **arguments: Any) -> list[str]:
    outputs = await outputs_of(client, {"topic": "rain"}, protocol="headlines", setup_id=SETUP, **arguments)
    protocols = [output["root"]["protocol"] for output in outputs]
    assert protocols == ["module_start_info", *["headline"] * (len(outputs) - 2), "end_of_stream"]
    return [output["root"]["text"] for output in outputs[1:-1]]


async def test_the_form_has_fetched_choices(autojump_clock: trio.testing.MockClock) -> None:
    async with served(News) as (_, client):
        form = (await client.config_setup_schema(llm_format=True))["json_schema"]
    assert form["properties"]["region"]["enum"] == ["world", "local"]
    assert form["properties"].keys() == {"region"}


async def test_a_configured_module_answers_and_remembers(autojump_clock: trio.testing.MockClock) -> None:
    async with served(News) as (_, client):
        content = await client.config_setup({"region": "world"}, setup_id=SETUP)
        assert content["feeds"] == ["north", "south"]
        assert "region" not in content
        assert await headlines(client) == ["north: news about rain (1)", "south: news about rain (1)"]
        assert await headlines(client) == ["north: news about rain (2)", "south: news about rain (2)"]
        assert await headlines(client, mission_id="missions:other") == [
            "north: news about rain (1)",
            "south: news about rain (1)",
        ]


async def test_the_callers_limit_of_the_cost_holds(autojump_clock: trio.testing.MockClock) -> None:
    limit = {"limit_type": "amount", "max_value": 0.75}  # a feed costs 0.5
    async with served(News) as (_, client):
        await client.config_setup({"region": "world"}, setup_id=SETUP)
        data = {"root": {"protocol": "headlines", "topic": "rain"}, "cost_limits": [limit]}
        with pytest.raises(GRPCError, match=r"0\.75") as caught:
            await outputs_of(client, data, setup_id=SETUP)
        assert caught.value.status is Status.FAILED_PRECONDITION
        assert caught.value.details[0].reason == "COST_LIMIT"
        assert len(await headlines(client)) == 2


@pytest.mark.parametrize("gone", [False, True], ids=["after success", "when the caller has gone"])
async def test_cleanup_runs_once(
    gone: bool, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    contexts: list[ModuleContext] = []

    async def cleanup(self: News) -> None:
        contexts.append(self.context)
        await original(self)

    original = News.cleanup
    monkeypatch.setattr(News, "cleanup", cleanup)
    async with served(News) as (server, client):
        await client.config_setup({"region": "local"}, setup_id=SETUP)
        if gone:
            async with client.start({"topic": "rain"}, protocol="headlines", setup_id=SETUP) as outputs:
                await anext(outputs)
        else:
            await headlines(client)
        assert not await server.drain(60)
    (context,) = contexts
    assert context.state.open_feeds == []


@pytest.mark.parametrize(("home", "names"), [cells[1:] for cells in rows(PAGE, "there | here | names")])
def test_names_stand_where_the_page_says(home: str, names: str) -> None:
    module = import_module(home.strip("`"))
    named = re.findall(r"`(\w+)`", names)
    assert named
    assert [name for name in named if not hasattr(module, name)] == []


@pytest.mark.parametrize(
    ("before", "after"), [("before.py", "after.py"), ("before_trigger.py", "triggers/headlines_trigger.py")]
)
def test_classes_and_methods_are_the_same_before_and_after(before: str, after: str) -> None:
    def names(file: str) -> dict[str, list[str]]:
        classes = [node for node in ast.parse((SAMPLES / file).read_text()).body if isinstance(node, ast.ClassDef)]
        kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
        return {each.name: [node.name for node in each.body if isinstance(node, kinds)] for each in classes}

    assert names(before) == names(after) != {}


def test_what_is_moved_from_needs_a_package_that_is_not_here() -> None:
    assert all("from digitalkin" in (SAMPLES / name).read_text() for name in ("before.py", "before_trigger.py"))
    assert not any("asyncio" in path.read_text() for path in SAMPLES.rglob("*.py") if "before" not in path.name)
