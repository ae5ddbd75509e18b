"""What does not fit together: rules of the tuning guide and values without effect are warned of at start."""

from pathlib import Path

import pytest

from dk_trio.settings import Settings, all_variables
from dk_trio.settings._names import NOT_USED, NotUsed

RPCS = "DIGITALKIN_MAX_CONCURRENT_RPCS"
SLOTS = "DIGITALKIN_MAX_CONCURRENT_TASKS"
QUEUED = "DIGITALKIN_MAX_QUEUED_TASKS"
KEEPALIVE = "DIGITALKIN_GRPC_KEEPALIVE_TIME_MS"
APART = "DIGITALKIN_GRPC_MIN_PING_INTERVAL_MS"
SERVERS = "SERVER_GRPC_OPTIONS_MIN_PING_INTERVAL"


def warnings_of(**environ: str) -> tuple[str, ...]:
    return Settings.load(environ=environ).warnings


@pytest.mark.parametrize("cpus", [1, 2, 4, 32])
def test_defaults_break_no_rule_on_any_machine(cpus: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: cpus)
    assert warnings_of() == ()


@pytest.mark.parametrize(
    ("environ", "numbers"),
    [
        pytest.param({RPCS: "1000", SLOTS: "100", QUEUED: "901"}, ("1000", "100 + 901"), id="rule 1"),
        pytest.param({RPCS: "399", SLOTS: "200"}, ("200", "399"), id="rule 2"),
        pytest.param({SLOTS: "800", RPCS: "16000"}, ("800", f"{QUEUED} is 0"), id="rule 3"),
        pytest.param({KEEPALIVE: "20000"}, ("20000", "30000"), id="a PING before it is allowed"),
        pytest.param({KEEPALIVE: "9000", APART: "9000"}, ("9000", "10000"), id="PINGs that a server refuses"),
        pytest.param({SERVERS: "61000"}, ("60000", "61000"), id="a server that refuses PINGs"),
        pytest.param({"DIGITALKIN_MAX_RPCS_PER_CLIENT": "501", RPCS: "500"}, ("501", "500"), id="a client's share"),
    ],
)
def test_a_broken_rule_is_told_with_both_numbers(environ: dict[str, str], numbers: tuple[str, str]) -> None:
    (warning,) = warnings_of(**environ)
    assert all(number in warning for number in numbers)
    assert next(iter(environ)) in warning


@pytest.mark.parametrize(
    "environ",
    [
        {RPCS: "1000", SLOTS: "100", QUEUED: "900"},
        {RPCS: "400", SLOTS: "200"},
        {RPCS: "8000", SLOTS: "400"},
        {RPCS: "16000", SLOTS: "800", QUEUED: "3000"},
        {KEEPALIVE: "30000"},
        {KEEPALIVE: "10000", APART: "10000"},
        {SERVERS: "60000"},
        {"DIGITALKIN_MAX_RPCS_PER_CLIENT": "500", RPCS: "500"},
    ],
    ids=str,
)
def test_a_rule_that_is_just_kept_is_silent(environ: dict[str, str]) -> None:
    assert warnings_of(**environ) == ()


@pytest.mark.parametrize(
    "environ",
    [
        {"DIGITALKIN_METRICS_PORT": "8765"},  # the inspector is off
        {"DIGITALKIN_METRICS_PORT": "8766", "DIGITALKIN_INSPECTOR": "true"},
        {"DIGITALKIN_METRICS_PORT": "8767", "DIGITALKIN_INSPECTOR": "true", "DIGITALKIN_WORKERS": "2"},
        {"DIGITALKIN_METRICS_PORT": "50055", "DIGITALKIN_METRICS_HOST": "10.0.0.7"},
        {"DIGITALKIN_METRICS_PORT": "0", "DIGITALKIN_INSPECTOR": "true", "DIGITALKIN_INSPECTOR_PORT": "0"},
    ],
    ids=str,
)
def test_ports_that_do_not_meet(environ: dict[str, str]) -> None:
    assert warnings_of(**environ) == ()


@pytest.mark.parametrize("name", ["small", "medium", "large", "railway"])
def test_a_preset_of_the_guide_that_breaks_its_own_rule_says_so(name: str) -> None:
    settings = Settings.load(environ={}, preset=name)
    told = [warning for warning in settings.warnings if RPCS in warning]
    needed = settings.tasks.max_concurrent_tasks + settings.tasks.max_queued_tasks
    assert len(told) == (settings.server.max_concurrent_rpcs < needed)


@pytest.mark.parametrize(
    ("environ", "why"),
    [
        ({"DIGITALKIN_INSPECTOR_PORT": "1"}, "DIGITALKIN_INSPECTOR is false"),
        ({"DIGITALKIN_ASYNCIO_INSPECTOR_PORT": "1"}, "DIGITALKIN_INSPECTOR is false"),
        ({"DIGITALKIN_INSPECTOR_ACTIONS": "true"}, "DIGITALKIN_INSPECTOR is false"),
        ({"DIGITALKIN_METRICS_HOST": "::"}, "DIGITALKIN_METRICS_PORT is not set"),
        ({"DIGITALKIN_TRACES_SAMPLE": "0.5"}, "DIGITALKIN_TRACES_ENDPOINT is not set"),
        ({"DIGITALKIN_PROFILE_OUTPUT_DIR": "out"}, "DIGITALKIN_PROFILER is none"),
        ({"DIGITALKIN_LOG_DIR": "/x", "DIGITALKIN_LOG_FILE": "/y/z.log"}, "DIGITALKIN_LOG_FILE is /y/z.log"),
    ],
    ids=str,
)
def test_a_variable_without_effect_is_told_and_shown(environ: dict[str, str], why: str) -> None:
    settings = Settings.load(environ=environ)
    (warning,) = settings.warnings
    assert warning.endswith(f" is set but has no effect: {why}.")
    assert f"no effect, {why}" in settings.notes()[warning.split()[0]]


