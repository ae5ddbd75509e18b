"""The page on testing shows the samples, all of which are tests of this suite, and names what there is."""

import re
from pathlib import Path

import pytest

from dk_trio.testing import FakeProvider, plugin

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "testing.md").read_text()
SAMPLES = sorted(path.name for path in (DOCS / "samples" / "testing").glob("*.py"))


@pytest.mark.parametrize("sample", SAMPLES)
def test_every_sample_is_shown(sample: str) -> None:
    assert f'--8<-- "testing/{sample}"' in PAGE


def test_an_hour_an_outage_and_a_cancel_take_twenty_lines() -> None:
    test = (DOCS / "samples" / "testing" / "test_reminder.py").read_text()
    assert len([line for line in test.splitlines() if line.strip()]) <= 20
    for words in ("3590", "outage()", '"cancel"'):
        assert words in test


def test_samples_are_collected(request: pytest.FixtureRequest) -> None:
    assert "docs/samples/testing" in request.config.getini("testpaths")


def test_every_fixture_is_named() -> None:
    table = set(re.findall(r"`(\w+)`", "\n".join(re.findall(r"^\| (`.*?) \|", PAGE, re.MULTILINE))))
    fixtures = {name for name, value in vars(plugin).items() if hasattr(value, "_fixture_function") and name[0] != "_"}
    assert fixtures == table


def test_all_that_a_provider_can_do_is_named() -> None:
    told = set(re.findall(r"\bprovider\.(\w+)", PAGE)) - {"md"}
    there = {name for name in vars(FakeProvider) if name[0] != "_"} | {"calls", "channel"}
    assert told - there == set()
    assert there - told == {"connect"}  # what servers use
