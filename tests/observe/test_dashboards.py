"""The dashboard and the alerts name metrics that there are, with labels that they have."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from dk_trio.lifecycle import Reason
from dk_trio.observe._metric_names import FOREIGN, GROUPS, METRICS

DEPLOYMENT = Path(__file__).parent.parent.parent / "examples" / "deployment"
LABELS = {series: {*metric.labels, "le"} for metric in METRICS.values() for series in metric.series}
NAME = re.compile(r"\b(?:dk_trio|process|python)_\w+")
SELECTOR = re.compile(r"\b((?:dk_trio|process|python)_\w+)\{([^}]*)\}")
FROM_SCRAPING = {"job", "instance"}


def dashboard() -> dict[str, object]:
    found: dict[str, object] = json.loads((DEPLOYMENT / "grafana-dashboard.json").read_text())
    return found


def panels() -> Iterator[dict[str, object]]:
    yield from dashboard()["panels"]  # type: ignore[misc]


def expressions() -> Iterator[str]:
    for panel in panels():
        yield from (target["expr"] for target in panel.get("targets", ()))
    yield from alerts()


def alerts() -> list[str]:
    """The expressions of the rules; each ends where the next key of its rule begins."""
    text = (DEPLOYMENT / "alerts.yaml").read_text()
    return re.findall(r"^        expr: (.*?)(?=^        (?:for|labels): )", text, re.MULTILINE | re.DOTALL)


def test_every_rule_has_an_expression() -> None:
    rules = (DEPLOYMENT / "alerts.yaml").read_text().count("- alert: ")
    assert len(alerts()) == rules > 10


@pytest.mark.parametrize("file", ["grafana-dashboard.json", "alerts.yaml"])
def test_every_name_is_that_of_a_metric(file: str) -> None:
    used = set(NAME.findall((DEPLOYMENT / file).read_text()))
    assert used - LABELS.keys() - set(FOREIGN) == set()


def test_labels_that_are_selected_or_grouped_by_are_those_of_the_metric() -> None:
    for expression in expressions():
        for name, selector in SELECTOR.findall(expression):
            labels = set(re.findall(r"(\w+)\s*[=!]", selector))
            assert labels <= LABELS.get(name, set()) | FROM_SCRAPING, expression
        grouped = {label.strip() for group in re.findall(r"\bby \(([^)]*)\)", expression) for label in group.split(",")}
        known = set().union(*(LABELS.get(name, {"generation"}) for name in NAME.findall(expression)))
        assert grouped <= known | FROM_SCRAPING, expression


def test_reasons_that_are_asked_for_exist() -> None:
    for expression in expressions():
        for reason in re.findall(r'reason="(\w+)"', expression):
            assert Reason(reason)


def test_every_metric_is_on_the_dashboard() -> None:
    used = set(NAME.findall(json.dumps(dashboard())))
    missing = [metric.name for metric in METRICS.values() if used.isdisjoint(metric.series)]
    assert missing == []


def test_panels_have_ids_of_their_own_and_do_not_overlap() -> None:
    ids = [panel["id"] for panel in panels()]
    assert len(ids) == len(set(ids))
    cells = set()
    for panel in panels():
        at = panel["gridPos"]
        mine = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert cells.isdisjoint(mine), panel["title"]
        assert at["x"] + at["w"] <= 24
        cells |= mine


def test_the_table_names_each_metric_once() -> None:
    assert sum(map(len, GROUPS.values())) == len(METRICS)
