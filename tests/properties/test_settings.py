"""Settings from any text: a value within its bounds or a `SettingError` that names the variable, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.sizes import size

from dk_trio.errors import SettingError
from dk_trio.settings import LAYERS, Variable, all_variables
from dk_trio.settings._reading import Given, find, read_layers

VARIABLES = all_variables()
NAMES = sorted({name for row in VARIABLES for name in row.names})

NUMBERS = st.one_of(
    st.integers(-(10**12), 10**12).map(str), st.floats().map(repr), st.floats(0, 1e6).map("{:g}".format)
)
SHAPES = st.sampled_from([
    "", " ", "0", "1", "-1", "1e3", "0.1s", "1s", "nan", "inf", "-inf", "1_000", "٣", "²", "9" * 5000, "true", "False",
    "on", "gzip", "reject", "small", "~", "~/x", "~nobody-of-this-name/x", "/", "..", "a:1", "[::1]:80", "::1:80", "[",
    "]", "localhost:50051", "localhost:0", "Europe/Paris", "../UTC", "{}", "[1]", '{"a": 1}', "x,y", "\0", "a\nb",
])  # fmt: skip
TEXTS = st.one_of(NUMBERS, SHAPES, st.text(st.characters(exclude_categories=["Cs"]), max_size=12))


@pytest.mark.parametrize("row", VARIABLES, ids=lambda row: row.name)
def test_any_text_is_a_value_or_a_setting_error(row: Variable) -> None:
    @settings(deadline=None, max_examples=size(25, 3000), database=None)
    @given(TEXTS)
    def check(text: str) -> None:
        try:
            value = row.parse(row.name, text)
        except SettingError as error:
            assert row.name in error.text
            assert not row.secret or len(text.strip()) < 4 or text.strip() not in error.text
            return
        assert value == row.parse(row.name, f"  {text}\t"), "blanks around it mean nothing"

    check()


def test_the_home_of_nobody_is_told_as_what_it_is() -> None:
    """It was a RuntimeError, and a traceback at the start of the server."""
    with pytest.raises(SettingError, match=r"^DIGITALKIN_TLS_KEY='~nobody-of-this-name/key\.pem' cannot be used"):
        read_layers([Given("environment", {"DIGITALKIN_TLS_KEY": "~nobody-of-this-name/key.pem"})])


@pytest.mark.parametrize("row", VARIABLES, ids=lambda row: row.name)
def test_a_default_as_it_is_shown_is_the_default(row: Variable) -> None:
    if row.default() is not None and not (isinstance(row.default(), str) and not row.default()):
        assert row.parse(row.name, row.default_text()) == row.default()


PLACES = st.lists(st.dictionaries(st.sampled_from(NAMES), TEXTS, max_size=4), max_size=3)


@settings(deadline=None, max_examples=size(40, 10_000))
@given(PLACES)
def test_the_first_place_that_has_a_value_decides(given_values: list[dict[str, str]]) -> None:
    """Whatever is given in several places: all layers, each value as its first place says, or one error for all."""
    places = [Given(f"place {number}", values) for number, values in enumerate(given_values)]
    try:
        read = read_layers(places)
    except SettingError as error:
        given_names = {name for values in given_values for name in values}
        assert any(name in error.text for row in VARIABLES for name in row.names if given_names.intersection(row.names))
        return
    assert read.layers.keys() == LAYERS.keys()
    assert [source.variable.name for source in read.sources] == [row.name for row in VARIABLES]
    for source in read.sources:
        found = find(source.variable, places)
        first: Any = next((place for place in places if any(place.values.get(n) for n in source.variable.names)), None)
        assert (found and found[0]) is first
        assert source.origin == "default" if first is None else source.origin.startswith(first.origin)
