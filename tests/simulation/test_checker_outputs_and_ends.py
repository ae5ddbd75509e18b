"""The checks of P1, P2 and P3: each passes what is right, and finds each way of breaking it."""

from __future__ import annotations

import pytest

from dk_trio.lifecycle import OUTCOMES, Reason
from dk_trio.testing.simulation.checker import RULES, check

from .told import CLIENT, END, SERVER, Tale, rules


def test_a_good_history_has_no_violation() -> None:
    tale = Tale()
    tale.job("j1")
    tale.at(1).job("j2", client="client/c2")
    assert tale.checked() == []


def test_every_rule_says_what_it_wants() -> None:
    assert [name for name, rule in RULES.items() if not rule.__doc__] == []


# -- P1 ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("numbers", [(0, 2), (1,), (0, 0, 1), (0, 2, 1)], ids=["gap", "first lost", "twice", "swapped"])
def test_outputs_out_of_order(numbers: tuple[int, ...]) -> None:
    tale = Tale()
    tale.starts("j1")
    for number in sorted({*numbers, *range(3)}):
        tale.author("j1", "send", number=number)
        tale.author("j1", "sent", number=number)
    for number in numbers:
        tale.note(CLIENT, "output", job="j1", protocol="said", number=number)
    tale.ends("j1", "raised")
    tale.told("j1", "INTERNAL")
    assert rules(tale.checked()) == {"P1 order"}


def test_the_last_output_is_lost() -> None:
    tale = Tale()
    tale.starts("j1")
    tale.sends("j1", 0)
    tale.author("j1", "send", number=1)
    tale.author("j1", "sent", number=1)
    tale.ends("j1")
    tale.told("j1")
    (found,) = tale.checked()
    assert (found.rule, found.job) == ("P1 complete", "j1")
    assert "output 1" in found.text


def test_outputs_may_be_lost_when_the_status_says_so() -> None:
    tale = Tale()
    tale.starts("j1")
    tale.author("j1", "send", number=0)
    tale.author("j1", "sent", number=0)
    tale.ends("j1", "raised")
    tale.told("j1", "INTERNAL")
    assert tale.checked() == []


def test_an_output_that_was_not_sent_is_not_missed() -> None:
    tale = Tale()
    tale.starts("j1")
    tale.author("j1", "send", number=0)
    tale.author("j1", "send_failed", number=0)
    tale.ends("j1")
    tale.told("j1")
    assert tale.checked() == []


def test_ok_without_end_of_stream() -> None:
    tale = Tale()
    tale.starts("j1")
    tale.ends("j1")
    tale.note(CLIENT, "status", job="j1", status="OK", message="", on_corrupted=False)
    assert rules(tale.checked()) == {"P1 complete"}


def test_an_output_after_end_of_stream() -> None:
    tale = Tale()
    tale.starts("j1")
    tale.author("j1", "send", number=0)
    tale.note(CLIENT, "output", job="j1", protocol="end_of_stream")
    tale.note(CLIENT, "output", job="j1", protocol="said", number=0)
    tale.author("j1", "sent", number=0)
    tale.ends("j1", "raised")
    tale.told("j1", "INTERNAL")
    assert rules(tale.checked()) == {"P1 order"}


def test_an_output_that_nobody_has_sent() -> None:
    tale = Tale()
    tale.starts("j1")
    tale.note(CLIENT, "output", job="j1", protocol="said", number=0)
    tale.author("j1", "send", number=0)
    tale.author("j1", "sent", number=0)
    tale.ends("j1")
    tale.told("j1")
    assert rules(tale.checked()) == {"P1 invented"}


def test_an_output_after_the_status() -> None:
    tale = Tale()
    tale.starts("j1")
    tale.author("j1", "send", number=0)
    tale.author("j1", "sent", number=0)
    tale.ends("j1", "raised")
    tale.told("j1", "INTERNAL")
    tale.note(CLIENT, "output", job="j1", protocol="said", number=0)
    assert rules(tale.checked()) == {"P1 invented"}


def test_what_came_over_a_bad_link_may_be_anything() -> None:
    tale = Tale()
    tale.starts("j1")
    tale.note(CLIENT, "output", job="j1", protocol="said", number=41)
    tale.ends("j1")
    tale.told("j1", corrupted=True)
    assert tale.checked() == []


def test_a_client_is_never_told() -> None:
    tale = Tale()
    tale.starts("j1")
    tale.ends("j1")
    assert rules(tale.checked()) == {"P1 told"}


