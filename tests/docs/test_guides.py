"""The guides: their samples run, and what they say in numbers and tables is so."""

import inspect
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import task_tree
import todays_form
import trio
import trio.testing
from countdown import countdown
from glossary import Glossary
from postbox.module import Postbox
from profiles import Greeting
from tests.docs.test_module_pages import prose, rows
from tests.module.served import outputs_of, served
from tests.test_exports import public_names

from dk_trio import Settings, rpc
from dk_trio.module import ModuleDiscoverer, TrioModule
from dk_trio.module._utility import UTILITY_PROTOCOLS
from dk_trio.services.channels import GRACE
from dk_trio.services.config import _LOCAL, _REMOTE, OF_THE_SERVER, SERVICES
from dk_trio.settings._layers import LAYERS, ServerSettings
from dk_trio.settings._variable import variable_of
from dk_trio.signals import _remote, inbox, outbox

ROOT = Path(__file__).parents[2]
PRESETS = sorted((ROOT / "docs" / "samples" / "presets").iterdir())
GUIDES = {path.stem: path.read_text() for path in (ROOT / "docs" / "guides").glob("*.md")}


def roots(outputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The module's own outputs."""
    return [output["root"] for output in outputs[1:-1]]


# -- index ------------------------------------------------------------------------------------------------------------


def test_every_guide_has_a_page() -> None:
    table = rows(GUIDES["index"], "guide |")
    assert len(table) == 9
    linked = {target for _, page in table for target in re.findall(r"\]\(([\w/.-]+)\.md\)", page)}
    assert linked == {*(name for name in GUIDES if name != "index"), "../jobs", "../admission"}


def test_every_example_is_listed_and_says_how_to_run_it() -> None:
    listed = {name.strip("`") for name, _ in rows(GUIDES["index"], "file |")}
    examples = {path.name: path.read_text() for path in (ROOT / "examples").glob("*.py")}
    assert listed == examples.keys()
    for name, text in examples.items():
        assert re.search(rf"^ *(dk-trio serve|python) examples/{name}\b", text, re.MULTILINE), name


@pytest.mark.parametrize("package", ["module", "services", "testing"])
def test_every_name_for_authors_is_in_the_reference(package: str) -> None:
    pages = [(ROOT / "docs" / "reference" / f"{name}.md").read_text() for name in ("dk_trio", package)]
    shown = re.findall(r"^::: dk_trio\.(?:(\w+)\.)?(\w+)$", "".join(pages), re.MULTILINE)
    names = public_names(f"dk_trio.{package}")
    assert {name for home, name in shown if home == package} <= set(names)
    assert set(names) <= {name for home, name in shown if home in {"", package}}
    assert len(shown) == len(set(shown))


# -- creating custom modules ------------------------------------------------------------------------------------------


async def test_glossary(autojump_clock: trio.testing.MockClock) -> None:
    async with served(Glossary) as (_, client):
        await outputs_of(client, {"word": "trio", "meaning": "three"}, protocol="learn", mission_id="missions:a")
        known = await outputs_of(client, {"word": "trio"}, protocol="define", mission_id="missions:b")
        unknown = await outputs_of(client, {"word": "duo"}, protocol="define")
    assert [root["meaning"] for root in roots(known) + roots(unknown)] == ["three", "nobody knows"]
    assert known[0]["root"]["module_id"] == "modules:glossary"


async def test_countdown(autojump_clock: trio.testing.MockClock) -> None:
    async with served(countdown) as (_, client):
        outputs = await outputs_of(client, {"start": 3}, protocol="count")
    assert [root["left"] for root in roots(outputs)] == [3, 2, 1]
    assert (countdown.name, countdown.description) == ("countdown", "Counts down.")


def test_methods_that_a_module_may_override() -> None:
    for method, _ in rows(GUIDES["custom-modules"], "method |"):
        name, arguments = re.match(r"`(\w+)\((.*?)\)`", method).groups()
        signature = inspect.signature(getattr(TrioModule, name))
        taken = ["self", *filter(None, arguments.split(", "))]
        assert [*signature.parameters][: len(taken)] == taken


# -- trigger handlers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("protocol", "data", "lines"),
    [
        ("message", {"text": "hi"}, ["note: hi"]),
        ("message", {"text": "hi", "subject": "greetings"}, ["letter: greetings"]),
        ("parcel", {"things": ["soap", "rope"]}, ["parcel: soap", "parcel: rope"]),
    ],
)
async def test_postbox(
    protocol: str, data: dict[str, Any], lines: list[str], autojump_clock: trio.testing.MockClock
) -> None:
    async with served(Postbox) as (_, client):
        outputs = await outputs_of(client, data, protocol=protocol)
    assert [root["line"] for root in roots(outputs)] == lines


def test_what_the_page_says_of_the_discoverer() -> None:
    page = prose(GUIDES["trigger-handlers"])
    parameters = inspect.signature(ModuleDiscoverer).parameters
    assert f"`{parameters['file_pattern'].default}` unless told otherwise" in page
    assert parameters["max_file_size"].default == 1024**2
    assert "`max_file_size`, 1 MiB" in page
    assert all(f"`{protocol}`" in page for protocol in UTILITY_PROTOCOLS)


