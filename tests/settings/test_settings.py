"""The environment is read once, checked, and shown with its sources."""

import os
from pathlib import Path

import pytest

from dk_trio.errors import SettingError
from dk_trio.settings import (
    ChannelSettings,
    LifecycleSettings,
    QuerySettings,
    ServicesSettings,
    Settings,
    SignalSettings,
    TaskSettings,
    all_variables,
)


def read(**environ: str) -> Settings:
    return Settings.from_environment(environ)


def test_defaults_are_those_of_the_tuning_guide() -> None:
    settings = read()
    assert settings == Settings(sources=settings.sources)
    assert settings.server.max_concurrent_rpcs == (os.cpu_count() or 1) * 200
    tasks = settings.tasks
    assert (tasks.max_concurrent_tasks, tasks.max_queued_tasks, tasks.admission_timeout) == (100, 0, 5)
    assert (tasks.task_wait_timeout, tasks.queue_slot_timeout) == (30, None)
    assert (tasks.backpressure_strategy, tasks.backpressure_timeout) == ("block", 300)
    lifecycle = settings.lifecycle
    assert (lifecycle.completion_timeout, lifecycle.stream_drain_timeout) == (300, 300)
    assert lifecycle.cleanup_grace == 10
    assert (lifecycle.setup_cache_max, lifecycle.setup_cache_ttl) == (100, 600)
    assert (lifecycle.config_setup_timeout, lifecycle.execution_timeout) == (30, None)
    assert settings.warnings == ()
    services = settings.services
    assert (services.mode, services.data_dir, services.timezone) == ("local", Path(".dk-trio"), "Europe/Paris")
    assert (services.tool_resolve_timeout, services.fetch_timeout) == (10, 10)
    assert (services.chat_history_flush_threshold, services.file_history_flush_threshold) == (10, 10)
    signals = settings.signals
    assert (signals.send_timeout, signals.max_batch_size, signals.flush_interval) == (30, 50, 0.1)
    assert (signals.send_retries, signals.send_backoff) == (3, 0.1)
    assert (signals.poll_timeout, signals.initial_poll_interval, signals.poll_interval) == (1, 0.1, 1)
    assert signals.queue_size == 512
    assert (settings.query.max_retries, settings.query.backoff_base, settings.query.timeout) == (2, 0.05, 30)
    channel = settings.channel
    assert (channel.retry_max_attempts, channel.retry_initial_backoff, channel.retry_max_backoff) == (5, 0.1, 10)
    assert channel.retry_backoff_multiplier == 2
    assert (channel.keepalive_time, channel.keepalive_timeout, channel.min_ping_interval) == (60, 20, 30)
    assert channel.dns_resolution_interval == 0.5
    assert (channel.initial_reconnect_backoff, channel.max_reconnect_backoff) == (1, 10)
    assert channel.min_reconnect_backoff == 0.5


