"""What a `client_config` may say, and how it is refused."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from math import inf
from pathlib import Path
from typing import Any

import pytest
from grpclib.const import Status

from dk_trio.errors import ConfigurationError
from dk_trio.services.client_config import ClientConfig, parse_client_config
from dk_trio.services.provider_clients import provider_options
from dk_trio.services.query import PROVIDER_THROTTLING
from dk_trio.settings import ChannelSettings

DEFAULTS = provider_options(ChannelSettings())


class Security(Enum):
    SECURE = "secure"
    INSECURE = "insecure"


class Compression(IntEnum):
    NoCompression = 0
    Deflate = 1
    Gzip = 2


@dataclass
class ExistingPolicy:
    """As the existing SDK has it."""

    max_attempts: int = 3
    initial_backoff: str = "0.5s"
    max_backoff: str = "7s"
    backoff_multiplier: float = 3.0
    retryable_status_codes: list[str] = field(default_factory=lambda: ["UNAVAILABLE"])


@dataclass
class ExistingConfig:
    """As the existing SDK has it."""

    host: str = "h"
    port: int = 50051
    mode: str = "sync"
    security: Security = Security.INSECURE
    credentials: Any = None
    retry_policy: ExistingPolicy = field(default_factory=ExistingPolicy)
    compression: Any = Compression.Gzip
    channel_options: list[tuple[str, Any]] = field(
        default_factory=lambda: [
            ("grpc.max_receive_message_length", 100 * 1024 * 1024),
            ("grpc.max_send_message_length", 100 * 1024 * 1024),
            ("grpc.dns_min_time_between_resolutions_ms", 700),
            ("grpc.initial_reconnect_backoff_ms", 2000),
            ("grpc.max_reconnect_backoff_ms", 20000),
            ("grpc.min_reconnect_backoff_ms", 600),
            ("grpc.keepalive_time_ms", 61000.0),
            ("grpc.keepalive_timeout_ms", 21000),
            ("grpc.keepalive_permit_without_calls", True),
            ("grpc.http2.min_time_between_pings_ms", 31000),
            ("grpc.enable_retries", 1),
        ]
    )


def parse(value: Any) -> ClientConfig:
    return parse_client_config(value, defaults=DEFAULTS)


def test_every_field_of_the_existing_sdk_has_its_effect() -> None:
    config = parse(ExistingConfig())
    options = config.options
    assert config.target == "h:50051"
    assert options.compression == "gzip"
    assert options.retry is not None
    assert options.retry.max_attempts == 3
    assert (options.retry.initial_backoff, options.retry.max_backoff, options.retry.multiplier) == (0.5, 7, 3)
    assert options.retry.statuses == {Status.UNAVAILABLE}
    assert options.retry.throttling == PROVIDER_THROTTLING
    assert (options.dns_min_interval, options.min_ping_interval) == (0.7, 31)
    assert (options.keepalive_time, options.keepalive_timeout) == (61, 21)
    assert (options.reconnect.initial, options.reconnect.maximum, options.reconnect.minimum) == (2, 20, 0.6)


def test_the_rest_comes_from_the_settings() -> None:
    config = parse({"host": "::1"})
    assert config.target == "[::1]:50051"
    assert config.options == DEFAULTS
    assert config.options.compression == "identity"


def test_names_that_go_with_a_channel() -> None:
    given = {"grpc.primary_user_agent": "mine/1", "grpc.default_authority": "a.test"}
    options = parse({"host": "h", "channel_options": given | {"grpc.http2.max_pings_without_data": 0}}).options
    assert options.user_agent == f"mine/1 {DEFAULTS.user_agent}"
    assert options.authority == "a.test"


def test_a_service_config_is_a_retry_policy() -> None:
    policy = {"maxAttempts": 4, "initialBackoff": "0.2s", "retryableStatusCodes": ["ABORTED"]}
    text = json.dumps({"methodConfig": [{"name": [{}], "retryPolicy": policy}]})
    retry = parse({"host": "h", "channel_options": [("grpc.service_config", text)]}).options.retry
    assert retry is not None
    assert (retry.max_attempts, retry.initial_backoff, retry.statuses) == (4, 0.2, {Status.ABORTED})
    disabled = parse({"host": "h", "channel_options": {"grpc.enable_retries": 0}}).options.retry
    assert disabled is not None
    assert disabled.max_attempts == 1


def test_retries_that_are_off_stay_off_whatever_else_is_said() -> None:
    policy = json.dumps({"methodConfig": [{"retryPolicy": {"maxAttempts": 4, "initialBackoff": "0.2s"}}]})
    options = [("grpc.enable_retries", 0), ("grpc.service_config", policy)]
    for given in (options, [*reversed(options)]):
        for more in ({}, {"retry_policy": {"max_attempts": 3, "initial_backoff": "0.2s"}}):
            retry = parse({"host": "h", "channel_options": given, **more}).options.retry
            assert retry is not None
            assert (retry.max_attempts, retry.initial_backoff) == (1, 0.2)


def test_delays_of_reconnecting_fit_each_other_in_any_order() -> None:
    slow = {"grpc.min_reconnect_backoff_ms": 20_000, "grpc.max_reconnect_backoff_ms": 30_000}
    for pairs in ([*slow.items()], [*reversed(slow.items())]):
        reconnect = parse({"host": "h", "channel_options": pairs}).options.reconnect
        assert (reconnect.initial, reconnect.minimum, reconnect.maximum) == (1.0, 20.0, 30.0)


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (3, "client_config"),
        ("h:1", "client_config"),
        ({}, "client_config.host"),
        ({"host": "  "}, "client_config.host"),
        ({"host": "http://h"}, "client_config.host"),
        ({"host": "h:50051"}, "client_config.host"),
        ({"host": "dns:///h"}, "client_config.host"),
        ({"host": "h", "hots": 1}, "client_config.hots"),
        ({"host": "h", "port": 0}, "client_config.port"),
        ({"host": "h", "port": 65536}, "client_config.port"),
        ({"host": "h", "port": "1"}, "client_config.port"),
        ({"host": "h", "port": True}, "client_config.port"),
        ({"host": "h", "mode": "threads"}, "client_config.mode"),
        ({"host": "h", "security": "tls"}, "client_config.security"),
        ({"host": "h", "security": "secure"}, "client_config.credentials"),
        ({"host": "h", "security": Security.SECURE, "credentials": None}, "client_config.credentials"),
        ({"host": "h", "credentials": {}}, "client_config.credentials"),
        (
            {"host": "h", "security": "secure", "credentials": {"root_cert_path": "/no/such"}},
            "client_config.credentials.root_cert_path",
        ),
        (
            {"host": "h", "security": "secure", "credentials": {"root_cert_path": 5}},
            "client_config.credentials.root_cert_path",
        ),
        ({"host": "h", "security": "secure", "credentials": {"ca": "x"}}, "client_config.credentials.ca"),
        ({"host": "h", "compression": "zstd"}, "client_config.compression"),
        ({"host": "h", "compression": 7}, "client_config.compression"),
        ({"host": "h", "retry_policy": {"attempts": 3}}, "client_config.retry_policy.attempts"),
        ({"host": "h", "retry_policy": {"max_attempts": 0}}, "client_config.retry_policy.max_attempts"),
        ({"host": "h", "retry_policy": {"max_attempts": 11}}, "client_config.retry_policy.max_attempts"),
        ({"host": "h", "retry_policy": {"initial_backoff": "1"}}, "client_config.retry_policy.initial_backoff"),
        ({"host": "h", "retry_policy": {"initial_backoff": "xs"}}, "client_config.retry_policy.initial_backoff"),
        ({"host": "h", "retry_policy": {"max_backoff": -1}}, "client_config.retry_policy.max_backoff"),
        ({"host": "h", "retry_policy": {"backoff_multiplier": 0}}, "client_config.retry_policy.backoff_multiplier"),
        (
            {"host": "h", "retry_policy": {"retryable_status_codes": ["OOPS"]}},
            "client_config.retry_policy.retryable_status_codes",
        ),
        (
            {"host": "h", "retry_policy": {"retryable_status_codes": ["OK"]}},
            "client_config.retry_policy.retryable_status_codes",
        ),
        (
            {"host": "h", "retry_policy": {"retryable_status_codes": [["ABORTED"]]}},
            "client_config.retry_policy.retryable_status_codes",
        ),
        ({"host": "h", "channel_options": 3}, "client_config.channel_options"),
        (
            {"host": "h", "channel_options": {"grpc.keepalive_time_ms": inf}},
            "client_config.channel_options.grpc.keepalive_time_ms",
        ),
        (
            {"host": "h", "channel_options": {"grpc.min_reconnect_backoff_ms": 20_000}},
            "client_config.channel_options.grpc.min_reconnect_backoff_ms",
        ),
        ({"host": "h", "channel_options": [("grpc.magic", 1)]}, "client_config.channel_options.grpc.magic"),
        (
            {"host": "h", "channel_options": [("grpc.keepalive_time_ms", "soon")]},
            "client_config.channel_options.grpc.keepalive_time_ms",
        ),
        (
            {"host": "h", "channel_options": [("grpc.http2.max_pings_without_data", 2)]},
            "client_config.channel_options.grpc.http2.max_pings_without_data",
        ),
        (
            {"host": "h", "channel_options": [("grpc.enable_retries", 2)]},
            "client_config.channel_options.grpc.enable_retries",
        ),
        (
            {"host": "h", "channel_options": [("grpc.keepalive_time_ms", 0)]},
            "client_config.channel_options.grpc.keepalive_time_ms",
        ),
        (
            {"host": "h", "channel_options": [("grpc.service_config", "{")]},
            "client_config.channel_options.grpc.service_config",
        ),
        (
            {"host": "h", "channel_options": [("grpc.service_config", '{"methodConfig": [{"timeout": "1s"}]}')]},
            "client_config.channel_options.grpc.service_config",
        ),
        (
            {"host": "h", "channel_options": [("grpc.service_config", '{"methodConfig": {"retryPolicy": {}}}')]},
            "client_config.channel_options.grpc.service_config",
        ),
        (
            {
                "host": "h",
                "channel_options": [("grpc.service_config", '{"methodConfig": [{}], "retryThrottling": {}}')],
            },
            "client_config.channel_options.grpc.service_config",
        ),
    ],
)
def test_what_is_not_understood_is_refused_by_its_name(value: Any, path: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse(value)
    assert [violation.field for violation in caught.value.violations] == [path]
    assert caught.value.message.startswith(path)


def test_a_key_needs_its_certificate(tmp_path: Path) -> None:
    file = tmp_path / "some.pem"
    file.write_text("no certificate")
    half = {"host": "h", "security": "secure", "credentials": {"client_key_path": str(file)}}
    with pytest.raises(ConfigurationError, match="both client_key_path and client_cert_path"):
        parse(half)
    broken = parse({"host": "h", "security": "secure", "credentials": {"root_cert_path": str(file)}})
    assert broken.credentials is not None
    with pytest.raises(ConfigurationError, match=r"some\.pem"):
        broken.credentials.ssl_context()
