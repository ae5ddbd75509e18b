"""What a history takes and how it is told."""

from __future__ import annotations

import json

import pytest

from dk_trio.testing.simulation.checker import RULES, Violation, check
from dk_trio.testing.simulation.history import History
from dk_trio.testing.simulation.timeline import excerpt, timeline

from .told import CLIENT, SERVER, Tale


def test_an_event_is_a_line_of_json() -> None:
    now = 0.1 + 0.2
    history = History(lambda: now)
    event = history.note(CLIENT, "output", protocol="said", job="j1", number=3)
    assert event.line() == (
        '{"actor":"client/c1","at":0.3,"event":"output","job":"j1","number":3,"protocol":"said","step":1}'
    )
    assert history.lines() == [event.line()]
    assert "1 events" in repr(history)


def test_the_same_events_have_the_same_digest_in_any_order_of_fields() -> None:
    one, other, third = (History(lambda: 0.0) for _ in range(3))
    one.note(CLIENT, "output", job="j1", protocol="said")
    other.note(CLIENT, "output", protocol="said", job="j1")
    third.note(CLIENT, "output", job="j2", protocol="said")
    assert one.digest == other.digest != third.digest


@pytest.mark.parametrize(
    ("actor", "event", "fields", "why"),
    [
        ("wrold", "quiet", {}, "no actor is called 'wrold'"),
        ("client", "cancel", {"job": "j1"}, "no actor is called 'client'"),
        ("world/1", "quiet", {}, "no actor is called 'world/1'"),
        ("world", "quite", {}, "world notes no 'quite', but begin, "),
        (CLIENT, "cancel", {}, "'cancel' of client needs job"),
        (CLIENT, "cancel", {"job": "j1", "when": 1}, "'cancel' of client has no when"),
        (CLIENT, "cancel", {"job": float("nan")}, "not JSON compliant"),
    ],
)
def test_what_is_misspelt_is_not_noted(actor: str, event: str, fields: dict[str, object], why: str) -> None:
    history = History(lambda: 0.0)
    with pytest.raises(ValueError, match=why):
        history.note(actor, event, **fields)
    assert history.events == []


def test_what_is_no_json_is_not_noted() -> None:
    with pytest.raises(TypeError, match="set is not JSON"):
        History(lambda: 0.0).note(CLIENT, "cancel", job={"j1"})


def test_a_history_that_goes_in_circles_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dk_trio.testing.simulation.history.EVENTS_MAX", 2)
    history = History(lambda: 0.0)
    for _ in range(2):
        history.note("world", "quiet")
    with pytest.raises(RuntimeError, match="still going on"):
        history.note("world", "quiet")


def test_events_of_a_job() -> None:
    tale = Tale()
    tale.job("j1")
    tale.job("j2")
    tale.note("provider", "signal_sent", task="j1", action="stop")
    events = tale.history.of_job("j1")
    assert {event.job for event in events} == {"j1"}
    assert {event.actor for event in events} == {CLIENT, SERVER, "provider", "author/j1"}


def told() -> Tale:
    tale = Tale()
    tale.at(1).starts("j1", deadline_at=9)
    tale.note(SERVER, "gauge", running=1, admitted=1, slots=2, queue=1, queued=0)
    tale.at(2).note("world", "fault", what="reset", where=["c1", "s1"])
    tale.job("j2")
    tale.at(3).ends("j1")
    tale.told("j1", "INTERNAL")
    return tale


def test_a_timeline_has_lanes_and_marks() -> None:
    tale = told()
    violations = [each for each in check(tale.history) if each.rule == "form"]
    status = tale.history.events[-1]
    lines = list(timeline(tale.history.events, violations=[Violation("P1 told", "j1", (status.step,), "x")]))
    texts = [line.text for line in lines]
    assert texts[0].split() == ["step", "time", "job", "clients", "servers", "authors", "provider"]
    (start,) = [text for text in texts if " start server=s1" in text and "j1" in text]
    assert start.split() == ["2", "1.000", "j1", "c1", "start", "server=s1", "setup=setups:s", "deadline_at=9"]
    (fault,) = [line for line in lines if line.struck]
    assert fault.text.startswith("!!")
    assert "fault reset c1+s1" in fault.text
    assert [line.text[:2] for line in lines if line.guilty] == [">>"]
    assert texts[-1].startswith(">>")
    assert not any("gauge" in text for text in texts)
    handler = next(text for text in texts if text.endswith(" handler"))
    assert handler.index("handler") > start.index("c1") + 40
    assert violations


def test_a_timeline_of_one_job_has_its_events_and_the_faults() -> None:
    told_of = [line.text for line in timeline(told().history.events, job="j2")]
    assert any(" j2 " in text for text in told_of)
    assert not any(" j1 " in text for text in told_of)
    assert any("fault reset" in text for text in told_of)


def test_an_excerpt_ends_where_a_violation_shows() -> None:
    tale = told()
    step = next(event.step for event in tale.history.events if event.event == "outcome" and event.job == "j1")
    lines = [line.text for line in excerpt(tale.history.events, [Violation("P2", "j1", (3, step), "x")], before=4)]
    assert len(lines) == 6
    assert lines[1].strip() == "..."
    assert f">>{step:>6}" in lines[-1]


def test_an_excerpt_without_steps_is_the_end() -> None:
    lines = [line.text for line in excerpt(told().history.events, [Violation("error", "", (), "x")], before=3)]
    assert "INTERNAL" in lines[-1]


def test_a_violation_in_words() -> None:
    assert str(Violation("P1 order", "j1", (3, 4), "x")) == "P1 order j1: x (steps 3, 4)"
    assert str(Violation("form", "", (), "x")) == "form: x"


def test_every_event_can_be_read_as_it_is_written() -> None:
    lines = told().history.lines()
    assert [json.loads(line)["step"] for line in lines] == list(range(1, len(lines) + 1))


def test_every_rule_has_a_sentence() -> None:
    assert [name for name, rule in RULES.items() if not (rule.__doc__ or "").endswith(".")] == []