def test_every_variable_is_read_in_its_unit() -> None:
    settings = read(
        SERVER_CHANNEL_HOST="[::]",
        SERVER_CHANNEL_PORT="0",
        SERVER_CHANNEL_ADVERTISE_HOST="module.example",
        DIGITALKIN_HEARTBEAT_INTERVAL="2.5",
        DIGITALKIN_MAX_CONCURRENT_RPCS="7",
        DIGITALKIN_MODULE_ID="modules:mine",
        DIGITALKIN_MAX_CONCURRENT_TASKS="5",
        DIGITALKIN_MAX_QUEUED_TASKS="2",
        DIGITALKIN_ADMISSION_TIMEOUT="3.5",
        DIGITALKIN_TASK_WAIT_TIMEOUT="40",
        DIGITALKIN_QUEUE_SLOT_TIMEOUT="600",
        DIGITALKIN_BACKPRESSURE_STRATEGY="reject",
        DIGITALKIN_BACKPRESSURE_TIMEOUT="1e2",
        DIGITALKIN_COMPLETION_TIMEOUT="180.0",
        DIGITALKIN_CLEANUP_GRACE="7",
        DIGITALKIN_STREAM_DRAIN_TIMEOUT="120.0",
        DIGITALKIN_SETUP_CACHE_MAX="200",
        DIGITALKIN_SETUP_CACHE_TTL="0",
        DIGITALKIN_CONFIG_SETUP_TIMEOUT="15.0",
        DIGITALKIN_EXECUTION_TIMEOUT="3600",
        SERVICE_MODE="REMOTE",
        DIGITALKIN_PROVIDER="[::1]:6000",
        DIGITALKIN_DATA_DIR=":memory:",
        DIGITALKIN_TOOL_RESOLVE_TIMEOUT="20",
        DIGITALKIN_FETCH_TIMEOUT="2",
        DIGITALKIN_CHAT_HISTORY_FLUSH_THRESHOLD="5",
        DIGITALKIN_FILE_HISTORY_FLUSH_THRESHOLD="6",
        DIGITALKIN_TIMEZONE="UTC",
        DIGITALKIN_GRPC_TIMEOUT="60",
        DIGITALKIN_SIGNAL_MAX_BATCH_SIZE="100",
        DIGITALKIN_SIGNAL_FLUSH_INTERVAL="0.2",
        DIGITALKIN_SIGNAL_SEND_RETRIES="5",
        DIGITALKIN_SIGNAL_SEND_BACKOFF_MS="0.5",
        DIGITALKIN_POLL_TIMEOUT="2",
        DIGITALKIN_SIGNAL_INITIAL_POLL_INTERVAL="0.3",
        DIGITALKIN_SIGNAL_POLL_INTERVAL="3",
        DIGITALKIN_SIGNAL_QUEUE_SIZE="1024",
        DIGITALKIN_GRPC_QUERY_MAX_RETRIES="1",
        DIGITALKIN_GRPC_QUERY_BACKOFF_BASE_MS="25",
        DIGITALKIN_GRPC_QUERY_TIMEOUT="7",
        DIGITALKIN_GRPC_RETRY_MAX_ATTEMPTS="3",
        DIGITALKIN_GRPC_RETRY_INITIAL_BACKOFF="0.25s",
        DIGITALKIN_GRPC_RETRY_MAX_BACKOFF="3s",
        DIGITALKIN_GRPC_RETRY_BACKOFF_MULTIPLIER="1.5",
        DIGITALKIN_GRPC_DNS_RESOLUTION_MS="250",
        DIGITALKIN_GRPC_INITIAL_RECONNECT_MS="2000",
        DIGITALKIN_GRPC_MAX_RECONNECT_MS="5000",
        DIGITALKIN_GRPC_MIN_RECONNECT_MS="100",
        DIGITALKIN_GRPC_KEEPALIVE_TIME_MS="30000",
        DIGITALKIN_GRPC_KEEPALIVE_TIMEOUT_MS="10000",
        DIGITALKIN_GRPC_MIN_PING_INTERVAL_MS="15000",
    )
    assert (settings.server.host, settings.server.port, settings.server.max_concurrent_rpcs) == ("::", 0, 7)
    assert (settings.server.advertise_host, settings.server.heartbeat_interval) == ("module.example", 2.5)
    assert settings.module.module_id == "modules:mine"
    assert settings.tasks == TaskSettings(
        max_concurrent_tasks=5,
        max_queued_tasks=2,
        admission_timeout=3.5,
        task_wait_timeout=40,
        queue_slot_timeout=600,
        backpressure_strategy="reject",
        backpressure_timeout=100,
    )
    assert settings.lifecycle == LifecycleSettings(
        completion_timeout=180,
        cleanup_grace=7,
        stream_drain_timeout=120,
        setup_cache_max=200,
        setup_cache_ttl=0,
        config_setup_timeout=15,
        execution_timeout=3600,
    )
    assert settings.services == ServicesSettings(
        mode="remote",
        provider="[::1]:6000",
        data_dir=None,
        tool_resolve_timeout=20,
        fetch_timeout=2,
        chat_history_flush_threshold=5,
        file_history_flush_threshold=6,
        timezone="UTC",
    )
    assert settings.signals == SignalSettings(
        send_timeout=60,
        max_batch_size=100,
        flush_interval=0.2,
        send_retries=5,
        send_backoff=0.0005,
        poll_timeout=2,
        initial_poll_interval=0.3,
        poll_interval=3,
        queue_size=1024,
    )
    assert settings.query == QuerySettings(max_retries=1, backoff_base=0.025, timeout=7)
    assert settings.channel == ChannelSettings(
        retry_max_attempts=3,
        retry_initial_backoff=0.25,
        retry_max_backoff=3,
        retry_backoff_multiplier=1.5,
        dns_resolution_interval=0.25,
        initial_reconnect_backoff=2,
        max_reconnect_backoff=5,
        min_reconnect_backoff=0.1,
        keepalive_time=30,
        keepalive_timeout=10,
        min_ping_interval=15,
    )


