"""`dk-trio config`: every value with its source and meaning, for people and for programs."""

import json
import os
from pathlib import Path

import pytest

from dk_trio.cli._settings import load_settings
from dk_trio.settings import Settings, all_variables

from .processes import environment, here

PORT = "SERVER_CHANNEL_PORT"
SLOTS = "DIGITALKIN_MAX_CONCURRENT_TASKS"
TOKEN = "DIGITALKIN_AUTH_TOKEN"
SECRET = "s3cr3t-of-somebody"


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def shown(*arguments: str, **env: str) -> str:
    ours = [name for name in environment() if name.startswith(("DIGITALKIN_", "SERVER_"))]  # what tests are run with
    done = here("config", *arguments, **(dict.fromkeys(ours, "") | env))
    assert done.returncode == 0, done.stderr
    return done.stdout.decode()


def rows(*arguments: str, **env: str) -> dict[str, dict[str, object]]:
    objects = [json.loads(line) for line in shown("--json", *arguments, **env).splitlines()]
    return {each["variable"]: each for each in objects}


def test_each_variable_is_one_line_with_layer_value_unit_source_and_meaning() -> None:
    lines = [line.split("\t") for line in shown(**{PORT: "7"}).splitlines()]
    assert [line[1] for line in lines] == [row.name for row in all_variables()]
    assert ["server", PORT, "7", "", "environment", "Port that `serve` listens on."] in lines
    assert next(line for line in lines if line[1] == "DIGITALKIN_GRACE")[2:5] == ["10", "s", "default"]
    assert all(len(line) == 6 and line[5] for line in lines)


def test_only_what_differs_from_the_default() -> None:
    assert shown("--diff-default") == ""
    assert list(rows("--diff-default", **{PORT: "50055", SLOTS: "7"})) == [SLOTS]


def test_programs_get_all_of_it() -> None:
    found = rows("--preset", "medium", **{PORT: "7", TOKEN: SECRET})
    assert list(found) == [row.name for row in all_variables()]
    assert found[PORT] == {
        "variable": PORT,
        "aliases": [],
        "layer": "server",
        "value": "7",
        "unit": None,
        "source": "environment",
        "changed": True,
        "default": "50055",
        "expects": "a port number from 0 (any free port) to 65535",
        "meaning": "Port that `serve` listens on.",
        "note": None,
        "secret": False,
    }
    assert (found[SLOTS]["value"], found[SLOTS]["source"]) == ("200", "preset medium")
    assert found["DIGITALKIN_GRPC_KEEPALIVE_TIME_MS"]["unit"] == "ms"
    assert found["DIGITALKIN_CLIENT_CA"]["value"] is None
    assert (found[TOKEN]["value"], found[TOKEN]["secret"]) == ("***", True)
    assert found["DIGITALKIN_TASK_WAIT_TIMEOUT"]["note"] == (
        "no effect, tasks wait in the queue (DIGITALKIN_MAX_QUEUED_TASKS=3000)"
    )


@pytest.mark.parametrize("arguments", [(), ("--json",), ("--env",), (TOKEN,)], ids=" ".join)
def test_a_secret_is_never_shown(arguments: tuple[str, ...]) -> None:
    done = here("config", *arguments, **{TOKEN: SECRET})
    assert TOKEN.encode() in done.stdout
    assert SECRET.encode() not in done.stdout + done.stderr


@pytest.mark.parametrize("name", [SLOTS, "max_concurrent_tasks", "Digitalkin_Max_Concurrent_Tasks"])
def test_one_variable(name: str) -> None:
    text = shown(name, **{SLOTS: "7"})
    assert text.splitlines()[:3] == [f"variable  {SLOTS}", "value     7", "source    environment"]
    assert "default   100" in text
    assert "takes     a whole number of tasks from 1 to 1000000" in text


