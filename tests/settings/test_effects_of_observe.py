"""What variables of the observe layer change: what is written, where, and what looks at a server at all."""

import io
import json
import logging
from pathlib import Path

import pytest

from dk_trio.observe import Observation, Observed
from dk_trio.observe.logs import logging_to
from dk_trio.settings import Settings

LEVELS = ("debug", "info", "warning", "error")


def written(*, file: Path | None = None, **environ: str) -> tuple[list[str], list[dict[str, object]]]:
    """One line of each level is logged: the lines on stderr, and those in the file."""
    settings = Settings.from_environment({f"DIGITALKIN_{name}": value for name, value in environ.items()})
    stream = io.StringIO()
    with logging_to(settings, stream=stream):
        for level in LEVELS:
            logging.getLogger("dk_trio.told").log(logging.getLevelName(level.upper()), "a line of %s", level)
    lines = file.read_text().splitlines() if file is not None and file.exists() else []
    return [line for line in stream.getvalue().splitlines() if "a line of" in line], [
        each for each in map(json.loads, lines) if "a line of" in json.dumps(each)
    ]


@pytest.mark.parametrize("number", range(4))
def test_log_level(number: int) -> None:
    shown, _ = written(LOG_LEVEL=LEVELS[number], LOG_FORMAT="text")
    assert [line.split()[-1] for line in shown] == list(LEVELS[number:])


def test_log_format() -> None:
    shown, _ = written(LOG_LEVEL="debug", LOG_FORMAT="json")
    assert ["a line of debug" in json.dumps(json.loads(line)) for line in shown] == [True, False, False, False]
    shown, _ = written(LOG_FORMAT="text")
    assert shown
    for line in shown:
        with pytest.raises(json.JSONDecodeError):
            json.loads(line)


@pytest.mark.parametrize("number", range(4))
def test_log_dir_and_the_level_of_its_file(tmp_path: Path, number: int) -> None:
    file = tmp_path / "logs" / "dk-trio.log"
    shown, kept = written(file=file, LOG_DIR=str(file.parent), FILE_LOG_LEVEL=LEVELS[number], LOG_LEVEL="error")
    assert len(shown) == 1
    assert len(kept) == 4 - number


def test_log_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.log"
    _, kept = written(file=file, LOG_FILE=str(file), LOG_DIR=str(tmp_path / "logs"))
    assert len(kept) == 4
    assert not (tmp_path / "logs").exists()


@pytest.mark.parametrize(
    ("environ", "part"),
    [
        ({"DIGITALKIN_ACCESS_LOG": "true"}, "AccessLog"),
        ({"DIGITALKIN_METRICS_PORT": "0"}, "Metrics"),
        ({"DIGITALKIN_TRACES_ENDPOINT": "http://127.0.0.1:1"}, "Traces"),
        ({"DIGITALKIN_INSPECTOR": "true"}, "Inspector"),
        ({"DIGITALKIN_PROFILER": "yappi"}, "Profilers"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_looks_at_a_server(environ: dict[str, str], part: str, tmp_path: Path) -> None:
    nothing = {"DIGITALKIN_ACCESS_LOG": "false", "DIGITALKIN_PROFILE_OUTPUT_DIR": str(tmp_path / "profiles")}
    assert part not in repr(Observation(Settings.from_environment(nothing)))
    assert part in repr(Observation(Settings.from_environment(nothing | environ)))


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_metrics_host(host: str) -> None:
    from dk_trio.observe.metrics import Metrics

    environ = {"DIGITALKIN_METRICS_PORT": "0", "DIGITALKIN_METRICS_HOST": host}
    metrics = Metrics(Settings.from_environment(environ).observe)
    async with metrics.opened(Observed()):
        assert metrics.address.rpartition(":")[0].strip("[]") == host