# -- service strategies -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mission", "said"), [("missions:m1", "hello, Ada"), ("missions:m2", "hello, stranger")])
async def test_profiles(mission: str, said: str, autojump_clock: trio.testing.MockClock) -> None:
    async with served(Greeting) as (_, client):
        outputs = await outputs_of(client, {}, protocol="hello", mission_id=mission)
    assert [root["text"] for root in roots(outputs)] == [said]


async def test_a_strategy_of_ones_own_is_asked_for_its_health(autojump_clock: trio.testing.MockClock) -> None:
    async with served(Greeting) as (_, client):
        outputs = await outputs_of(client, {}, protocol="healthcheck_services")
    (services,) = (output["root"]["services"] for output in outputs if "services" in output.get("root", {}))
    assert {row["name"]: row["status"] for row in services}["user_profile"] == "healthy"


def test_every_service_and_its_local_class_is_listed() -> None:
    page = GUIDES["service-strategies"]
    table = rows(page, "service |")
    names = [name for cells in table for name in re.findall(r"`(\w+)`", cells[0])]
    classes = [name for cells in table for name in re.findall(r"`(\w+)`", cells[1])]
    assert sorted(names) == sorted(SERVICES)
    local = {name: place.partition(":")[2] for name, place in _LOCAL.items()}
    assert dict(zip(names, classes, strict=True)) == {name: local[name] for name in SERVICES}
    assert all(f"`{name}`, with the class `{local[name]}`" in prose(page) for name in OF_THE_SERVER)
    assert all(f"`{name}`" in page.partition("##")[0] for name in SERVICES)


def test_every_remote_class_is_named() -> None:
    page = GUIDES["service-strategies"].partition("## Remote strategies")[2].partition("\n## ")[0]
    named = set(re.findall(r"`(Grpc\w+)`", page))
    assert named == {place.partition(":")[2] for place in _REMOTE.values() if ":Grpc" in place}


# -- dynamic schemas --------------------------------------------------------------------------------------------------


async def test_todays_form(monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock) -> None:
    with trio.fail_after(86400):
        assert (await todays_form.form())["fruit"]["enum"] == ["apples"]
        monkeypatch.setattr(todays_form, "stock", ["apples", "pears"])
        form = await todays_form.form()
        plain = await todays_form.Order.get_clean_model(config_fields=False, hidden_fields=False)
    assert form["fruit"]["enum"] == ["apples", "pears"]
    assert "note" in form
    assert [*plain.model_json_schema()["properties"]] == ["fruit"]
    assert "enum" not in plain.model_json_schema()["properties"]["fruit"]


# -- resilience -------------------------------------------------------------------------------------------------------


def test_the_default_policy_of_a_channel() -> None:
    policy = rpc.RetryPolicy()
    page = prose(GUIDES["resilience"])
    assert f"by default {policy.max_attempts} attempts, {policy.initial_backoff:g} s before the first retry" in page
    assert f"{policy.max_backoff:g} s at most" in page
    assert policy.multiplier == 2
    told = next(cells[0] for cells in rows(GUIDES["resilience"], "the call ended with |") if "UNAVAILABLE" in cells[0])
    assert set(re.findall(r"`(\w+)`", told)) == {status.name for status in policy.statuses}


def test_what_becomes_of_signals_in_an_outage() -> None:
    page = prose(GUIDES["resilience"])
    assert f"pauses that grow up to {outbox.PAUSE_MAX:g} s" in page
    assert f"more than {outbox.MAX_TASKS:,} jobs wait" in page
    assert f"gets {_remote.CLOSE_TIMEOUT:g} s to send what waits" in page


# -- the concurrency model --------------------------------------------------------------------------------------------


async def test_task_tree(autojump_clock: trio.testing.MockClock) -> None:
    def shape(lines: list[str]) -> list[str]:
        return [re.sub(r"[0-9a-f-]{36}", "...", line) for line in lines]

    with trio.fail_after(86400):
        lines = await task_tree.two_jobs()
    shown, *_ = re.findall(r"^```text\n(.*?)^```", GUIDES["concurrency-model"], re.MULTILINE | re.DOTALL)
    assert shape(lines) == shape(shown.splitlines())


def test_times_of_what_is_shared() -> None:
    page = prose(GUIDES["concurrency-model"])
    assert f"their last user, {GRACE:g} s later" in page
    assert f"{GRACE:g} s after the last one has left, the channel closes" in page
    assert f"asks for jobs that begin meanwhile, {inbox.RESTART_AGE * 1000:g} ms later at most" in page


# -- gRPC tuning ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.stem)
def test_presets_have_effect_and_keep_the_golden_rule(preset: Path) -> None:
    environ = dict(line.split("=") for line in preset.read_text().splitlines())
    assert Settings.from_environment(environ).warnings == ()
    assert f'"presets/{preset.name}"' in GUIDES["grpc-tuning"]


def test_what_the_server_fixes() -> None:
    fixed = dict(rows(GUIDES["grpc-tuning"], "| value"))
    assert fixed["largest message, each way"] == f"{ServerSettings().max_send_message_bytes // 1024**2} MB"


@pytest.mark.parametrize("layer", ["signals", "query", "channel"])
def test_every_variable_of_what_calls_out_is_there_with_its_default(layer: str) -> None:
    told = dict(re.findall(r"`(\w+)` \| ([\d.]+)", GUIDES["grpc-tuning"]))
    for row in map(variable_of, fields(LAYERS[layer])):
        default = re.match(r"[\d.]+", row.default_text())
        assert float(told[row.name]) == float(default[0])
