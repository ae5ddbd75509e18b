"""Where a value comes from: flag, else environment, else file, else preset, else default; and secrets come nowhere."""

from pathlib import Path

import pytest
from tests.settings.seed_table import PRESETS as GUIDE

from dk_trio.errors import SettingError
from dk_trio.settings import PRESETS, Flag, Settings, Source, all_variables

PORT = "SERVER_CHANNEL_PORT"
SLOTS = "DIGITALKIN_MAX_CONCURRENT_TASKS"
SECRET = "s3cr3t-of-somebody"


def source_of(settings: Settings, name: str) -> Source:
    return next(row for row in settings.sources if row.variable.name == name)


def env_file(folder: Path, text: str) -> Path:
    path = folder / "some.env"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_first_place_that_has_a_value_wins(tmp_path: Path) -> None:
    """Each place in turn has its value, and loses it to the next one."""
    file = env_file(tmp_path, f"{SLOTS}=33\n")
    steps = [
        ({}, 100, "default"),
        ({"preset": "medium"}, 200, "preset medium"),
        ({"env_file": file}, 33, f"file {file}"),
        ({"environ": {SLOTS: "44"}}, 44, "environment"),
        ({"flags": [Flag("--slots", SLOTS, 55)]}, 55, "flag --slots"),
    ]
    given: dict[str, object] = {"environ": {}}
    for more, value, origin in steps:
        given |= more
        settings = Settings.load(**given)
        assert settings.tasks.max_concurrent_tasks == value
        source = source_of(settings, SLOTS)
        assert (source.value, source.origin, source.changed) == (str(value), origin, value != 100)


def test_a_flag_that_was_not_given_is_none() -> None:
    settings = Settings.load(flags=[Flag("--port", PORT, None)], environ={PORT: "7"})
    assert settings.server.port == 7


def test_an_alias_of_a_nearer_place_goes_before_the_name_of_a_farther_one(tmp_path: Path) -> None:
    file = env_file(tmp_path, "DIGITALKIN_MAX_CONCURRENT_RPCS=500")
    settings = Settings.load(environ={"SERVER_MAX_CONCURRENT_RPCS": "600"}, env_file=file)
    assert settings.server.max_concurrent_rpcs == 600
    source = source_of(settings, "DIGITALKIN_MAX_CONCURRENT_RPCS")
    assert source.origin == "environment, as SERVER_MAX_CONCURRENT_RPCS"


def test_an_empty_value_leaves_it_to_the_next_place(tmp_path: Path) -> None:
    settings = Settings.load(environ={PORT: ""}, env_file=env_file(tmp_path, f"{PORT}=8"))
    assert settings.server.port == 8


@pytest.mark.parametrize("name", GUIDE)
def test_a_preset_has_the_guide_s_numbers(name: str) -> None:
    guide = dict(line.split("=") for line in GUIDE[name].split())
    settings = Settings.load(environ={}, preset=name)
    shown = {row.variable.name: row.value for row in settings.sources if row.origin == f"preset {name}"}
    assert shown == guide
    by_hand = Settings.load(environ=guide | {"DIGITALKIN_PRESET": name})
    for layer in ("server", "tasks", "lifecycle", "signals", "query", "channel", "services", "observe"):
        assert getattr(settings, layer) == getattr(by_hand, layer)


def test_there_are_no_other_presets() -> None:
    assert PRESETS.keys() == GUIDE.keys()


@pytest.mark.parametrize("place", ["flag", "environment", "file"])
def test_a_preset_is_chosen_as_every_setting_is(place: str, tmp_path: Path) -> None:
    file = env_file(tmp_path, "DIGITALKIN_PRESET=large") if place == "file" else None
    environ = {"DIGITALKIN_PRESET": "large"} if place == "environment" else {}
    settings = Settings.load(preset="large" if place == "flag" else None, environ=environ, env_file=file)
    assert settings.server.preset == "large"
    assert settings.tasks.max_concurrent_tasks == 400


def test_an_unknown_preset_is_refused_with_the_names() -> None:
    with pytest.raises(SettingError, match="small, medium, large or railway"):
        Settings.load(environ={"DIGITALKIN_PRESET": "huge"})


def test_what_a_preset_sets_without_effect_nobody_has_asked_for() -> None:
    """Railway's has BACKPRESSURE_* beside a queue, which switches them off."""
    assert Settings.load(environ={}, preset="railway").warnings == ()


def test_a_file_is_read_as_compose_and_systemd_have_it(tmp_path: Path) -> None:
    file = env_file(
        tmp_path,
        f"""\
# a comment

export {PORT}=1234 # another
SERVER_CHANNEL_HOST='::1'
DIGITALKIN_TIMEZONE="Europe/Berlin"
{PORT}=1235
DIGITALKIN_MODULE_ID=modules:${{PORT}}
""",
    )
    settings = Settings.load(environ={}, env_file=file)
    assert (settings.server.host, settings.server.port) == ("::1", 1235)
    assert settings.services.timezone == "Europe/Berlin"
    assert settings.module.module_id == "modules:${PORT}"


