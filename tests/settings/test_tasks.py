"""The settings of admission: which wait binds, which variables have no effect, and what does not fit together."""

import math

import pytest

from dk_trio.errors import SettingError
from dk_trio.settings import Settings, TaskSettings

SLOTS = "DIGITALKIN_MAX_CONCURRENT_TASKS"
QUEUED = "DIGITALKIN_MAX_QUEUED_TASKS"
RPCS = "DIGITALKIN_MAX_CONCURRENT_RPCS"
ADMISSION = "DIGITALKIN_ADMISSION_TIMEOUT"
QUEUE_SLOT = "DIGITALKIN_QUEUE_SLOT_TIMEOUT"
TASK_WAIT = "DIGITALKIN_TASK_WAIT_TIMEOUT"
STRATEGY = "DIGITALKIN_BACKPRESSURE_STRATEGY"
BACKPRESSURE = "DIGITALKIN_BACKPRESSURE_TIMEOUT"


def read(environ: dict[str, str]) -> Settings:
    return Settings.from_environment({RPCS: "10000"} | environ)


def report_of(settings: Settings, name: str) -> str:
    return next(line for line in settings.report().splitlines() if line.startswith(f"{name}="))


@pytest.mark.parametrize(
    ("environ", "seconds", "variable"),
    [
        ({}, 30, TASK_WAIT),
        ({BACKPRESSURE: "20"}, 20, BACKPRESSURE),
        ({TASK_WAIT: "400"}, 300, BACKPRESSURE),
        ({TASK_WAIT: "7", BACKPRESSURE: "7"}, 7, TASK_WAIT),
        ({STRATEGY: "reject"}, 0, STRATEGY),
        ({QUEUED: "10"}, math.inf, QUEUE_SLOT),
        ({QUEUED: "10", QUEUE_SLOT: "600"}, 600, QUEUE_SLOT),
        ({QUEUED: "10", STRATEGY: "reject"}, math.inf, QUEUE_SLOT),
    ],
)
def test_the_wait_for_a_slot_names_the_variable_that_binds(
    environ: dict[str, str], seconds: float, variable: str
) -> None:
    settings = read(environ)
    assert settings.tasks.slot_wait == (seconds, variable)
    assert ": binds, a task waits for a slot " in report_of(settings, variable)
    assert settings.report().count("binds") == 1


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({}, "for 30 s at most"),
        ({STRATEGY: "reject"}, "not at all"),
        ({QUEUED: "10"}, "as long as it takes"),
    ],
)
def test_the_report_says_how_long_a_task_waits(environ: dict[str, str], words: str) -> None:
    settings = read(environ)
    assert report_of(settings, settings.tasks.slot_wait.variable).endswith(f": binds, a task waits for a slot {words}")


ALL = {ADMISSION: "4", QUEUE_SLOT: "60", TASK_WAIT: "10", BACKPRESSURE: "20"}


@pytest.mark.parametrize(
    ("environ", "without_effect", "why"),
    [
        ({QUEUED: "10", STRATEGY: "block"}, {TASK_WAIT, STRATEGY, BACKPRESSURE}, f"in the queue ({QUEUED}=10)"),
        ({STRATEGY: "block"}, {ADMISSION, QUEUE_SLOT}, f"there is no queue ({QUEUED}=0)"),
        ({STRATEGY: "block"}, {BACKPRESSURE}, f"{TASK_WAIT} ends the wait after 10 s"),
        ({TASK_WAIT: "30"}, {TASK_WAIT}, f"{BACKPRESSURE} ends the wait after 20 s"),
        ({STRATEGY: "reject"}, {TASK_WAIT, BACKPRESSURE}, f"{STRATEGY}=reject does not wait"),
    ],
)
def test_a_variable_that_is_set_without_effect_is_told(
    environ: dict[str, str], without_effect: set[str], why: str
) -> None:
    settings = read(ALL | environ)
    told = {line.split()[0] for line in settings.warnings if why in line}
    assert told == without_effect
    for name in without_effect:
        assert ": no effect, " in report_of(settings, name)
        assert why in report_of(settings, name)
    assert {line.split()[0] for line in settings.warnings} == settings.tasks.without_effect().keys()


@pytest.mark.parametrize("environ", [{}, {QUEUED: "10"}, {STRATEGY: "reject"}])
def test_a_default_without_effect_is_shown_but_not_told(environ: dict[str, str]) -> None:
    settings = read(environ)
    assert settings.warnings == ()
    for name in settings.tasks.without_effect():
        assert ": no effect, " in report_of(settings, name)


def test_a_variable_is_without_effect_or_its_value_is_looked_at() -> None:
    """In each mode: what is said to have no effect can have any value, and what is not, decides something."""
    for queued, strategy in ((0, "block"), (0, "reject"), (10, "block")):
        settings = TaskSettings(max_queued_tasks=queued, backpressure_strategy=strategy, queue_slot_timeout=9)
        deciding = {settings.slot_wait.variable, ADMISSION if queued else STRATEGY}
        assert settings.without_effect().keys() | deciding == {
            ADMISSION,
            QUEUE_SLOT,
            TASK_WAIT,
            STRATEGY,
            BACKPRESSURE,
        }
        assert not settings.without_effect().keys() & deciding


def test_drop_oldest_is_refused_with_an_explanation() -> None:
    with pytest.raises(SettingError) as caught:
        read({STRATEGY: "drop_oldest"})
    assert caught.value.text == (
        "DIGITALKIN_BACKPRESSURE_STRATEGY='drop_oldest' is refused: it would silently lose work that was accepted. "
        "Use block, which waits for a slot, or reject, which tells the caller at once."
    )


def test_a_front_door_narrower_than_slots_and_queue_is_told() -> None:
    sizes = {SLOTS: "200", QUEUED: "3000"}
    (warning,) = read({RPCS: "3199"} | sizes).warnings
    assert warning == (
        "DIGITALKIN_MAX_CONCURRENT_RPCS is 3199, less than DIGITALKIN_MAX_CONCURRENT_TASKS + "
        "DIGITALKIN_MAX_QUEUED_TASKS with 200 + 3000: callers are refused while there is room for their tasks. "
        "Set it to 3200 or more."
    )
    assert read({RPCS: "3200"} | sizes).warnings == ()


@pytest.mark.parametrize("cpus", [1, None])
def test_the_defaults_fit_together_on_the_smallest_machine(cpus: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: cpus)
    assert Settings.from_environment({}).warnings == ()


@pytest.mark.parametrize(
    ("rpcs", "slots", "queued"),
    [(1000, 100, 1000), (2000, 200, 3000), (5000, 400, 5000), (1500, 50, 500)],
)
def test_the_recommended_sizes_of_the_guide(rpcs: int, slots: int, queued: int) -> None:
    """Three of the guide's four recommendations break its first rule; whoever copies one is told."""
    warnings = read({RPCS: str(rpcs), SLOTS: str(slots), QUEUED: str(queued)}).warnings
    assert bool(warnings) == (rpcs < slots + queued)


def test_a_client_does_not_hear_of_a_server_s_limits() -> None:
    environ = {"DIGITALKIN_MAX_CONCURRENT_RPCS": "1", "DIGITALKIN_ADMISSION_TIMEOUT": "1"}
    assert len(Settings.from_environment(environ).warnings) == 2
    assert Settings.from_environment(environ, serving=False).warnings == ()
