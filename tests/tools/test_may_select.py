"""Whether setups of a model may select tools is known from the model alone."""

from __future__ import annotations

from typing import Any, Optional

import pytest
from pydantic import BaseModel

from dk_trio.module import SetupModel, ToolReference, ToolSelection, tool_reference_input
from dk_trio.module.tools import may_select


class Nested(BaseModel):
    tools: ToolReference


class Recursive(SetupModel):
    children: list[Recursive] = []
    last: dict[str, Optional[Nested]] = {}  # noqa: UP045


class Harmless(SetupModel):
    children: list[Harmless] = []
    anything: Any = None
    name: str = ""


class Field(SetupModel):
    tools: tool_reference_input(max_tools=3)  # type: ignore[valid-type]


@pytest.mark.parametrize("model", [Nested, Recursive, Field, ToolSelection, list[ToolReference]])
def test_a_model_that_holds_selections_somewhere(model: Any) -> None:
    assert may_select(model)


@pytest.mark.parametrize("model", [Harmless, SetupModel, str, Any])
def test_a_model_that_holds_none(model: Any) -> None:
    assert not may_select(model)