def test_a_call_that_ends_twice() -> None:
    tale = Tale()
    tale.job("j1")
    tale.note(CLIENT, "status", job="j1", status="INTERNAL", message="", on_corrupted=False)
    assert "P1 told" in rules(tale.checked())


def test_outputs_of_two_runs() -> None:
    tale = Tale()
    tale.starts("j1")
    tale.sends("j1", 0)
    tale.ends("j1", "cancelled")
    tale.begins("j1~2")
    tale.author("j1~2", "send", number=1)
    tale.author("j1~2", "sent", number=1)
    tale.note(CLIENT, "output", job="j1", protocol="said", number=1, run="j1~2")
    tale.ends("j1~2")
    tale.told("j1")
    assert "P1 order" in rules(tale.checked())


def test_a_second_run_is_a_run_of_its_own() -> None:
    tale = Tale()
    tale.starts("j1")
    tale.author("j1", "send", number=0)
    tale.author("j1", "sent", number=0)
    tale.ends("j1", "cancelled")
    tale.begins("j1~2")
    tale.author("j1~2", "send", number=0)
    tale.author("j1~2", "sent", number=0)
    tale.note(CLIENT, "output", job="j1", protocol="said", number=0, run="j1~2")
    tale.ends("j1~2")
    tale.told("j1", run="j1~2")
    assert tale.checked() == []


def test_records() -> None:
    tale = Tale()
    tale.starts("j1")
    for record in ("kept", "gone", "double", "unsure"):
        tale.author("j1", "store", record=record)
        if record != "unsure":
            tale.author("j1", "stored", record=record)
    tale.ends("j1")
    tale.told("j1")
    for record, times in (("kept", 1), ("double", 2)):
        tale.note("provider", "record", record=record, times=times)
    found = tale.checked()
    assert [(each.rule, each.text.split()[0]) for each in found] == [("P1 records", "gone"), ("P1 records", "double")]


# -- P2 ---------------------------------------------------------------------------------------------------------------


def test_a_job_without_outcome() -> None:
    tale = Tale()
    tale.starts("j1")
    tale.author("j1", "handler_end", how="returned")
    tale.author("j1", "cleanup")
    tale.author("j1", "cleanup_end", how="returned")
    tale.told("j1")
    assert rules(tale.checked()) == {"P2 outcome"}


def test_a_server_may_go_down_with_its_job() -> None:
    tale = Tale()
    tale.starts("j1")
    tale.at(1).note(SERVER, "crash")
    tale.told("j1", "UNAVAILABLE")
    tale.at(2).note(SERVER, "restart")
    assert tale.checked() == []


def test_two_outcomes() -> None:
    tale = Tale()
    tale.job("j1")
    tale.note(SERVER, "outcome", job="j1", reason="completed", state="stopped")
    assert rules(tale.checked()) == {"P2 outcome"}


def test_a_job_that_is_admitted_twice() -> None:
    tale = Tale()
    tale.starts("j1")
    tale.note(SERVER, "admitted", job="j1")
    tale.ends("j1")
    tale.told("j1")
    assert rules(tale.checked()) == {"P2 outcome"}


@pytest.mark.parametrize("reason", [reason for reason in Reason if reason is not Reason.COMPLETED])
def test_ok_for_what_did_not_complete(reason: Reason) -> None:
    tale = Tale()
    tale.starts("j1")
    tale.ends("j1", reason=reason.value, state=OUTCOMES[reason].state.value)
    tale.told("j1")
    assert "P2 fitting" in rules(tale.checked())


def test_an_ok_whose_stream_was_that_of_another_call_before_a_bit_was_flipped() -> None:
    tale = Tale()
    tale.starts("j1")
    tale.ends("j1", reason="client_gone", state="cancelled")
    tale.told("j1", corrupted=True)
    assert "P2 fitting" not in rules(tale.checked())


def test_a_state_that_does_not_fit() -> None:
    tale = Tale()
    tale.starts("j1")
    tale.ends("j1", state="failed")
    tale.told("j1")
    assert rules(tale.checked()) == {"P2 fitting"}


@pytest.mark.parametrize("what", ["initialize", "handler"])
def test_code_that_raised_in_a_job_that_completed(what: str) -> None:
    tale = Tale()
    tale.starts("j1")
    tale.author("j1", f"{what}_end", how="raised")
    tale.ends("j1")
    tale.told("j1")
    assert rules(tale.checked()) == {"P2 fitting"}