def test_a_name_of_the_existing_sdk_is_a_fallback() -> None:
    assert read(SERVER_MAX_CONCURRENT_RPCS="5").server.max_concurrent_rpcs == 5
    both = read(SERVER_MAX_CONCURRENT_RPCS="5", DIGITALKIN_MAX_CONCURRENT_RPCS="6")
    assert both.server.max_concurrent_rpcs == 6


def test_an_empty_variable_is_unset() -> None:
    assert read(SERVER_CHANNEL_PORT="").server.port == 50055


@pytest.mark.parametrize(
    ("name", "value", "expects"),
    [
        ("SERVER_CHANNEL_PORT", "65536", "a port number"),
        ("SERVER_CHANNEL_PORT", "http", "a port number"),
        ("SERVER_CHANNEL_HOST", "a b", "a host name"),
        ("DIGITALKIN_MAX_CONCURRENT_RPCS", "0", "a whole number of RPCs"),
        ("DIGITALKIN_MAX_CONCURRENT_TASKS", "0", "a whole number of tasks from 1"),
        ("DIGITALKIN_MAX_CONCURRENT_TASKS", "1e3", "a whole number of tasks from 1"),
        ("DIGITALKIN_MAX_QUEUED_TASKS", "-1", "a whole number of tasks from 0 (no queue)"),
        ("DIGITALKIN_ADMISSION_TIMEOUT", "nan", "a number of seconds from 0 to 604800"),
        ("DIGITALKIN_ADMISSION_TIMEOUT", "5s", "a number of seconds from 0 to 604800"),
        ("DIGITALKIN_TASK_WAIT_TIMEOUT", "inf", "a number of seconds from 0 to 604800"),
        ("DIGITALKIN_QUEUE_SLOT_TIMEOUT", "0", "a number of seconds from 0.001 to 604800"),
        ("DIGITALKIN_BACKPRESSURE_STRATEGY", "drop_newest", "block or reject"),
        ("DIGITALKIN_BACKPRESSURE_TIMEOUT", "-0.5", "a number of seconds from 0 to 604800"),
        ("DIGITALKIN_COMPLETION_TIMEOUT", "0", "a number of seconds from 0.001 to 604800"),
        ("DIGITALKIN_STREAM_DRAIN_TIMEOUT", "604801", "a number of seconds from 0.001 to 604800"),
        ("DIGITALKIN_SETUP_CACHE_MAX", "-1", "a whole number of setups from 0 (keep none)"),
        ("DIGITALKIN_SETUP_CACHE_TTL", "ten", "a number of seconds from 0 to 604800"),
        ("DIGITALKIN_CONFIG_SETUP_TIMEOUT", "-inf", "a number of seconds from 0.001 to 604800"),
        ("DIGITALKIN_EXECUTION_TIMEOUT", "0", "a number of seconds from 0.001 to 604800"),
        ("SERVICE_MODE", "cloud", "local or remote"),
        ("DIGITALKIN_TIMEZONE", "Europe/Atlantis", "a time zone of the IANA database"),
        ("DIGITALKIN_TIMEZONE", "../../etc/passwd", "a time zone of the IANA database"),
        ("DIGITALKIN_CHAT_HISTORY_FLUSH_THRESHOLD", "0", "a whole number of messages from 1"),
        ("DIGITALKIN_TOOL_RESOLVE_TIMEOUT", "0", "a number of seconds from 0.001"),
        ("DIGITALKIN_PROVIDER", "localhost", "HOST:PORT"),
        ("DIGITALKIN_PROVIDER", "localhost:0", "HOST:PORT"),
        ("DIGITALKIN_PROVIDER", "::1:50051", "HOST:PORT"),
        ("DIGITALKIN_PROVIDER", ":50051", "HOST:PORT"),
        ("SERVER_CHANNEL_ADVERTISE_HOST", "a/b", "a host name"),
        ("DIGITALKIN_HEARTBEAT_INTERVAL", "0", "a number of seconds from 0.01"),
        ("DIGITALKIN_GRPC_TIMEOUT", "0", "a number of seconds from 0.001"),
        ("DIGITALKIN_SIGNAL_MAX_BATCH_SIZE", "0", "a whole number of signals from 1 to 10000"),
        ("DIGITALKIN_SIGNAL_FLUSH_INTERVAL", "-1", "a number of seconds from 0"),
        ("DIGITALKIN_SIGNAL_SEND_RETRIES", "101", "a whole number of retries from 0 to 100"),
        ("DIGITALKIN_SIGNAL_SEND_BACKOFF_MS", "100ms", "a number of milliseconds"),
        ("DIGITALKIN_POLL_TIMEOUT", "nan", "a number of seconds"),
        ("DIGITALKIN_SIGNAL_QUEUE_SIZE", "0", "a whole number of signals from 1"),
        ("DIGITALKIN_GRPC_QUERY_MAX_RETRIES", "-1", "a whole number of retries from 0"),
        ("DIGITALKIN_GRPC_QUERY_BACKOFF_BASE_MS", "inf", "a number of milliseconds"),
        ("DIGITALKIN_GRPC_QUERY_TIMEOUT", "0", "a number of seconds from 0.001"),
        ("DIGITALKIN_GRPC_RETRY_MAX_ATTEMPTS", "2.5", "a whole number of attempts"),
        ("DIGITALKIN_GRPC_RETRY_INITIAL_BACKOFF", "0.1", '"0.1s"'),
        ("DIGITALKIN_GRPC_RETRY_INITIAL_BACKOFF", "100ms", '"0.1s"'),
        ("DIGITALKIN_GRPC_RETRY_BACKOFF_MULTIPLIER", "nan", "a number from 1 to 100"),
        ("DIGITALKIN_GRPC_KEEPALIVE_TIME_MS", "60s", "milliseconds"),
        ("DIGITALKIN_GRPC_KEEPALIVE_TIME_MS", "-1", "milliseconds"),
    ],
)
def test_a_bad_value_names_variable_value_and_remedy(name: str, value: str, expects: str) -> None:
    with pytest.raises(SettingError) as caught:
        read(**{name: value})
    text = caught.value.text
    assert f"{name}={value!r}" in text
    assert expects in text
    assert "Unset it for the default" in text


