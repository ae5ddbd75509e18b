"""Every variable refuses what it cannot use: one line that names variable, value and remedy, and exit code 3."""

import pytest
from tests.cli.processes import dk_trio, here

from dk_trio.settings import all_variables

VARIABLES = {row.name: row for row in all_variables()}

WEEK = "604801"
WORD = "soon"

# Variable -> texts: of a wrong type, below the range, above it. Those that take any text, such as paths, are in ANY.
BAD: dict[str, tuple[str, ...]] = {
    "DIGITALKIN_PRESET": ("huge", "4"),
    "SERVER_CHANNEL_HOST": ("a b", "http://x", "[]"),
    "SERVER_CHANNEL_PORT": ("http", "-1", "65536", "80.0"),
    "SERVER_CHANNEL_ADVERTISE_HOST": ("a/b", " "),
    "DIGITALKIN_HEARTBEAT_INTERVAL": (WORD, "0", WEEK),
    "DIGITALKIN_MAX_CONCURRENT_RPCS": (WORD, "0", "10000001", "1e3"),
    "DIGITALKIN_THREAD_POOL_WORKERS": (WORD, "0", "1001"),
    "DIGITALKIN_WORKERS": (WORD, "0", "257", "auto"),
    "DIGITALKIN_GRACE": (WORD, "-1", WEEK, "10s"),
    "SERVER_REFLECTION": ("maybe", "2"),
    "SERVER_HEALTH_CHECK": ("maybe", "-1"),
    "SERVER_GRPC_COMPRESSION": ("zstd", "true"),
    "SERVER_GRPC_OPTIONS_KEEPALIVE_TIME": ("120s", "0", "86400001", "0.5"),
    "SERVER_GRPC_OPTIONS_KEEPALIVE_TIMEOUT": (WORD, "0", "3600001"),
    "SERVER_GRPC_OPTIONS_MIN_PING_INTERVAL": (WORD, "-1", "3600001"),
    "SERVER_GRPC_OPTIONS_MAX_RECEIVE_MESSAGE_LENGTH": ("100MB", "1023", "2147483648", "-1"),
    "SERVER_GRPC_OPTIONS_MAX_SEND_MESSAGE_LENGTH": ("100MB", "1023", "2147483648", "-1"),
    "DIGITALKIN_MAX_CONCURRENT_TASKS": (WORD, "0", "1000001", "1e3"),
    "DIGITALKIN_MAX_QUEUED_TASKS": (WORD, "-1", "1000001"),
    "DIGITALKIN_ADMISSION_TIMEOUT": ("5s", "-1", WEEK, "nan"),
    "DIGITALKIN_TASK_WAIT_TIMEOUT": (WORD, "-1", "inf"),
    "DIGITALKIN_QUEUE_SLOT_TIMEOUT": (WORD, "0", WEEK),
    "DIGITALKIN_BACKPRESSURE_STRATEGY": ("wait", "drop_oldest"),
    "DIGITALKIN_BACKPRESSURE_TIMEOUT": (WORD, "-0.5", WEEK),
    "DIGITALKIN_COMPLETION_TIMEOUT": (WORD, "0", WEEK),
    "DIGITALKIN_CLEANUP_GRACE": (WORD, "-1", WEEK),
    "DIGITALKIN_STREAM_DRAIN_TIMEOUT": (WORD, "0", WEEK),
    "DIGITALKIN_SETUP_CACHE_MAX": (WORD, "-1", "1000001"),
    "DIGITALKIN_SETUP_CACHE_TTL": (WORD, "-1", WEEK),
    "DIGITALKIN_CONFIG_SETUP_TIMEOUT": (WORD, "-inf", WEEK),
    "DIGITALKIN_EXECUTION_TIMEOUT": (WORD, "0", WEEK),
    "SERVICE_MODE": ("cloud", "1"),
    "DIGITALKIN_PROVIDER": ("localhost", "localhost:0", "::1:50051", ":50051"),
    "DIGITALKIN_TOOL_RESOLVE_TIMEOUT": (WORD, "0", WEEK),
    "DIGITALKIN_FETCH_TIMEOUT": (WORD, "0", WEEK),
    "DIGITALKIN_CHAT_HISTORY_FLUSH_THRESHOLD": (WORD, "0", "1000001"),
    "DIGITALKIN_FILE_HISTORY_FLUSH_THRESHOLD": (WORD, "0", "1000001"),
    "DIGITALKIN_TIMEZONE": ("Europe/Atlantis", "../../etc/passwd", "+02:00"),
    "DIGITALKIN_GRPC_TIMEOUT": ("30s", "0", WEEK),
    "DIGITALKIN_SIGNAL_MAX_BATCH_SIZE": (WORD, "0", "10001"),
    "DIGITALKIN_SIGNAL_FLUSH_INTERVAL": (WORD, "-1", WEEK),
    "DIGITALKIN_SIGNAL_SEND_RETRIES": (WORD, "-1", "101"),
    "DIGITALKIN_SIGNAL_SEND_BACKOFF_MS": ("100ms", "-1", "3600001"),
    "DIGITALKIN_POLL_TIMEOUT": ("nan", "0", WEEK),
    "DIGITALKIN_SIGNAL_INITIAL_POLL_INTERVAL": (WORD, "0", WEEK),
    "DIGITALKIN_SIGNAL_POLL_INTERVAL": (WORD, "0", WEEK),
    "DIGITALKIN_SIGNAL_QUEUE_SIZE": (WORD, "0", "1000001"),
    "DIGITALKIN_GRPC_QUERY_MAX_RETRIES": (WORD, "-1", "101"),
    "DIGITALKIN_GRPC_QUERY_BACKOFF_BASE_MS": ("50ms", "-1", "inf"),
    "DIGITALKIN_GRPC_QUERY_TIMEOUT": (WORD, "0", WEEK),
    "DIGITALKIN_GRPC_RETRY_MAX_ATTEMPTS": ("2.5", "0", "11"),
    "DIGITALKIN_GRPC_RETRY_INITIAL_BACKOFF": ("0.1", "100ms", "0s", "3601s", "-1s"),
    "DIGITALKIN_GRPC_RETRY_MAX_BACKOFF": ("10", "10 s", "0s", "3601s"),
    "DIGITALKIN_GRPC_RETRY_BACKOFF_MULTIPLIER": ("nan", "0.9", "101"),
    "DIGITALKIN_GRPC_DNS_RESOLUTION_MS": ("0.5s", "-1", "3600001"),
    "DIGITALKIN_GRPC_INITIAL_RECONNECT_MS": ("1s", "0", "3600001"),
    "DIGITALKIN_GRPC_MAX_RECONNECT_MS": ("10s", "0", "3600001"),
    "DIGITALKIN_GRPC_MIN_RECONNECT_MS": ("0.5", "0", "3600001"),
    "DIGITALKIN_GRPC_KEEPALIVE_TIME_MS": ("60s", "0", "86400001"),
    "DIGITALKIN_GRPC_KEEPALIVE_TIMEOUT_MS": ("20s", "0", "3600001"),
    "DIGITALKIN_GRPC_MIN_PING_INTERVAL_MS": ("30s", "-1", "3600001"),
    "SERVER_CHANNEL_SECURITY": ("tls", "true"),
    "DIGITALKIN_TLS_RELOAD_INTERVAL": (WORD, "0", "86401"),
    "DIGITALKIN_AUTH_TOKEN": ("with space", "schlüssel", " "),
    "DIGITALKIN_MAX_CONNECTIONS_PER_CLIENT": (WORD, "0", "1000001"),
    "DIGITALKIN_MAX_RPCS_PER_CLIENT": (WORD, "0", "1000001"),
    "DIGITALKIN_CLIENT_SECURITY": ("tls", "true"),
    "DIGITALKIN_CLIENT_TOKEN": ("with space", "schlüssel"),
    "DIGITALKIN_CLIENT_TOKEN_PLAINTEXT": ("maybe", "2"),
    "DIGITALKIN_LOG_LEVEL": ("loud", "10"),
    "DIGITALKIN_LOG_FORMAT": ("xml", "true"),
    "DIGITALKIN_FILE_LOG_LEVEL": ("loud", "10"),
    "DIGITALKIN_ACCESS_LOG": ("maybe", "2"),
    "DIGITALKIN_METRICS_PORT": ("http", "-1", "65536"),
    "DIGITALKIN_METRICS_HOST": ("a b",),
    "DIGITALKIN_TRACES_ENDPOINT": ("127.0.0.1:4318", "ftp://x", "http://"),
    "DIGITALKIN_TRACES_SAMPLE": ("all", "-0.1", "1.1", "nan"),
    "DIGITALKIN_INSPECTOR": ("maybe", "2"),
    "DIGITALKIN_INSPECTOR_PORT": ("http", "-1", "65536"),
    "DIGITALKIN_INSPECTOR_HOST": ("a b",),
    "DIGITALKIN_INSPECTOR_TOKEN": ("with space", "schlüssel", "\t"),
    "DIGITALKIN_INSPECTOR_ACTIONS": ("maybe", "2"),
    "DIGITALKIN_STALL_THRESHOLD": (WORD, "-1", "3601"),
    "DIGITALKIN_PROFILER": ("cprofile", "true"),
}
ANY = {
    "DIGITALKIN_MODULE_ID",
    "DIGITALKIN_DATA_DIR",
    "DIGITALKIN_TLS_CERT",
    "DIGITALKIN_TLS_KEY",
    "DIGITALKIN_TLS_CLIENT_CA",
    "DIGITALKIN_AUTH_TOKENS_FILE",
    "DIGITALKIN_CLIENT_CA",
    "DIGITALKIN_CLIENT_CERT",
    "DIGITALKIN_CLIENT_KEY",
    "DIGITALKIN_LOG_DIR",
    "DIGITALKIN_LOG_FILE",
    "DIGITALKIN_PROFILE_OUTPUT_DIR",
}
"""Whether a file is there is seen when it is opened, and told then."""

