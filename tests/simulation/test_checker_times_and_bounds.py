"""The checks of P4, P5, P8 and P9: each passes what is right, and finds each way of breaking it.

Bounds are those of `told.BEGIN`: delivery takes 0.5 s, a strike 0.1 s, a poll is held for 1 s and takes up to 3.4 s if
something disturbs it, and it takes 10 s until silence is noticed.
"""

from __future__ import annotations

from typing import Any

import pytest

from .told import CLIENT, SERVER, Tale, cancelled, rules, the_long_one

GAUGE = {"running": 1, "admitted": 2, "slots": 2, "queue": 1, "queued": 0}


# -- P4 ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"running": 3, "admitted": 3}, "3 running in 2 slots"),
        ({"running": -1}, "-1 running"),
        ({"admitted": 4}, "4 admitted"),
        ({"admitted": 0}, "0 admitted"),
        ({"queued": 1}, "1 wait while 1 of 2"),
    ],
)
def test_gauges(wrong: dict[str, int], text: str) -> None:
    tale = Tale()
    tale.job("j1")
    tale.note(SERVER, "gauge", **GAUGE)
    tale.note(SERVER, "gauge", **{**GAUGE, "running": 2, "admitted": 3, "queued": 1})
    tale.note(SERVER, "gauge", **{**GAUGE, **wrong})
    (found,) = tale.checked()
    assert found.rule == "P4 gauge"
    assert text in found.text


def test_more_code_runs_than_there_are_slots() -> None:
    tale = Tale()
    for job in ("j1", "j2"):
        tale.starts(job)
    tale.starts("j9", server="s2")
    for job in ("j1", "j2"):
        tale.ends(job)
        tale.told(job)
    tale.ends("j9", server="s2")
    tale.told("j9")
    assert tale.checked() == []
    tale = Tale()
    for job in ("j1", "j2", "j3"):
        tale.starts(job)
    for job in ("j1", "j2", "j3"):
        tale.ends(job)
        tale.told(job)
    (found,) = tale.checked()
    assert (found.rule, found.job) == ("P4 running", "j3")


def test_code_of_a_server_that_is_down_takes_no_slot() -> None:
    tale = Tale()
    for job in ("j1", "j2"):
        tale.starts(job)
    tale.note(SERVER, "crash")
    for job in ("j1", "j2"):
        tale.told(job, "UNAVAILABLE")
    tale.at(1).note(SERVER, "restart")
    tale.at(20).job("j3")
    assert tale.checked() == []


@pytest.mark.parametrize("what", ["running", "admitted"])
def test_a_slot_is_leaked(what: str) -> None:
    tale = Tale()
    tale.job("j1")
    (found,) = tale.checked(borrowed={"s1": {"running": 0, "admitted": 0, what: 1}})
    assert found.rule == "P4 zero"


def queued(order: tuple[str, ...], at: tuple[float, ...]) -> Tale:
    """Two jobs ask in their order, and get their slots in this one."""
    tale = Tale()
    for job in ("j1", "j2"):
        tale.note(CLIENT, "start", job=job, server="s1", setup="s")
        tale.note(SERVER, "asked", job=job)
    for job, now in zip(order, at, strict=True):
        tale.at(now).note(SERVER, "slot", job=job)
    for job in order:
        tale.note(SERVER, "admitted", job=job)
        tale.signal(job, "start")
        tale.author(job, "initialize")
        tale.author(job, "initialize_end", how="returned")
        tale.ends(job)
        tale.told(job)
    return tale


def test_who_asks_first_gets_a_slot_first() -> None:
    assert queued(("j1", "j2"), (1, 2)).checked() == []
    assert queued(("j2", "j1"), (1, 1)).checked() == []  # at the same time: it had no order
    (found,) = queued(("j2", "j1"), (1, 2)).checked()
    assert (found.rule, found.job) == ("P4 order", "j2")


# -- P5 ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("after", "late"), [(0.5, False), (0.7, True)])
def test_a_client_that_leaves(after: float, late: bool) -> None:
    tale = the_long_one()
    tale.at(1).note(CLIENT, "cancel", job="j1")
    cancelled(tale, 1 + after)
    assert rules(tale.checked()) == ({"P5 arrives"} if late else set())


def test_a_cancel_that_never_arrives() -> None:
    tale = the_long_one()
    tale.at(1).note(CLIENT, "cancel", job="j1")
    assert "P5 arrives" in rules(tale.checked())


