"""How a refused value is told: as its sender wrote it, with the rule in the words of whoever made it."""

from typing import Any, Literal

import pytest
from pydantic import Field, model_validator
from tests.module.sample import module_class

from dk_trio import DataModel, DataTrigger, SetupModel, TrioModule
from dk_trio.errors import DkTrioError
from dk_trio.module import ModuleDefinition
from dk_trio.module._cost_limits import parse_cost_limits


class Count(DataTrigger):
    protocol: Literal["count"] = "count"
    up_to: int = Field(default=1, le=10)
    names: list[str] = []


class Setup(SetupModel):
    word: str = "a"

    @model_validator(mode="after")
    def _allowed(self) -> "Setup":
        if self.word == "b":
            raise ValueError("No word of ours")
        if self.word == "c":
            raise AssertionError("Nor this")  # a plain assert is rewritten here
        return self


def definition() -> ModuleDefinition:
    async def run(self: Any, *_: Any) -> None: ...

    return ModuleDefinition.of(module_class(TrioModule[DataModel[Count], DataModel[Count], Setup], run=run))


@pytest.mark.parametrize(
    ("root", "told"),
    [
        ({"up_to": 500.0}, "root.up_to: input should be less than or equal to 10 (got 500)"),
        ({"up_to": 1e30}, "(got 1e+30)"),
        ({"up_to": 0.5}, "root.up_to: input should be a valid integer, got a number with a fractional part (got 0.5)"),
        ({"names": 3.0}, "root.names: input should be a valid list (got 3)"),
        ({"protocol": 3.0}, "Unknown protocol 3"),
    ],
)
def test_a_number_is_told_as_it_was_sent_though_a_struct_knows_only_doubles(root: dict[str, Any], told: str) -> None:
    with pytest.raises(DkTrioError) as caught:
        definition().parse_input({"root": {"protocol": "count", **root}})
    assert told in caught.value.text


@pytest.mark.parametrize(("word", "rule"), [("b", "No word of ours"), ("c", "Nor this")])
def test_a_rule_of_the_author_is_told_in_the_authors_words(word: str, rule: str) -> None:
    with pytest.raises(DkTrioError) as caught:
        definition().parse_setup({"word": word}, setup_id="setups:s")
    assert caught.value.text.endswith(f": {rule} (got an object with word).")
    assert [(row.field, row.description) for row in caught.value.violations] == [
        ("setup", f"{rule} (got an object with word)")
    ]


def test_a_limit_of_nothing_says_what_it_needs() -> None:
    with pytest.raises(DkTrioError) as caught:
        parse_cost_limits({"cost_limits": [{"limit_type": "quantity", "max_value": 5}]})
    assert "cost_limits[0]: a limit of a quantity needs a name or a type" in caught.value.text
