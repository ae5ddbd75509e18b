"""Fetched values are in the schema wherever pydantic puts the field, and a failure is told beside it."""

import dataclasses
import logging
import math
from typing import Annotated, Any, Literal, NamedTuple

import pytest
import trio
from pydantic import BaseModel, ConfigDict, Field
from tests.schema.valid import check, refuses
from trio.testing import MockClock
from typing_extensions import TypedDict

from dk_trio.errors import ModuleDefinitionError
from dk_trio.module import SetupModel
from dk_trio.module.setup import Dynamic, Fetches, get_dynamic_metadata, get_fetchers, has_dynamic, template_of


async def colours() -> list[str]:
    return ["red", "green"]


async def broken() -> Any:
    raise ConnectionError("provider is down")


async def hanging() -> Any:
    await trio.sleep_forever()


Colour = Annotated[str, Dynamic(enum=colours)]


async def schema_of(model: type[SetupModel], **options: Any) -> dict[str, Any]:
    clean = await model.get_clean_model(config_fields=True, hidden_fields=True, force=True, **options)
    return check(clean.model_json_schema(), clean().model_dump(mode="json"))


async def test_any_property_can_be_fetched(autojump_clock: MockClock) -> None:
    async def seven() -> int:
        return 7

    async def options() -> dict[str, Any]:
        return {"inline": True}

    class Setup(SetupModel):
        number: Annotated[int, Dynamic({"ui:options": options}, maximum=seven, description=colours)] = 1

    field = (await schema_of(Setup))["properties"]["number"]
    assert (field["maximum"], field["ui:options"]) == (7, {"inline": True})
    assert "description is text" in field["x-dynamic-errors"]["description"]


async def test_a_fetched_value_takes_the_place_of_a_static_one(autojump_clock: MockClock) -> None:
    class Setup(SetupModel):
        colour: Annotated[str, Dynamic(enum=colours)] = Field(
            "red", json_schema_extra={"enum": ["red"], "config": True}
        )

    assert (await schema_of(Setup))["properties"]["colour"]["enum"] == ["red", "green"]
    assert Setup.model_json_schema()["properties"]["colour"]["enum"] == ["red"]