def test_a_cancel_that_waits_for_a_fault() -> None:
    """It may take as long as the fault, and until the other notices; not longer."""
    for at, late in ((14.5, False), (15, True)):
        tale = the_long_one()
        tale.at(1).note("world", "fault", what="blackhole", where=["c1", "s1"])
        tale.at(2).note(CLIENT, "cancel", job="j1")
        tale.at(4).note("world", "heal", what="blackhole", where=["c1", "s1"])
        cancelled(tale, at)
        assert rules(tale.checked()) == ({"P5 arrives"} if late else set())


def test_a_fault_elsewhere_is_no_excuse() -> None:
    tale = the_long_one()
    tale.at(1).note("world", "fault", what="blackhole", where=["c2", "s1"], until=9)
    tale.note("world", "fault", what="outage", where=["provider"], until=9)
    tale.note(CLIENT, "cancel", job="j1")
    cancelled(tale, 5)
    assert rules(tale.checked()) == {"P5 arrives"}


def test_code_that_sins_has_no_bound() -> None:
    tale = the_long_one()
    tale.author("j1", "sin", what="shield")
    tale.at(1).note(CLIENT, "cancel", job="j1")
    cancelled(tale, 30)
    assert tale.checked() == []


@pytest.mark.parametrize(("at", "late"), [(3.0, False), (3.7, True)])
def test_a_deadline(at: float, late: bool) -> None:
    tale = the_long_one(deadline_at=3)
    tale.at(3).told("j1", "DEADLINE_EXCEEDED")
    cancelled(tale, at, reason="deadline")
    assert rules(tale.checked()) == ({"P5 arrives"} if late else set())


@pytest.mark.parametrize(
    ("taken", "due"), [(0, 4), (1, 4), (5, 8)], ids=["before it is asked for", "when it is asked for", "later"]
)
@pytest.mark.parametrize("action", ["cancel", "stop"])
def test_a_signal(action: str, taken: float, due: float) -> None:
    """The provider holds a poll that names the job a second after it began, at the latest."""
    for at, late in ((due, False), (due + 0.1, True)):
        tale = the_long_one()
        tale.note("provider", "signal_sent", task="j1", action=action)
        tale.at(taken).note("provider", "signal_taken", task="j1", action=action)
        cancelled(tale, at, reason=f"signal_{action}")
        tale.told("j1", "CANCELLED")
        assert rules(tale.checked()) == ({"P5 arrives"} if late else set())


@pytest.mark.parametrize(
    ("when", "what", "fields", "due"),
    [
        (6, "strike", {"point": "signals.poll", "what": "cut", "server": "s1"}, 10),  # from then on
        (6, "strike", {"point": "database.committed", "what": "cut"}, 10),
        (6, "strike", {"point": "signals.poll", "what": "cut", "server": "s2"}, 8),  # another one's
        (6, "strike", {"point": "rpc.trailers", "what": "cut", "server": "s1"}, 8),  # of its clients
        (6, "fault", {"what": "blackhole", "where": ["s1", "provider"], "until": 7}, 21),
        (1, "fault", {"what": "blackhole", "where": ["s1", "provider"], "until": 2}, 16),
        (6, "fault", {"what": "reset", "where": ["s1", "provider"]}, 9),
        (6, "fault", {"what": "blackhole", "where": ["s2", "provider"], "until": 7}, 8),
    ],
)
def test_what_holds_up_a_signal(when: float, what: str, fields: dict[str, Any], due: float) -> None:
    for at, late in ((due, False), (due + 0.1, True)):
        tale = the_long_one()
        tale.note("provider", "signal_sent", task="j1", action="cancel")
        if when < 5:
            tale.at(when).note("world", what, **fields)
        tale.at(5).note("provider", "signal_taken", task="j1", action="cancel")
        if when > 5:
            tale.at(when).note("world", what, **fields)
        cancelled(tale, at, reason="signal_cancel")
        tale.told("j1", "CANCELLED")
        assert rules(tale.checked()) == ({"P5 arrives"} if late else set())


@pytest.mark.parametrize("action", ["ack_cancel", "ack_stop"])
def test_who_hears_that_a_job_is_cancelled_hears_the_truth(action: str) -> None:
    for at, late in ((1, False), (1.1, True)):
        tale = the_long_one()
        tale.at(1).note(SERVER, "answered", job="j1", action=action)
        cancelled(tale, at)
        tale.told("j1")
        assert ("P5 arrives" in rules(tale.checked())) is late