@pytest.mark.parametrize("row", NOT_USED, ids=lambda row: row.names[0])
def test_a_variable_of_the_existing_sdk_that_means_nothing_here_is_answered(row: NotUsed) -> None:
    (first,) = warnings_of(**{row.names[0]: "sync"})
    assert first == f"{row.names[0]} is set but not used: {row.why}."
    (together,) = warnings_of(**dict.fromkeys(row.names, "1"))
    assert together.startswith(", ".join(row.names))
    assert together.count(row.why) == 1
    if row.unless:
        assert warnings_of(**dict.fromkeys(row.names, row.unless.upper())) == ()


def test_a_name_is_read_or_not_used() -> None:
    read = {name for row in all_variables() for name in row.names}
    assert not read & {name for row in NOT_USED for name in row.names}


# Every name that the existing SDK reads beside those of the guide's table.
THEIRS = """
    DIGITALKIN_QUEUE_SLOT_TIMEOUT DIGITALKIN_SETUP_CACHE_TTL DIGITALKIN_GRPC_QUERY_TIMEOUT
    DIGITALKIN_FILE_HISTORY_FLUSH_THRESHOLD DIGITALKIN_LOG_LEVEL DIGITALKIN_LOG_FILE DIGITALKIN_FILE_LOG_LEVEL
    SERVICE_MODE SERVER_MAX_CONCURRENT_RPCS SERVER_THREAD_POOL_WORKERS SERVER_MAX_WORKERS SERVER_REFLECTION
    SERVER_HEALTH_CHECK SERVER_CHANNEL_HOST SERVER_CHANNEL_PORT SERVER_CHANNEL_ADVERTISE_HOST
    SERVER_CHANNEL_COMMUNICATION_MODE SERVER_CHANNEL_SECURITY SERVER_CHANNEL_CREDENTIALS
    SERVER_CHANNEL_CREDENTIALS__KEY_PATH SERVER_CHANNEL_CREDENTIALS__CERT_PATH
    SERVER_CHANNEL_CREDENTIALS__ROOT_CERT_PATH SERVER_CHANNEL_MTLS SERVER_CHANNEL_DATABASE_URL SERVER_GRPC_COMPRESSION
    SERVER_GRPC_OPTIONS_KEEPALIVE_TIME SERVER_GRPC_OPTIONS_KEEPALIVE_TIMEOUT SERVER_GRPC_OPTIONS_MIN_PING_INTERVAL
    SERVER_GRPC_OPTIONS_MAX_RECEIVE_MESSAGE_LENGTH SERVER_GRPC_OPTIONS_MAX_SEND_MESSAGE_LENGTH
    SERVER_GRPC_OPTIONS_MAX_PINGS_WITHOUT_DATA SERVER_GRPC_OPTIONS_KEEPALIVE_PERMIT_WITHOUT_CALLS SERVER_CHANNEL
    SERVER_GRPC SERVER_NAME DIGITALKIN_RSTREAM_TIMEOUT DIGITALKIN_RSTREAM_MAX_TIMEOUTS DIGITALKIN_RSTREAM_MAX_RETRIES
    DIGITALKIN_RSTREAM_INITIAL_CREDIT DIGITALKIN_RSTREAM_QUEUE_SIZE DIGITALKIN_RSTREAM_BATCH_DELAY
    DIGITALKIN_RSTREAM_CONTEXT_SWITCH DIGITALKIN_ORPHAN_SESSION_TIMEOUT DIGITALKIN_ORPHAN_CHECK_INTERVAL
    DIGITALKIN_TASKIQ_PREFETCH DIGITALKIN_TASKIQ_RESULT_BACKEND_URL RABBITMQ_RSTREAM_HOST RABBITMQ_RSTREAM_PORT
    RABBITMQ_RSTREAM_USERNAME RABBITMQ_RSTREAM_PASSWORD RABBITMQ_RSTREAM_SSL RABBITMQ_RSTREAM_SSL_VERIFY
    RABBITMQ_BROKER_HOST RABBITMQ_BROKER_PORT RABBITMQ_BROKER_USERNAME RABBITMQ_BROKER_PASSWORD RABBITMQ_BROKER_SCHEME
    DIGITALKIN_ASYNCIO_INSPECTOR DIGITALKIN_ASYNCIO_INSPECTOR_PORT
""".split()


@pytest.mark.parametrize("name", THEIRS)
def test_every_other_variable_of_the_existing_sdk_is_read_or_answered(name: str) -> None:
    read = {name for row in all_variables() for name in row.names} | {"SERVER_CHANNEL_CREDENTIALS"}
    assert name in read or any(name in warning for warning in warnings_of(**{name: "1"}))


def test_a_mistyped_name_of_the_server_gets_a_suggestion_too() -> None:
    assert warnings_of(SERVER_CHANEL_PORT="1") == (
        "SERVER_CHANEL_PORT is not a known variable; did you mean SERVER_CHANNEL_PORT?",
    )


def test_a_file_s_names_are_looked_at_as_well(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("DIGITALKIN_MAX_QUEUED_TASK=1\n")
    (warning,) = Settings.load(environ={}, env_file=file).warnings
    assert "did you mean DIGITALKIN_MAX_QUEUED_TASKS?" in warning