FILE = "/tls/file.pem"
CREDENTIALS = "SERVER_CHANNEL_CREDENTIALS"

CONTRADICTIONS: tuple[dict[str, str], ...] = (
    {"DIGITALKIN_GRPC_RETRY_INITIAL_BACKOFF": "5s", "DIGITALKIN_GRPC_RETRY_MAX_BACKOFF": "3s"},
    {"DIGITALKIN_GRPC_MIN_RECONNECT_MS": "3000", "DIGITALKIN_GRPC_MAX_RECONNECT_MS": "2000"},
    {"DIGITALKIN_SIGNAL_INITIAL_POLL_INTERVAL": "2", "DIGITALKIN_SIGNAL_POLL_INTERVAL": "1"},
    {"DIGITALKIN_TLS_CERT": FILE},
    {"DIGITALKIN_TLS_KEY": FILE},
    {"DIGITALKIN_TLS_CLIENT_CA": FILE},
    {"DIGITALKIN_CLIENT_CERT": FILE},
    {"DIGITALKIN_CLIENT_KEY": FILE},
    {"SERVER_CHANNEL_SECURITY": "secure"},
    {"DIGITALKIN_CLIENT_SECURITY": "insecure", "DIGITALKIN_CLIENT_CA": FILE},
    {"DIGITALKIN_INSPECTOR_HOST": "0.0.0.0", "DIGITALKIN_INSPECTOR": "true"},
    {"DIGITALKIN_METRICS_PORT": "50055"},
    {"DIGITALKIN_METRICS_PORT": "50055", "DIGITALKIN_METRICS_HOST": "0.0.0.0"},
    {"DIGITALKIN_METRICS_PORT": "8766", "DIGITALKIN_INSPECTOR": "true", "DIGITALKIN_WORKERS": "2"},
    {CREDENTIALS: "cert.pem"},
    {CREDENTIALS: '["cert.pem"]'},
    {CREDENTIALS: '{"cert": "cert.pem"}'},
    {CREDENTIALS: '{"cert_path": 1}'},
    {CREDENTIALS: '{"cert_path": "/tls/cert.pem"}'},
)