@pytest.mark.parametrize("ok", [True, False])
def test_stop_module(ok: bool) -> None:
    """Its answer comes when the job is cancelled."""
    tale = the_long_one()
    tale.at(1).note(CLIENT, "stop", job="j1")
    tale.at(1.5).note(CLIENT, "stop_reply", job="j1", ok=ok)
    cancelled(tale, 1.6, reason="stop_module")
    tale.told("j1", "CANCELLED")
    assert rules(tale.checked()) == ({"P5 arrives"} if ok else set())


@pytest.mark.parametrize("drains", [True, False])
def test_stop_module_waits_for_nobody(drains: bool) -> None:
    """But at a server that drains there may be no open door for it."""
    for at, late in ((1.6, False), (1.7, True)):
        tale = the_long_one()
        tale.at(1)
        if drains:
            tale.note(SERVER, "drain_begin", grace=3.0)
        tale.note(CLIENT, "stop", job="j1")
        cancelled(tale, at, reason="stop_module")
        tale.told("j1", "CANCELLED")
        assert rules(tale.checked()) == ({"P5 arrives"} if late and not drains else set())


@pytest.mark.parametrize(("at", "late"), [(4.1, False), (4.2, True)])
def test_a_drain(at: float, late: bool) -> None:
    tale = the_long_one()
    tale.at(1).note(SERVER, "drain_begin", grace=3.0)
    cancelled(tale, at, reason="shutdown")
    tale.told("j1", "UNAVAILABLE")
    tale.note(SERVER, "drain_end")
    assert rules(tale.checked()) == ({"P5 arrives"} if late else set())


def test_a_server_that_was_drained_and_started_again() -> None:
    tale = Tale()
    tale.note(SERVER, "drain_begin", grace=3.0)
    tale.note(SERVER, "drain_end")
    tale.at(2).note(SERVER, "restart")
    tale.at(50).job("j1")
    assert tale.checked() == []


@pytest.mark.parametrize("what", ["reset", "fin"])
def test_a_connection_that_is_cut(what: str) -> None:
    for at, late in ((1.6, False), (1.7, True)):
        tale = the_long_one()
        tale.at(1).note("world", "fault", what=what, where=["c1", "s1"])
        cancelled(tale, at)
        tale.told("j1", "UNAVAILABLE")
        assert rules(tale.checked()) == ({"P5 arrives"} if late else set())


def test_a_client_that_is_switched_off_is_missed_in_the_end() -> None:
    for at, late in ((11.6, False), (12, True)):
        tale = the_long_one()
        tale.at(1).note(CLIENT, "cancel", job="j1")
        tale.note("world", "fault", what="client dies", where=["c1"])
        cancelled(tale, at)
        assert rules(tale.checked()) == ({"P5 arrives"} if late else set())


def test_what_is_cut_of_a_client_that_was_switched_off_before_tells_nobody() -> None:
    tale = Tale()
    tale.note("world", "fault", what="client dies", where=["c1"])
    tale.starts("j1")
    tale.at(1).note("world", "fault", what="reset", where=["c1", "s1"])
    tale.at(4).ends("j1")
    assert "P5 arrives" not in rules(tale.checked())


def test_code_that_is_over_before_its_cleanup_begins_need_not_hear_of_anything() -> None:
    tale = Tale()
    tale.note(CLIENT, "start", job="j1", server="s1", setup="s")
    for event in ("asked", "slot", "admitted"):
        tale.note(SERVER, event, job="j1")
    tale.author("j1", "initialize")
    tale.author("j1", "initialize_end", how="raised")
    tale.at(0.1).note(CLIENT, "stop", job="j1")
    tale.note(CLIENT, "stop_reply", job="j1", ok=True)
    tale.at(0.5).author("j1", "cleanup")  # held up, as by a strike
    tale.author("j1", "cleanup_end", how="returned")
    tale.note(SERVER, "outcome", job="j1", reason="failed", state="failed")
    assert "P5 arrives" not in rules(tale.checked())