@pytest.mark.parametrize("action", ["start", "stop"])
def test_a_signal_twice(action: str) -> None:
    tale = Tale()
    tale.job("j1")
    tale.signal("j1", action, "completed" if action == "stop" else "none")
    assert "P2 signals" in rules(tale.checked())


def test_a_signal_that_is_read_twice_is_one() -> None:
    tale = Tale()
    tale.job("j1")
    tale.signal("j1", "start", seq=1)
    tale.signal("j1", "stop", "completed", seq=2)
    assert tale.checked() == []


def test_a_stop_with_another_reason() -> None:
    tale = Tale()
    tale.starts("j1")
    tale.author("j1", "handler_end", how="returned")
    tale.author("j1", "cleanup")
    tale.author("j1", "cleanup_end", how="returned")
    tale.note(SERVER, "outcome", job="j1", reason="completed", state="stopped")
    tale.signal("j1", "stop", "shutdown")
    tale.told("j1")
    assert rules(tale.checked()) == {"P2 signals"}


def test_signals_of_a_job_that_was_refused() -> None:
    tale = Tale()
    tale.note(CLIENT, "start", job="j1", server="s1", setup="s")
    tale.note(SERVER, "outcome", job="j1", reason="refused", state="failed")
    tale.told("j1", "RESOURCE_EXHAUSTED")
    tale.signal("j1", "start")
    assert rules(tale.checked()) == {"P2 signals"}


def test_a_request_to_stop_is_no_stop() -> None:
    tale = Tale()
    tale.note("provider", "signal_sent", task="j1", action="stop")
    tale.signal("j1", "stop")
    tale.job("j1")
    assert tale.checked() == []


# -- P3 ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "left"), [("tasks_left", ["job 1"]), ("streams_left", 1), ("sessions_left", 1), ("threads", 1)]
)
def test_something_is_left(what: str, left: object) -> None:
    tale = Tale()
    tale.job("j1")
    (found,) = tale.checked(**{what: left})
    assert found.rule == "P3 left"
    assert what in found.text


def test_code_that_goes_on_after_its_job() -> None:
    tale = Tale()
    tale.job("j1")
    tale.at(3).author("j1", "send", number=1)
    (found,) = tale.checked()
    assert (found.rule, found.job) == ("P3 outlived", "j1")


def test_code_that_goes_on_on_a_server_that_is_down() -> None:
    tale = Tale()
    tale.starts("j1")
    tale.note(SERVER, "crash")
    tale.author("j1", "send", number=0)
    tale.told("j1", "UNAVAILABLE")
    tale.at(1).note(SERVER, "restart")
    assert rules(tale.checked()) == {"P3 outlived"}


@pytest.mark.parametrize("what", ["handler", "cleanup"])
def test_code_that_never_ends(what: str) -> None:
    tale = Tale()
    tale.starts("j1")
    if what == "cleanup":
        tale.author("j1", "handler_end", how="returned")
    tale.author("j1", "cleanup")
    if what == "handler":
        tale.author("j1", "cleanup_end", how="returned")
    tale.note(SERVER, "outcome", job="j1", reason="completed", state="stopped")
    tale.signal("j1", "stop", "completed")
    tale.told("j1")
    assert "P3 outlived" in rules(tale.checked())


# -- the form ---------------------------------------------------------------------------------------------------------


def test_a_history_without_end_or_begin_or_jobs() -> None:
    assert rules(check([])) == {"form"}
    tale = Tale()
    tale.job("j1")
    assert rules(check(tale.history)) == {"form"}
    assert rules(check(tale.history.events[1:])) == {"form"}
    assert rules(Tale().checked()) == {"form"}


def test_an_event_after_the_end() -> None:
    tale = Tale()
    tale.job("j1")
    tale.note("world", "quiet")
    tale.note("world", "end", **END)
    tale.note(CLIENT, "stop", job="j1")
    assert "form" in rules(check(tale.history))


@pytest.mark.parametrize("until", [None, 200.0])
def test_a_fault_that_goes_on_when_it_should_be_quiet(until: float | None) -> None:
    tale = Tale()
    tale.job("j1")
    if until is None:
        tale.note(SERVER, "crash")
    else:
        tale.note("world", "fault", what="blackhole", where=["c9", "s1"], until=until)
    assert "form" in rules(tale.checked())
