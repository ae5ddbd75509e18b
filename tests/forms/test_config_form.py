"""The config form of the dynamic example as react-jsonschema-form draws it, and what a user can do with it.

DK_TRIO_WRITE_IMAGES=1 pytest tests/forms    writes the picture of the documentation anew
"""

import os
from pathlib import Path
from typing import Any

import pytest
import trio
from tests.examples.test_examples import load
from tests.forms.browser import Browser
from tests.module.served import served

from dk_trio import TrioModule

FETCH_TIMEOUT = 30  # seconds; two of the fetchers run in threads
PICTURE = Path(__file__).parents[2] / "docs" / "images" / "config-form.png"
SIZE = (640, 540)  # pixels
PICTURE_MAX = 60_000  # bytes


def form_of(module: type[TrioModule]) -> dict[str, Any]:
    """What the server of a module answers to who wants to show its form."""

    async def fetch() -> dict[str, Any]:
        with trio.fail_after(FETCH_TIMEOUT):
            async with served(module) as (_, client):
                return await client.config_setup_schema(llm_format=True)

    return trio.run(fetch)


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return form_of(load("examples/dynamic_setup.py").Writer)


def test_fetched_values_are_the_choices(browser: Browser, document: dict[str, Any]) -> None:
    (form,) = browser.visit(document)
    assert form.fields["model"]["tag"] == "select"
    assert form.fields["model"]["options"] == ["small", "medium", "large"]
    assert form.fields["words"]["max"] == 8000
    assert form.complaints == []


def test_the_widgets_of_the_ui_schema_are_used(browser: Browser, document: dict[str, Any]) -> None:
    (form,) = browser.visit(document)
    kinds = {name: field["type"] for name, field in form.fields.items()}
    assert kinds == {"model": "select-one", "words": "range", "style": "textarea", "use_glossary": "checkbox"}


def test_hidden_fields_are_not_there(browser: Browser, document: dict[str, Any]) -> None:
    for form in browser.visit(document, ("click", "use_glossary")):
        assert not {"terms", "resolved_tools"} & form.fields.keys()


def test_a_conditional_field_comes_and_goes_with_its_trigger(browser: Browser, document: dict[str, Any]) -> None:
    at_first, chosen, left = browser.visit(document, ("click", "use_glossary"), ("click", "use_glossary"))
    assert chosen.fields["glossary"]["options"] == ["legal", "medical"]
    assert chosen.fields["glossary"]["label"] == "Glossary*"
    assert "glossary" not in at_first.fields
    assert "glossary" not in left.fields


def test_what_is_filled_in_is_submitted(browser: Browser, document: dict[str, Any]) -> None:
    steps = ("choose", "model", "large"), ("type", "words", "300"), ("type", "style", "dry <b>")
    *_, last = browser.visit(
        document, *steps, ("click", "use_glossary"), ("choose", "glossary", "medical"), ("click", "submit")
    )
    assert last.refused == []
    assert last.submitted == [
        {"model": "large", "words": 300, "style": "dry <b>", "use_glossary": True, "glossary": "medical"}
    ]


def test_a_required_conditional_field_has_to_be_filled_in(browser: Browser, document: dict[str, Any]) -> None:
    *_, last = browser.visit(document, ("click", "use_glossary"), ("click", "submit"))
    assert last.submitted == []
    assert last.refused == ["glossary must have required property 'Glossary'"]


def test_tools_are_selected_with_the_widget_of_the_platform(browser: Browser) -> None:
    (form,) = browser.visit(form_of(load("examples/agent_with_tools.py").Agent))
    assert form.complaints == []
    assert form.fields.keys() == {"tools"}
    assert form.fields["tools"]["offered"].keys() >= {"setupIds", "moduleIds", "tagIds", "categories", "showModules"}


def test_the_picture_of_the_documentation(browser: Browser, document: dict[str, Any], tmp_path: Path) -> None:
    steps = ("choose", "model", "large"), ("click", "use_glossary"), ("choose", "glossary", "legal")
    drawn = PICTURE if os.environ.get("DK_TRIO_WRITE_IMAGES") else tmp_path / "form.png"
    browser.picture(document, *steps, path=drawn, size=SIZE)
    for picture in (drawn, PICTURE):
        header = picture.read_bytes()[:24]
        assert header.startswith(b"\x89PNG")
        assert (int.from_bytes(header[16:20]), int.from_bytes(header[20:24])) == SIZE
        assert picture.stat().st_size < PICTURE_MAX