def test_code_that_begins_after_its_client_has_left() -> None:
    tale = Tale()
    tale.note(CLIENT, "start", job="j1", server="s1", setup="s")
    tale.note(SERVER, "asked", job="j1")
    tale.at(1).note(CLIENT, "cancel", job="j1")
    tale.at(3).note(SERVER, "slot", job="j1")
    tale.begins("j1")
    cancelled(tale, 3)
    assert "P5 arrives" in rules(tale.checked())


@pytest.mark.parametrize(
    ("initialize", "cleanup"), [(1, 0), (1, 2), (0, 1)], ids=["never", "twice", "without initialize"]
)
def test_cleanup_once(initialize: int, cleanup: int) -> None:
    tale = Tale()
    tale.note(CLIENT, "start", job="j1", server="s1", setup="s")
    for event in ("asked", "slot", "admitted"):
        tale.note(SERVER, event, job="j1")
    for event, count in (("initialize", initialize), ("cleanup", cleanup)):
        for _ in range(count):
            tale.author("j1", event)
            tale.author("j1", f"{event}_end", how="returned")
    tale.signal("j1", "start")
    tale.note(SERVER, "outcome", job="j1", reason="completed", state="stopped")
    tale.signal("j1", "stop", "completed")
    tale.told("j1")
    assert rules(tale.checked()) == {"P5 cleanup"}


def cleaned(*, seconds: float, was_cancelled: bool, how: str) -> Tale:
    tale = the_long_one()
    if was_cancelled:
        tale.note(CLIENT, "cancel", job="j1")
        tale.author("j1", "cancelled")
    tale.author("j1", "handler_end", how="cancelled" if was_cancelled else "returned")
    tale.author("j1", "cleanup")
    tale.at(seconds).author("j1", "cleanup_end", how=how)
    reason, state = ("client_gone", "cancelled") if was_cancelled else ("timeout", "cancelled")
    tale.note(SERVER, "outcome", job="j1", reason=reason, state=state)
    tale.signal("j1", "stop", reason)
    if not was_cancelled:
        tale.told("j1", "DEADLINE_EXCEEDED")
    return tale


@pytest.mark.parametrize(("was_cancelled", "limit"), [(True, 5), (False, 20)])
def test_cleanup_is_bounded(was_cancelled: bool, limit: float) -> None:
    for seconds, late in ((limit, False), (limit + 0.01, True)):
        tale = cleaned(seconds=seconds, was_cancelled=was_cancelled, how="cancelled")
        assert rules(tale.checked()) == ({"P5 bounded"} if late else set())


@pytest.mark.parametrize(("seconds", "late"), [(8.6, False), (8.7, True)])
def test_cleanup_gets_the_shorter_time_from_the_cancel_on(seconds: float, late: bool) -> None:
    tale = the_long_one()
    tale.author("j1", "handler_end", how="returned")
    tale.author("j1", "cleanup")
    tale.at(3).note(CLIENT, "cancel", job="j1")
    tale.at(seconds).author("j1", "cleanup_end", how="returned")
    tale.note(SERVER, "outcome", job="j1", reason="client_gone", state="cancelled")
    tale.signal("j1", "stop", "client_gone")
    assert rules(tale.checked()) == ({"P5 bounded"} if late else set())


def test_cleanup_is_shielded() -> None:
    assert rules(cleaned(seconds=4, was_cancelled=True, how="cancelled").checked()) == {"P5 shielded"}
    assert cleaned(seconds=4, was_cancelled=True, how="returned").checked() == []


# -- P8, P9 -----------------------------------------------------------------------------------------------------------


def test_memory() -> None:
    tale = Tale()
    tale.job("j1")
    tale.note(SERVER, "memory", buffered=1000)
    assert tale.checked() == []
    tale = Tale()
    tale.job("j1")
    tale.note(SERVER, "memory", buffered=1001)
    assert rules(tale.checked()) == {"P8 memory"}


def fails(tale: Tale, status: str = "UNAVAILABLE") -> Tale:
    """`j1` ends badly, in the 30th second."""
    tale.at(30).note(CLIENT, "start", job="j1", server="s1", setup="s")
    tale.at(31).told("j1", status)
    return tale


def test_a_bystander_fails() -> None:
    (found,) = fails(Tale()).checked()
    assert (found.rule, found.job) == ("P9 bystander", "j1")


def test_an_error_of_the_server_itself() -> None:
    tale = Tale()
    tale.job("j1")
    tale.note("world", "defect", text="a connection ended by an unexpected error: KeyError", where="s1")
    assert rules(tale.checked()) == {"P9 defect"}


