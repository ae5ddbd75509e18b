"""The cases of what watching costs: their contestants differ in what they say, and in nothing else."""

from pathlib import Path

import pytest

from dk_trio import Settings
from dk_trio.settings import all_variables

REPO = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def bench_is_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(REPO))


def test_the_quiet_one_watches_nothing_and_the_watched_one_all(tmp_path: Path) -> None:
    from bench.cases import QUIET, QUIET_AGAIN, TRACED, WATCHED
    from bench.observe_measure import settings

    environments = settings(tmp_path, 9464)
    known = {name for variable in all_variables() for name in variable.names}
    assert {name for env in environments.values() for name in env} <= known
    found = {name: Settings.from_environment(env) for name, env in environments.items()}
    quiet, watched = found[QUIET].observe, found[WATCHED].observe
    assert found[QUIET_AGAIN].observe == quiet
    assert (quiet.access_log, quiet.log_level, quiet.metrics_port, quiet.traces_endpoint) == (
        False,
        "warning",
        None,
        None,
    )
    assert (watched.access_log, watched.log_level, watched.metrics_port) == (True, "info", 9464)
    assert watched.log_dir == tmp_path / "logs"
    assert watched.log_dir.is_dir()
    assert len({each.tasks for each in found.values()}) == 1
    if TRACED in found:
        assert found[TRACED].observe.traces_endpoint


def test_watching_is_held_to_a_tenth() -> None:
    from bench.cases import AIMS, CPU_US, PER_SECOND, WATCHED
    from bench.observe_measure import KEYS

    aims = [aim for aim in AIMS if aim.contestant == WATCHED]
    assert {(aim.case, aim.metric, aim.at_least, aim.at_most) for aim in aims} == {
        ("observe-64", PER_SECOND, 0.9, 0.0),
        ("observe-64", CPU_US, 0.0, 1.1),
    }
    assert {aim.case for aim in aims} <= KEYS.keys()