@pytest.mark.parametrize(
    "line",
    ["SERVER_CHANNEL_PORT 80", "PORT: 80", f"DIGITALKIN_AUTH_TOKEN: {SECRET}", '"quoted', "A-B=1", "1A=2", "A='x", "="],
)
def test_a_bad_line_of_a_file_is_told_by_its_number_and_not_shown(line: str, tmp_path: Path) -> None:
    file = env_file(tmp_path, f"A=1\n\n\n{line}\nB=2\n")
    with pytest.raises(SettingError) as caught:
        Settings.load(environ={}, env_file=file)
    assert caught.value.text == f"{file}, line 4: this is not NAME=value. Correct the line, or put a # before it."


@pytest.mark.parametrize("content", [None, b"A=\xff\n"], ids=["absent", "not UTF-8"])
def test_a_file_that_cannot_be_read_is_told(content: bytes | None, tmp_path: Path) -> None:
    file = tmp_path / ".env"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SettingError, match=f"{file} (cannot be read: No such file|is not UTF-8 text)"):
        Settings.load(environ={}, env_file=file)


def test_a_bad_value_of_a_file_is_told_with_the_file(tmp_path: Path) -> None:
    file = env_file(tmp_path, f"{PORT}=http")
    with pytest.raises(SettingError, match=f"{PORT}='http' in {file} cannot be used"):
        Settings.load(environ={}, env_file=file)


def test_a_bad_value_of_a_flag_is_told_as_it_was_written() -> None:
    with pytest.raises(SettingError, match="--port='http' cannot be used: it needs a port number"):
        Settings.load(environ={}, flags=[Flag("--port", PORT, "http")])


def test_a_file_s_other_variables_are_for_the_module_s_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    monkeypatch.setattr(os, "environ", {"ACME_REGION": "of the process"})
    file = env_file(tmp_path, f"ACME_KEY=of the file\nACME_REGION=of the file\n{PORT}=1")
    Settings.load(env_file=file)
    assert os.environ == {"ACME_KEY": "of the file", "ACME_REGION": "of the process"}


def test_railway_s_log_viewer_takes_json_unless_told_otherwise() -> None:
    railway = {"RAILWAY_SERVICE_NAME": "mine"}
    settings = Settings.load(environ=railway)
    assert settings.observe.log_format == "json"
    assert source_of(settings, "DIGITALKIN_LOG_FORMAT").origin == "environment, RAILWAY_SERVICE_NAME"
    assert Settings.load(environ=railway | {"DIGITALKIN_LOG_FORMAT": "text"}).observe.log_format == "text"


FILES = {"cert_path": "/tls/cert.pem", "key_path": "/tls/key.pem", "root_cert_path": "/tls/ca.pem"}


def test_the_existing_sdk_s_credentials_are_taken_as_json() -> None:
    import json

    security = Settings.load(environ={"SERVER_CHANNEL_CREDENTIALS": json.dumps(FILES)}).security
    assert (security.tls_cert, security.tls_key) == (Path("/tls/cert.pem"), Path("/tls/key.pem"))
    assert security.tls_client_ca == Path("/tls/ca.pem")
    assert security.server_tls


def test_credentials_one_by_one_go_before_the_json() -> None:
    environ = {
        "SERVER_CHANNEL_CREDENTIALS": '{"cert_path": "/a", "key_path": "/b", "root_cert_path": null}',
        "SERVER_CHANNEL_CREDENTIALS__CERT_PATH": "/c",
    }
    security = Settings.load(environ=environ).security
    assert (security.tls_cert, security.tls_key, security.tls_client_ca) == (Path("/c"), Path("/b"), None)


SECRETS = [row.name for row in all_variables() if row.secret]


def test_every_token_is_a_secret() -> None:
    assert [row.name for row in all_variables() if row.name.endswith("TOKEN")] == SECRETS


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_is_shown_nowhere(name: str) -> None:
    settings = Settings.load(environ={name: SECRET, "DIGITALKIN_INSPECTOR": "true"})
    assert f"{name}=*** (environment)" in settings.report().splitlines()
    assert SECRET not in settings.report() + repr(settings.sources) + "".join(settings.warnings)


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_that_cannot_be_used_is_not_shown_either(name: str) -> None:
    with pytest.raises(SettingError) as caught:
        Settings.load(environ={name: f"{SECRET} {SECRET}"})
    assert f"{name}=*** cannot be used" in caught.value.text
    assert SECRET not in caught.value.text


def test_a_password_in_a_url_is_not_shown() -> None:
    settings = Settings.load(environ={"OTEL_EXPORTER_OTLP_ENDPOINT": f"https://me:{SECRET}@collector:4318"})
    assert "DIGITALKIN_TRACES_ENDPOINT=https://me:***@collector:4318" in settings.report()
    assert SECRET not in settings.report()


def test_settings_as_a_whole_do_not_show_secrets() -> None:
    """`repr` is what ends up in logs and tracebacks."""
    environ = dict.fromkeys(SECRETS, SECRET) | {"DIGITALKIN_INSPECTOR": "true"}
    assert SECRET not in repr(Settings.load(environ=environ))