async def test_a_failure_leaves_the_field_as_it_was_and_says_why(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    class Setup(SetupModel):
        colour: Annotated[str, Dynamic(enum=broken, title=hanging, examples=colours)] = Field(
            "red", json_schema_extra={"enum": ["red"]}
        )

    with caplog.at_level(logging.WARNING):
        field = (await schema_of(Setup))["properties"]["colour"]
    assert trio.current_time() >= 10
    assert field == {
        "default": "red",
        "enum": ["red"],
        "examples": ["red", "green"],
        "title": "Colour",
        "type": "string",
        "x-dynamic-errors": {
            "enum": "ConnectionError: provider is down",
            "title": "TimeoutError: no answer within 10 s",
        },
    }
    assert "field colour: the fetcher of enum failed: ConnectionError: provider is down" in caplog.text


async def test_fields_do_not_wait_for_each_other(autojump_clock: MockClock) -> None:
    class Setup(SetupModel):
        one: Annotated[str, Dynamic(enum=hanging)] = ""
        two: Annotated[str, Dynamic(enum=hanging)] = ""
        three: Annotated[str, Dynamic(enum=colours)] = "red"

    began = trio.current_time()
    fields = (await schema_of(Setup, fetch_timeout=3))["properties"]
    assert trio.current_time() - began == 3
    assert "no answer within 3 s" in fields["one"]["x-dynamic-errors"]["enum"]
    assert fields["three"]["enum"] == ["red", "green"]


class Inner(BaseModel):
    colour: Colour = "red"


class Leaf(BaseModel):
    kind: Literal["leaf"] = "leaf"
    colour: Colour = "green"


class Tree(BaseModel):
    kind: Literal["tree"] = "tree"
    colour: Annotated[str, Dynamic(enum=colours)] = "red"
    branches: list["Tree | Leaf"] = []


@dataclasses.dataclass
class Record:
    colour: Colour = "red"


class Dict(TypedDict):
    colour: Colour


class Pair(NamedTuple):
    first: Colour
    second: int


@pytest.mark.parametrize(
    ("annotation", "good", "bad"),
    [
        (Colour, "red", "blue"),
        (Colour | None, None, "blue"),
        (Annotated[str | None, Dynamic(enum=colours)], None, "blue"),
        (Annotated[list[str], Dynamic(enum=colours)], ["red"], ["blue"]),
        (Annotated[list[str] | None, Dynamic(enum=colours)], ["red"], ["blue"]),
        (Annotated[Literal["red", "green", "blue"], Dynamic(enum=colours)], "red", "blue"),
        (list[Colour], ["red"], ["blue"]),
        (set[Colour], ["red"], ["blue"]),
        (frozenset[Colour], ["red"], ["blue"]),
        (tuple[Colour, int], ["red", 1], ["blue", 1]),
        (tuple[Colour, ...], ["red"], ["blue"]),
        (dict[str, Colour], {"a": "red"}, {"a": "blue"}),
        (int | Colour, "red", "blue"),
        (Inner, {"colour": "red"}, {"colour": "blue"}),
        (Inner | None, {"colour": "red"}, {"colour": "blue"}),
        (list[Inner], [{"colour": "red"}], [{"colour": "blue"}]),
        (dict[str, list[Inner]], {"a": [{"colour": "red"}]}, {"a": [{"colour": "blue"}]}),
        (tuple[int, Inner], [1, {"colour": "red"}], [1, {"colour": "blue"}]),
        (Tree | Leaf, {"kind": "leaf", "colour": "red"}, {"kind": "leaf", "colour": "blue"}),
        (Tree, {"branches": [{"branches": [], "colour": "red"}]}, {"branches": [{"branches": [], "colour": "blue"}]}),
        (Record, {"colour": "red"}, {"colour": "blue"}),
        (Dict, {"colour": "red"}, {"colour": "blue"}),
        (Pair, ["red", 1], ["blue", 1]),
    ],
    ids=str,
)
async def test_fields_are_found_at_any_depth(annotation: Any, good: Any, bad: Any, autojump_clock: MockClock) -> None:
    namespace = {"__annotations__": {"field": annotation}, "__module__": __name__}
    setup: Any = type(SetupModel)("Setup", (SetupModel,), namespace)
    clean = await setup.get_clean_model(config_fields=True, hidden_fields=False, force=True)
    schema = check(clean.model_json_schema(), {"field": good})
    assert refuses(schema, {"field": bad})
    clean.model_validate({"field": good})


async def test_the_fetchers_of_dropped_fields_are_not_called(autojump_clock: MockClock) -> None:
    called = []

    async def called_for() -> list[str]:
        called.append(True)
        return ["a"]

    class Setup(SetupModel):
        form: Annotated[str, Dynamic(enum=called_for)] = Field("a", json_schema_extra={"config": True})

    await Setup.get_clean_model(config_fields=False, hidden_fields=True, force=True)
    await Setup.get_clean_model(config_fields=True, hidden_fields=False)
    assert not called
    await Setup.get_clean_model(config_fields=True, hidden_fields=False, force=True)
    assert called


async def test_one_marker_at_several_fields_is_fetched_once(autojump_clock: MockClock) -> None:
    calls = []

    async def counted() -> list[str]:
        calls.append(1)
        return ["a"]

    Shared = Annotated[str, Dynamic(enum=counted)]  # noqa: N806

    class Setup(SetupModel):
        one: Shared = "a"  # type: ignore[valid-type]
        two: list[Shared] = Field([])  # type: ignore[valid-type]

    await schema_of(Setup)
    assert len(calls) == 1


async def test_a_forced_model_keeps_what_the_author_wrote_and_is_new_each_time(autojump_clock: MockClock) -> None:
    class Setup(SetupModel):
        model_config = ConfigDict(title="Painter")
        colour: Colour = "red"
        secret: int = Field(0, json_schema_extra={"config": True})

        def loud(self) -> str:
            return self.colour.upper()

    one = await Setup.get_clean_model(config_fields=False, hidden_fields=True, force=True)
    other = await Setup.get_clean_model(config_fields=False, hidden_fields=True, force=True)
    assert one is not other
    assert one().loud() == "RED"
    assert isinstance(one(), Setup)
    assert "secret" not in one.model_fields
    assert one.model_json_schema()["title"] == "Painter"
    assert await one.get_clean_model(config_fields=False, hidden_fields=True) is await Setup.get_clean_model(
        config_fields=False, hidden_fields=True
    )


async def test_without_fetchers_force_costs_nothing() -> None:
    class Setup(SetupModel):
        text: str = ""

    assert await Setup.get_clean_model(config_fields=False, hidden_fields=True, force=True) is Setup


async def test_cancellation_passes_and_nothing_goes_on(autojump_clock: MockClock) -> None:
    ended = []

    async def slow() -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append(True)

    class Setup(SetupModel):
        colour: Annotated[str, Dynamic(enum=slow)] = ""

    with trio.move_on_after(1) as scope:
        await Setup.get_clean_model(config_fields=True, hidden_fields=True, force=True)
    assert scope.cancelled_caught
    assert ended


async def test_fresh_values_are_used_again_and_failures_are_not(autojump_clock: MockClock) -> None:
    calls: list[str] = []
    failing = True

    async def kept() -> list[str]:
        calls.append("kept")
        return [str(len(calls))]

    async def anew() -> list[str]:
        calls.append("anew")
        return ["x"]

    async def at_first_broken() -> list[str]:
        calls.append("late")
        if failing:
            raise ConnectionError
        return ["y"]

    class Setup(SetupModel):
        one: Annotated[str, Dynamic(enum=kept, fresh_for=60)] = ""
        two: Annotated[str, Dynamic(enum=anew)] = ""
        three: Annotated[str, Dynamic(enum=at_first_broken, fresh_for=60)] = ""

    fetches, template = Fetches(), template_of(Setup)
    assert set(template.markers.values()) == {"one", "two", "three"}
    _, until = await fetches.of(template)
    assert until <= trio.current_time()
    failing = False
    await trio.sleep(30)
    await fetches.of(template)
    assert sorted(calls) == ["anew", "anew", "kept", "late", "late"]
    await trio.sleep(30)
    await fetches.of(template)
    assert calls.count("kept") == 2
    assert calls.count("late") == 2


async def test_until_when_all_values_are_fresh(autojump_clock: MockClock) -> None:
    class Setup(SetupModel):
        one: Annotated[str, Dynamic(enum=colours, fresh_for=60)] = ""
        two: Annotated[str, Dynamic(enum=colours, fresh_for=20)] = ""

    began = trio.current_time()
    assert (await Fetches().of(template_of(Setup)))[1] == began + 20
    assert (await Fetches().of(template_of(SetupModel)))[1] == math.inf


def test_what_a_field_says_of_its_fetchers() -> None:
    class Setup(SetupModel):
        one: Colour = ""
        two: str = ""

    fields = Setup.model_fields
    assert has_dynamic(fields["one"])
    assert not has_dynamic(fields["two"])
    assert get_dynamic_metadata(fields["two"]) is None
    assert get_fetchers(fields["one"]) == {"enum": colours}
    assert get_fetchers(fields["two"]) == {}


def test_a_field_without_a_json_schema_is_named() -> None:
    class Setup(SetupModel):
        model_config = ConfigDict(arbitrary_types_allowed=True)
        event: trio.Event | None = None

    with pytest.raises(ModuleDefinitionError, match=r"Setup has no JSON schema.*Event"):
        template_of(Setup)