def test_the_table_has_every_variable() -> None:
    assert BAD.keys() | ANY == VARIABLES.keys()
    assert not BAD.keys() & ANY


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in BAD.items() for text in texts])
def test_a_bad_value_is_one_clear_line_and_exit_code_3(name: str, text: str) -> None:
    row = VARIABLES[name]
    done = here("config", **{name: text})
    assert (done.returncode, done.stdout) == (3, b"")
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith(f"dk-trio: {name}={'***' if row.secret else repr(text)} ")
    if text != "drop_oldest":  # which has a reason of its own
        assert f"it needs {row.expects}. Unset it for the default, {row.default_text()}." in line


@pytest.mark.parametrize("environ", CONTRADICTIONS, ids=" ".join)
def test_a_contradiction_is_one_clear_line_and_exit_code_3(environ: dict[str, str]) -> None:
    done = here("config", **environ)
    assert (done.returncode, done.stdout) == (3, b"")
    (line,) = done.stderr.decode().splitlines()
    assert next(iter(environ)).removeprefix("SERVER_CHANNEL_CREDENTIALS") in line


def test_all_that_is_wrong_is_told_at_once() -> None:
    wrong = {"SERVER_CHANNEL_PORT": "http", "DIGITALKIN_GRACE": "-1", "DIGITALKIN_TLS_KEY": FILE} | CONTRADICTIONS[0]
    done = here("config", **wrong)
    first, *lines = done.stderr.decode().splitlines()
    assert (done.returncode, first) == (3, "dk-trio: 4 settings cannot be used.")
    for name in wrong.keys() - {"DIGITALKIN_GRPC_RETRY_MAX_BACKOFF"}:
        assert sum(line.startswith(f"  {name}") for line in lines) == 1
    assert len(lines) == 4


async def test_a_server_does_not_start_with_a_bad_value() -> None:
    done = await dk_trio("serve", "absent.py", SERVER_CHANNEL_PORT="http", DIGITALKIN_GRACE="never")
    assert (done.returncode, done.stdout) == (3, b"")
    assert done.stderr.decode().splitlines()[0] == "dk-trio: 2 settings cannot be used."
