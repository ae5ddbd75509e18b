"""The page on the inspector says what the code does."""

import re
from dataclasses import fields
from pathlib import Path

from dk_trio import Settings, stalls
from dk_trio.observe import dumps, task_tree
from dk_trio.observe.inspector import _access, _live, _snapshot
from dk_trio.settings import ObserveSettings
from dk_trio.settings._variable import variable_of

PAGE = (Path(__file__).parents[2] / "docs" / "inspector.md").read_text()
PROSE = " ".join(PAGE.split())


def test_its_variables_are_those_of_the_settings() -> None:
    told = re.findall(r"^\| `(DIGITALKIN_INSPECTOR\w*)` \| (\S+) \|", PAGE, re.MULTILINE)
    settings = Settings().observe
    known = {}
    for field in fields(ObserveSettings):
        if field.name.startswith("inspector"):
            value = getattr(settings, field.name)
            known[variable_of(field).name] = "none" if value is None else f"`{str(value).lower()}`"
    assert dict(told) == known


def test_its_numbers() -> None:
    assert f"the last {_snapshot.ENDED_KEPT} that have ended" in PROSE
    assert f"of the event loop, the last {stalls.KEPT}," in PROSE
    assert _live.EVERY == 1
    assert "lacks one second at most" in PROSE
    assert f"for {_live.VIEWERS_MAX} at the same time" in PROSE
    assert f"with the header `{_access.ACTION_HEADER}: 1`" in PROSE
    assert _live.SHARE == 1 / 20
    assert "more than a twentieth of the loop's time" in PROSE
    assert f"in slices of {task_tree.SLICE} tasks" in PROSE
    assert f"does not answer within {dumps.PATIENCE:g} s" in PROSE
    told = set(re.findall(r"`(\w+)`", next(line for line in PAGE.splitlines() if "/tasks.json" in line)))
    assert told == {*task_tree.TaskNode.__dataclass_fields__, *task_tree.Survey.__dataclass_fields__}