@pytest.mark.parametrize(
    ("low", "high"),
    [
        ({"DIGITALKIN_GRPC_RETRY_INITIAL_BACKOFF": "5s"}, {"DIGITALKIN_GRPC_RETRY_MAX_BACKOFF": "3s"}),
        ({"DIGITALKIN_GRPC_MIN_RECONNECT_MS": "3000"}, {"DIGITALKIN_GRPC_MAX_RECONNECT_MS": "2000"}),
    ],
)
def test_values_that_contradict_each_other_are_refused(low: dict[str, str], high: dict[str, str]) -> None:
    with pytest.raises(SettingError) as caught:
        read(**low, **high)
    assert all(name in caught.value.text for name in low | high)


def test_the_report_shows_each_value_with_its_source() -> None:
    lines = read(SERVER_CHANNEL_PORT="1234").report().splitlines()
    assert len(lines) == len(all_variables())
    assert "SERVER_CHANNEL_PORT=1234 (environment)" in lines
    assert "DIGITALKIN_GRPC_RETRY_MAX_ATTEMPTS=5 (default)" in lines


def test_a_default_is_shown_in_the_unit_of_its_variable() -> None:
    lines = read().report().splitlines()
    assert "DIGITALKIN_GRPC_KEEPALIVE_TIME_MS=60000 (default)" in lines
    assert "DIGITALKIN_GRPC_RETRY_INITIAL_BACKOFF=0.1s (default)" in lines
    assert "DIGITALKIN_GRPC_RETRY_BACKOFF_MULTIPLIER=2 (default)" in lines
    for row in all_variables():  # what is shown can be written back
        if row.default() is not None:
            assert row.parse(row.name, row.default_text()) == row.default()


def test_a_mistyped_name_gets_a_suggestion() -> None:
    assert read(DIGITALKIN_GRPC_RETRY_MAX_ATEMPTS="3").warnings == (
        "DIGITALKIN_GRPC_RETRY_MAX_ATEMPTS is not a known variable; did you mean DIGITALKIN_GRPC_RETRY_MAX_ATTEMPTS?",
    )


def test_a_name_that_resembles_nothing_is_left_alone() -> None:
    assert read(DIGITALKIN_ACME_BANANA="1", PATH="/bin").warnings == ()


GUESSED = {row.name for row in all_variables() if row.name.startswith("DIGITALKIN_")}


@pytest.mark.parametrize("name", sorted(GUESSED))
def test_one_slip_of_the_finger_is_recognised(name: str) -> None:
    for at in range(len("DIGITALKIN_"), len(name)):
        mistyped = name[:at] + name[at + 1 :]
        assert any(name in warning for warning in read(**{mistyped: "1"}).warnings), mistyped
