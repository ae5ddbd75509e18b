"""The incident: a burst of long jobs completes with a queue, and is mostly rejected without one."""

import sys

import pytest

from .test_examples import load

INCIDENT = load("examples/incident.py")


def test_with_a_queue_every_job_completes(capsys: pytest.CaptureFixture[str]) -> None:
    burst, makespan = INCIDENT.replay(jobs=47, seconds=100, slots=10, queue=40)
    assert burst.ends == {"completed": 47}
    assert makespan == pytest.approx(500, abs=1)  # five rounds of ten
    first, *_, last = capsys.readouterr().out.splitlines()
    assert first == "47 jobs of 100 s, 10 slots, a queue of 40"
    assert last.startswith("  47 completed; 500 virtual seconds in ")


def test_what_does_not_fit_into_the_queue_is_rejected() -> None:
    burst, _ = INCIDENT.replay(jobs=47, seconds=100, slots=10, queue=30)
    assert burst.ends == {"completed": 40, "RESOURCE_EXHAUSTED": 7}
    assert "DIGITALKIN_ADMISSION_TIMEOUT" in burst.last_rejection


def test_without_a_queue_the_slots_alone_complete(capsys: pytest.CaptureFixture[str]) -> None:
    burst, makespan = INCIDENT.replay(jobs=47, seconds=100, slots=10, queue=0)
    assert burst.ends == {"completed": 10, "RESOURCE_EXHAUSTED": 37}
    assert makespan == pytest.approx(100, abs=1)
    assert "the last rejection: Every slot" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("queue", "ends", "makespan"),
    [(3600, {"completed": 3704}, 4351), (0, {"completed": 200, "RESOURCE_EXHAUSTED": 3504}, 229)],
)
def test_the_incident_itself(queue: int, ends: dict[str, int], makespan: float) -> None:
    burst, took = INCIDENT.replay(jobs=3704, seconds=229, slots=200, queue=queue)
    assert burst.ends == ends
    assert took == pytest.approx(makespan, abs=1)
    statistics = burst.server.statistics()
    assert (statistics.jobs.running, statistics.jobs.queued, statistics.admission.admitted) == (0, 0, 0)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--jobs", "0"], "--jobs: '0' is not a whole number from 1 to 10000"),
        (["--jobs", "many"], "--jobs: 'many' is not a whole number from 1 to 10000"),
        (["--slots", "1.5"], "--slots: '1.5' is not a whole number from 1 to 10000"),
        (["--queue", "-1"], "--queue: '-1' is not a whole number from 0 to 10000"),
        (["--seconds", "inf"], "--seconds: 'inf' is not a number from 0 to 86400"),
    ],
)
def test_arguments_that_make_no_burst(
    arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["incident.py", *arguments])
    with pytest.raises(SystemExit) as ended:
        INCIDENT.main()
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_both_modes_are_shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", "incident.py --jobs 3 --seconds 9 --slots 1 --queue 2".split())
    INCIDENT.main()
    assert [line for line in capsys.readouterr().out.splitlines() if line[0].isdigit()] == [
        "3 jobs of 9 s, 1 slots, a queue of 2",
        "3 jobs of 9 s, 1 slots, no queue",
    ]