def test_a_server_that_is_full_may_say_so() -> None:
    assert fails(Tale(), "RESOURCE_EXHAUSTED").checked() == []


@pytest.mark.parametrize(
    ("what", "fields", "harms"),
    [
        ("fault", {"what": "reset", "where": ["c1", "s1"]}, True),
        ("fault", {"what": "reset", "where": ["c1"]}, True),
        ("fault", {"what": "outage", "where": ["provider"]}, True),
        ("fault", {"what": "blackhole", "where": ["*"], "until": 29}, True),
        ("fault", {"what": "reset", "where": ["c2", "s1"]}, False),
        ("fault", {"what": "reset", "where": ["c2"]}, False),
        ("fault", {"what": "reset", "where": ["s2"]}, False),
        ("strike", {"point": "rpc.trailers", "what": "cancel", "job": "j1"}, True),
        ("strike", {"point": "rpc.trailers", "what": "cancel", "job": "j2"}, False),
        ("strike", {"point": "rpc.trailers", "what": "cut", "job": "j2"}, True),  # j2 is beside it
        ("strike", {"point": "rpc.trailers", "what": "cut", "job": "j3"}, False),  # j3 is elsewhere
        ("strike", {"point": "database.commit", "what": "fail"}, True),
        ("strike", {"point": "admission.acquire", "what": "wait", "job": "j1"}, False),
    ],
)
def test_what_harms(what: str, fields: dict[str, Any], harms: bool) -> None:
    tale = Tale()
    tale.job("j2")
    tale.job("j3", server="s2")
    tale.at(28).note("world", what, **fields)
    assert rules(fails(tale).checked()) == (set() if harms else {"P9 bystander"})


def test_a_fault_long_ago_harms_nobody() -> None:
    tale = Tale()
    tale.at(19).note("world", "fault", what="reset", where=["c1", "s1"])
    assert rules(fails(tale).checked()) == {"P9 bystander"}


@pytest.mark.parametrize(
    ("actor", "event", "fields"),
    [
        (CLIENT, "stop", {"job": "j1"}),
        ("provider", "signal_sent", {"task": "j1", "action": "cancel"}),
        (SERVER, "drain_begin", {}),
    ],
)
def test_who_was_asked_to_end_is_no_bystander(actor: str, event: str, fields: dict[str, Any]) -> None:
    tale = Tale()
    tale.at(28).note(actor, event, **fields)
    assert fails(tale).checked() == []


@pytest.mark.parametrize("how", ["raised", "sin"])
def test_who_harms_itself_is_no_bystander(how: str) -> None:
    tale = the_long_one()
    if how == "sin":
        tale.author("j1", "sin", what="swallow")
    tale.ends("j1", "raised" if how == "raised" else "returned", reason="failed", state="failed")
    tale.told("j1", "INTERNAL")
    assert tale.checked() == []


@pytest.mark.parametrize("pause", [0, 6])
def test_a_slow_reader_harms_itself(pause: float) -> None:
    tale = the_long_one(pause=pause)
    cancelled(tale, 4, reason="timeout")
    tale.told("j1", "DEADLINE_EXCEEDED")
    assert rules(tale.checked()) == (set() if pause else {"P9 bystander"})


@pytest.mark.parametrize("child_fails", [True, False])
def test_a_caller_falls_with_whom_it_calls(child_fails: bool) -> None:
    tale = the_long_one()
    tale.author("j1", "call", child="j1.1")
    tale.begins("j1.1", server="s2")
    tale.ends("j1.1", "raised" if child_fails else "returned", server="s2")
    tale.author("j1", "called", child="j1.1", status="INTERNAL")
    tale.ends("j1", reason="failed", state="failed")
    tale.told("j1", "INTERNAL")
    assert rules(tale.checked()) == (set() if child_fails else {"P9 bystander"})


def test_a_sin_of_the_handler_is_no_excuse_for_a_long_cleanup() -> None:
    tale = the_long_one()
    tale.author("j1", "sin", what="swallow")
    tale.ends("j1")
    late = Tale()
    for event in tale.history.events[1:]:
        late.at(25 if event.event in {"cleanup_end", "outcome"} else 0)
        late.note(event.actor, event.event, **event.fields)
    late.told("j1")
    assert rules(late.checked()) == {"P5 bounded"}
