"""The checks of P6 and P7: each passes what is right, and finds each way of breaking it.

Bounds are those of `told.BEGIN`.
"""

from __future__ import annotations

from typing import Any

import pytest

from .told import CLIENT, SERVER, Tale, cancelled, rules, the_long_one

# -- P6 ---------------------------------------------------------------------------------------------------------------


def called(*, given: float | None, ends_at: float) -> Tale:
    """`j1` has 4 s and calls `j1.1`, which ends then."""
    tale = the_long_one(deadline_at=4)
    told = {} if given is None else {"deadline_at": given}
    tale.author("j1", "call", child="j1.1", **told)
    tale.begins("j1.1", server="s2", **told)
    if ends_at < 4:
        tale.at(ends_at).ends("j1.1", server="s2")
        tale.author("j1", "called", child="j1.1", status="OK")
    cancelled(tale, 4, reason="deadline")
    tale.told("j1", "DEADLINE_EXCEEDED")
    if ends_at >= 4:
        tale.at(ends_at).ends("j1.1", "cancelled", server="s2", reason="deadline")
    return tale


def test_deadlines_travel() -> None:
    assert called(given=4, ends_at=3).checked() == []
    assert called(given=4, ends_at=4.5).checked() == []
    assert called(given=None, ends_at=4).checked() == []
    assert rules(called(given=4.2, ends_at=3).checked()) == {"P6 deadline"}


@pytest.mark.parametrize(
    ("known", "fits"), [(None, False), (4.02, True), (4.1, False), (3, True)], ids=["none", "rounded", "later", "less"]
)
def test_code_knows_the_deadline_of_its_call(known: float | None, fits: bool) -> None:
    tale = Tale()
    tale.at(2).starts("j1", deadline_at=4, knows=known)
    tale.at(3).ends("j1")
    tale.told("j1")
    assert rules(tale.checked()) == (set() if fits else {"P6 known"})


def test_a_deadline_counts_from_when_the_call_has_come() -> None:
    for known, fits in ((5, True), (5.1, False)):
        tale = Tale()
        tale.note(CLIENT, "start", job="j1", server="s1", setup="s", deadline_at=4)
        tale.at(0.96).begins("j1", deadline_at=known)
        tale.ends("j1")
        tale.told("j1")
        assert rules(tale.checked()) == (set() if fits else {"P6 known"})


@pytest.mark.parametrize(("at", "pause", "late"), [(4, 0, False), (4.1, 0, True), (4.1, 6, False), (10.1, 6, True)])
def test_a_caller_is_told_when_its_deadline_passes(at: float, pause: float, late: bool) -> None:
    tale = the_long_one(deadline_at=4, pause=pause)
    cancelled(tale, 4, reason="deadline")
    tale.at(at).told("j1", "DEADLINE_EXCEEDED")
    assert rules(tale.checked()) == ({"P6 caller"} if late else set())


def test_who_is_called_does_not_outlive_the_deadline_nor_the_caller() -> None:
    assert rules(called(given=4, ends_at=6).checked()) == {"P5 arrives", "P6 outran"}


# -- P7 ---------------------------------------------------------------------------------------------------------------


def without(tale: Tale, action: str) -> Tale:
    """The same history, in which a signal did not arrive."""
    told = Tale()
    for event in tale.history.events[1:]:
        if event.event != "signal" or event.fields["action"] != action:
            told.at(event.at).note(event.actor, event.event, **event.fields)
    return told


@pytest.mark.parametrize("action", ["start", "stop"])
@pytest.mark.parametrize("excuse", ["", "lost", "crash", "late crash"])
def test_a_signal_is_lost(action: str, excuse: str) -> None:
    tale = Tale()
    tale.job("j1")
    tale = without(tale, action)
    if excuse == "lost":
        tale.note("world", "fault", what="outage", where=["provider"], until=5)
        tale.note(SERVER, "lost", job="j1")
    elif excuse:
        tale.at(1 if excuse == "crash" else 50).note(SERVER, "crash")
        tale.at(60).note(SERVER, "restart")
    assert rules(tale.checked()) == ({"P7 arrived"} if excuse in {"", "late crash"} else set())


@pytest.mark.parametrize(
    ("what", "fields", "excused"),
    [
        ("", {}, False),
        ("fault", {"what": "blackhole", "where": ["s1", "provider"], "until": 25}, True),
        ("fault", {"what": "blackhole", "where": ["c1", "s1"], "until": 25}, False),
        ("strike", {"point": "signals.flush", "what": "cut", "server": "s1"}, True),
        ("strike", {"point": "signals.flush", "what": "cut", "server": "s2"}, False),
    ],
)
def test_a_signal_is_given_up(what: str, fields: dict[str, Any], excused: bool) -> None:
    tale = Tale()
    tale.job("j1")
    if what:
        tale.at(20).note("world", what, **fields)
    tale.at(30).note(SERVER, "lost", job="j1")
    assert rules(tale.checked()) == (set() if excused else {"P7 lost"})


@pytest.mark.parametrize(("after", "late"), [(30, False), (31, True)])
def test_a_server_that_is_no_more_is_found(after: float, late: bool) -> None:
    tale = Tale()
    tale.job("j1")
    tale.at(10).note(SERVER, "vanish")
    tale.at(10 + after).note("provider", "registered", found=["s1"])
    assert rules(tale.checked()) == ({"P7 leases"} if late else set())


@pytest.mark.parametrize("what", ["there", "vanished", "cut off"])
def test_a_server_is_not_found(what: str) -> None:
    tale = Tale()
    tale.job("j1")
    if what == "vanished":
        tale.note(SERVER, "vanish")
    elif what == "cut off":
        tale.note("world", "fault", what="blackhole", where=["s1", "provider"], until=20)
    tale.at(40).note("provider", "registered", found=[])
    assert rules(tale.checked()) == ({"P7 leases"} if what == "there" else set())


def test_no_provider_has_no_signals() -> None:
    tale = Tale(provider=False)
    tale.note(CLIENT, "start", job="j1", server="s1", setup="s")
    tale.note(SERVER, "admitted", job="j1")
    tale.note(SERVER, "outcome", job="j1", reason="completed", state="stopped")
    tale.told("j1")
    assert tale.checked() == []


def test_a_stop_before_its_start() -> None:
    tale = Tale()
    tale.job("j1")
    tale = without(without(tale, "start"), "stop")
    tale.signal("j1", "start", seq=9)
    tale.signal("j1", "stop", "completed", seq=8)
    assert rules(tale.checked()) == {"P7 order"}


def test_a_signal_that_changes_while_the_provider_is_down() -> None:
    tale = Tale()
    tale.job("j1")
    tale.signal("j1", "ack_stop", seq=1)
    assert rules(tale.checked()) == {"P7 order"}
