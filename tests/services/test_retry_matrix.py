"""Every way to fail, with each layer alone and both, for each kind of call: what the server sees, and for how long."""

from __future__ import annotations

import pytest
from grpclib.const import Status
from tests.services.retry_matrix import (
    DROPPED,
    FAILURES,
    KINDS,
    LAYERS,
    LOST,
    PAGE,
    REFUSED,
    SILENT,
    STATUSES,
    Measured,
    measure_all,
    page_with,
    table,
)

READ, HONOURED, UNKNOWN_KEY = KINDS
A_RETRIES = {"UNAVAILABLE", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"}
B_RETRIES = {"UNAVAILABLE", "INTERNAL", "DEADLINE_EXCEEDED"}

Matrix = dict[tuple[str, str, str], Measured]


@pytest.fixture(scope="module")
def matrix() -> Matrix:
    return measure_all()


@pytest.mark.parametrize("layers", LAYERS)
@pytest.mark.parametrize("name", STATUSES)
def test_reads_and_honoured_writes_are_repeated_by_the_classification(matrix: Matrix, name: str, layers: str) -> None:
    """The tables of the tuning guide: five calls by A, three by B, and never their product."""
    by_a, by_b = "A" in layers and name in A_RETRIES, "B" in layers and name in B_RETRIES
    calls, seconds = (5, 1.5) if by_a else (3, 0.15) if by_b else (1, 0)
    for kind in (READ, HONOURED):
        measured = matrix[name, layers, kind]
        assert (measured.calls, measured.status.name) == (calls, name)
        assert measured.seconds == pytest.approx(seconds)


@pytest.mark.parametrize("layers", LAYERS)
@pytest.mark.parametrize("name", STATUSES)
def test_writes_without_honoured_keys_are_not_repeated_after_an_answer(matrix: Matrix, name: str, layers: str) -> None:
    measured = matrix[name, layers, UNKNOWN_KEY]
    assert (measured.calls, measured.seconds, measured.status.name) == (1, 0, name)


def test_an_outage_gives_the_attempts_of_one_layer_within_a_deadline(matrix: Matrix) -> None:
    for failure in ("UNAVAILABLE", REFUSED, LOST, DROPPED):
        for layers, kind in [(layers, kind) for layers in LAYERS for kind in KINDS]:
            assert matrix[failure, layers, kind].calls <= (5 if "A" in layers else 3)
            assert matrix[failure, layers, kind].status is Status.UNAVAILABLE


@pytest.mark.parametrize("layers", LAYERS)
def test_writes_are_applied_once_when_replies_are_lost(matrix: Matrix, layers: str) -> None:
    assert matrix[DROPPED, layers, HONOURED].applied == 1
    assert matrix[DROPPED, layers, UNKNOWN_KEY].applied == 1
    assert matrix[DROPPED, layers, UNKNOWN_KEY].calls == 1
    assert matrix[DROPPED, layers, HONOURED].calls == (5 if "A" in layers else 3)


@pytest.mark.parametrize("layers", LAYERS)
@pytest.mark.parametrize("kind", KINDS)
def test_what_never_reached_a_server_is_repeated_whatever_it_is(matrix: Matrix, kind: str, layers: str) -> None:
    assert matrix[REFUSED, layers, kind].calls == (5 if "A" in layers else 3)


@pytest.mark.parametrize("layers", LAYERS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_deadline_that_has_passed_is_the_end(matrix: Matrix, kind: str, layers: str) -> None:
    measured = matrix[SILENT, layers, kind]
    assert (measured.calls, measured.seconds) == (1, 30)


def test_the_page_shows_what_is_measured(matrix: Matrix) -> None:
    assert PAGE.read_text() == page_with(table(matrix)), "run: python -m tests.services.retry_matrix"


def test_nothing_is_missing(matrix: Matrix) -> None:
    assert len(matrix) == len(FAILURES) * len(LAYERS) * len(KINDS) == 20 * 9
