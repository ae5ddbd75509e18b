"""The environment is read once, checked, and shown with its sources."""

import os
from pathlib import Path

import pytest

from dk_trio.settings import (
    ChannelSettings,
    LifecycleSettings,
    ObserveSettings,
    QuerySettings,
    SecuritySettings,
    ServerSettings,
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
    server = settings.server
    assert (server.host, server.port, server.workers, server.grace, server.preset) == ("127.0.0.1", 50055, 1, 10, None)
    assert server.thread_pool_workers == min(4, os.cpu_count() or 1)
    assert (server.reflection, server.health_check, server.compression) == (True, True, "none")
    assert (server.keepalive_time, server.keepalive_timeout, server.min_ping_interval) == (120, 20, 10)
    assert server.max_receive_message_bytes == server.max_send_message_bytes == 100 * 1024 * 1024
    security = settings.security
    assert not security.server_tls
    assert not security.client_tls
    assert (security.auth_token, security.auth_tokens_file, security.client_token) == (None, None, None)
    observe = settings.observe
    assert (observe.log_level, observe.log_format, observe.file_log_level) == ("info", "auto", "debug")
    assert (observe.log_dir, observe.log_file, observe.access_log) == (Path("/app/logs"), None, True)
    assert (observe.metrics_port, observe.traces_endpoint, observe.traces_sample) == (None, None, 1)
    assert (observe.inspector, observe.inspector_host, observe.inspector_port) == (False, "127.0.0.1", 8765)
    assert (observe.inspector_token, observe.inspector_actions, observe.stall_threshold) == (None, False, 1)
    assert (observe.profiler, observe.profile_output_dir) == ("none", Path("./profiles"))


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
        DIGITALKIN_PRESET="Small",
        DIGITALKIN_THREAD_POOL_WORKERS="3",
        DIGITALKIN_WORKERS="2",
        DIGITALKIN_GRACE="2.5",
        SERVER_REFLECTION="False",
        SERVER_HEALTH_CHECK="0",
        SERVER_GRPC_COMPRESSION="GZIP",
        SERVER_GRPC_OPTIONS_KEEPALIVE_TIME="60000",
        SERVER_GRPC_OPTIONS_KEEPALIVE_TIMEOUT="1500",
        SERVER_GRPC_OPTIONS_MIN_PING_INTERVAL="5000",
        SERVER_GRPC_OPTIONS_MAX_RECEIVE_MESSAGE_LENGTH="1048576",
        SERVER_GRPC_OPTIONS_MAX_SEND_MESSAGE_LENGTH="2097152",
        SERVER_CHANNEL_SECURITY="secure",
        DIGITALKIN_TLS_CERT="/tls/cert.pem",
        DIGITALKIN_TLS_KEY="~/key.pem",
        DIGITALKIN_TLS_CLIENT_CA="/tls/ca.pem",
        DIGITALKIN_TLS_RELOAD_INTERVAL="0.5",
        DIGITALKIN_AUTH_TOKEN="abc",
        DIGITALKIN_AUTH_TOKENS_FILE="/tls/tokens",
        DIGITALKIN_MAX_CONNECTIONS_PER_CLIENT="4",
        DIGITALKIN_MAX_RPCS_PER_CLIENT="5",
        DIGITALKIN_CLIENT_SECURITY="Secure",
        DIGITALKIN_CLIENT_CA="/tls/their_ca.pem",
        DIGITALKIN_CLIENT_CERT="/tls/our_cert.pem",
        DIGITALKIN_CLIENT_KEY="/tls/our_key.pem",
        DIGITALKIN_CLIENT_TOKEN="def",
        DIGITALKIN_CLIENT_TOKEN_PLAINTEXT="true",
        DIGITALKIN_LOG_LEVEL="WARNING",
        DIGITALKIN_LOG_FORMAT="json",
        DIGITALKIN_LOG_DIR="logs",
        DIGITALKIN_LOG_FILE="logs/mine.log",
        DIGITALKIN_FILE_LOG_LEVEL="error",
        DIGITALKIN_ACCESS_LOG="no",
        DIGITALKIN_METRICS_PORT="0",
        DIGITALKIN_METRICS_HOST="[::]",
        DIGITALKIN_TRACES_ENDPOINT="http://collector:4318",
        DIGITALKIN_TRACES_SAMPLE="0.25",
        DIGITALKIN_INSPECTOR="yes",
        DIGITALKIN_INSPECTOR_PORT="9000",
        DIGITALKIN_INSPECTOR_HOST="0.0.0.0",
        DIGITALKIN_INSPECTOR_TOKEN="ghi",
        DIGITALKIN_INSPECTOR_ACTIONS="on",
        DIGITALKIN_STALL_THRESHOLD="0",
        DIGITALKIN_PROFILER="Yappi",
        DIGITALKIN_PROFILE_OUTPUT_DIR="/var/profiles",
    )
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
    assert settings.server == ServerSettings(
        preset="small",
        host="::",
        port=0,
        advertise_host="module.example",
        heartbeat_interval=2.5,
        max_concurrent_rpcs=7,
        thread_pool_workers=3,
        workers=2,
        grace=2.5,
        reflection=False,
        health_check=False,
        compression="gzip",
        keepalive_time=60,
        keepalive_timeout=1.5,
        min_ping_interval=5,
        max_receive_message_bytes=1_048_576,
        max_send_message_bytes=2_097_152,
    )
    assert settings.security == SecuritySettings(
        server_security="secure",
        tls_cert=Path("/tls/cert.pem"),
        tls_key=Path("~/key.pem").expanduser(),
        tls_client_ca=Path("/tls/ca.pem"),
        tls_reload_interval=0.5,
        auth_token="abc",
        auth_tokens_file=Path("/tls/tokens"),
        max_connections_per_client=4,
        max_rpcs_per_client=5,
        client_security="secure",
        client_ca=Path("/tls/their_ca.pem"),
        client_cert=Path("/tls/our_cert.pem"),
        client_key=Path("/tls/our_key.pem"),
        client_token="def",
        client_token_plaintext=True,
    )
    assert settings.observe == ObserveSettings(
        log_level="warning",
        log_format="json",
        log_dir=Path("logs"),
        log_file=Path("logs/mine.log"),
        file_log_level="error",
        access_log=False,
        metrics_port=0,
        metrics_host="::",
        traces_endpoint="http://collector:4318",
        traces_sample=0.25,
        inspector=True,
        inspector_port=9000,
        inspector_host="0.0.0.0",
        inspector_token="ghi",
        inspector_actions=True,
        stall_threshold=0,
        profiler="yappi",
        profile_output_dir=Path("/var/profiles"),
    )
    assert {row.variable.name for row in settings.sources if row.origin == "default"} == set()


def test_a_name_of_the_existing_sdk_is_a_fallback() -> None:
    assert read(SERVER_MAX_CONCURRENT_RPCS="5").server.max_concurrent_rpcs == 5
    both = read(SERVER_MAX_CONCURRENT_RPCS="5", DIGITALKIN_MAX_CONCURRENT_RPCS="6")
    assert both.server.max_concurrent_rpcs == 6


def test_an_empty_variable_is_unset() -> None:
    assert read(SERVER_CHANNEL_PORT="").server.port == 50055


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