def test_a_variable_is_found_by_its_other_name() -> None:
    text = shown("SERVER_MAX_CONCURRENT_RPCS", SERVER_MAX_CONCURRENT_RPCS="700")
    assert "variable  DIGITALKIN_MAX_CONCURRENT_RPCS or SERVER_MAX_CONCURRENT_RPCS" in text
    assert "source    environment, as SERVER_MAX_CONCURRENT_RPCS" in text


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("DIGITALKIN_MAX_CONCURENT_TASKS", f"Did you mean {SLOTS}?"),
        ("max_queue_tasks", "Did you mean DIGITALKIN_MAX_QUEUED_TASKS?"),
        ("banana", "`dk-trio config` lists them."),
    ],
)
def test_a_variable_that_does_not_exist_gets_a_suggestion(name: str, hint: str) -> None:
    done = here("config", name)
    assert done.returncode == 2
    assert f"{name!r} is not a known variable. {hint}" in done.stderr.decode()


def test_a_variable_of_the_existing_sdk_that_means_nothing_here() -> None:
    assert shown("SERVER_MAX_WORKERS").startswith("SERVER_MAX_WORKERS is not used: there is no synchronous server")


def test_warnings_go_to_stderr() -> None:
    done = here("config", "--preset", "small")
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith("warning: DIGITALKIN_MAX_CONCURRENT_RPCS is 1000, less than")
    assert b"warning" not in done.stdout


def test_the_file_that_is_printed_gives_the_same_settings(tmp_path: Path) -> None:
    environ = {PORT: "7", "DIGITALKIN_DATA_DIR": "/my data", "DIGITALKIN_GRPC_RETRY_MAX_BACKOFF": "3s"}
    text = shown("--preset", "railway", "--env", **environ)
    file = tmp_path / "printed.env"
    file.write_text(text)
    read, meant = Settings.load(environ={}, env_file=file), Settings.load(environ=environ, preset="railway")
    for layer in ("server", "tasks", "lifecycle", "services", "signals", "query", "channel", "observe"):
        assert getattr(read, layer) == getattr(meant, layer)
    assert f"{PORT}=7\n" in text
    assert "# DIGITALKIN_WORKERS=1\n" in text
    assert f"# {TOKEN}=...\n" in text
    assert "# DIGITALKIN_CLIENT_CA=\n" in text


def test_the_file_of_the_working_directory_counts(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(f"{PORT}=7\n")
    (tmp_path / "other.env").write_text(f"{PORT}=8\n")
    assert (rows()[PORT]["value"], rows()[PORT]["source"]) == ("7", "file .env")
    assert rows("--env-file", "other.env")[PORT]["value"] == "8"
    assert rows("--env-file", "other.env", **{PORT: "9"})[PORT]["value"] == "9"


def test_a_strangers_file_does_not_load_code_into_a_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("OPENSSL_CONF=evil.cnf\n")
    monkeypatch.delenv("OPENSSL_CONF", raising=False)
    for export in (False, True):
        load_settings(export=export)
        assert ("OPENSSL_CONF" in os.environ) is export
    del os.environ["OPENSSL_CONF"]


def test_a_file_that_is_not_there() -> None:
    done = here("config", "--env-file", "absent.env")
    assert done.returncode == 3
    assert done.stderr == (
        b"dk-trio: absent.env cannot be read: No such file or directory. Give --env-file a file of NAME=value lines.\n"
    )


def test_a_working_directory_that_cannot_be_looked_into_has_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_file", refused)
    assert here("config", "--diff-default").returncode == 0


def test_json_stays_json() -> None:
    assert json.loads(shown("DIGITALKIN_TLS_CERT", "--json"))["default"] is None
    assert json.loads(shown("SERVER_MAX_WORKERS", "--json"))["used"] is False
    assert here("config", "--json", "--env").returncode == 2


def test_on_a_terminal_there_are_layers_and_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dk_trio.cli.config.is_terminal", lambda: True)
    text = shown(**{PORT: "7"})
    assert text.startswith("# server\n")
    assert f"{PORT} = 7  (environment)\n    Port that `serve` listens on.\n" in text
    assert "DIGITALKIN_GRACE = 10 s  (default)\n" in text
