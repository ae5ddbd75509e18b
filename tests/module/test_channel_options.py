"""From the variables of the tuning guide to the channel's options, at both ends of every range."""

from math import inf

import pytest

from dk_trio.client import channel_options
from dk_trio.rpc import ChannelOptions
from dk_trio.settings import Settings

LOWEST = {
    "DIGITALKIN_GRPC_RETRY_MAX_ATTEMPTS": "1",
    "DIGITALKIN_GRPC_RETRY_INITIAL_BACKOFF": "0.001s",
    "DIGITALKIN_GRPC_RETRY_MAX_BACKOFF": "0.001s",
    "DIGITALKIN_GRPC_RETRY_BACKOFF_MULTIPLIER": "1",
    "DIGITALKIN_GRPC_DNS_RESOLUTION_MS": "0",
    "DIGITALKIN_GRPC_INITIAL_RECONNECT_MS": "1",
    "DIGITALKIN_GRPC_MAX_RECONNECT_MS": "1",
    "DIGITALKIN_GRPC_MIN_RECONNECT_MS": "1",
    "DIGITALKIN_GRPC_KEEPALIVE_TIME_MS": "1",
    "DIGITALKIN_GRPC_KEEPALIVE_TIMEOUT_MS": "1",
    "DIGITALKIN_GRPC_MIN_PING_INTERVAL_MS": "0",
}
HIGHEST = {
    "DIGITALKIN_GRPC_RETRY_MAX_ATTEMPTS": "10",
    "DIGITALKIN_GRPC_RETRY_INITIAL_BACKOFF": "3600s",
    "DIGITALKIN_GRPC_RETRY_MAX_BACKOFF": "3600s",
    "DIGITALKIN_GRPC_RETRY_BACKOFF_MULTIPLIER": "100",
    "DIGITALKIN_GRPC_DNS_RESOLUTION_MS": "3600000",
    "DIGITALKIN_GRPC_INITIAL_RECONNECT_MS": "3600000",
    "DIGITALKIN_GRPC_MAX_RECONNECT_MS": "3600000",
    "DIGITALKIN_GRPC_MIN_RECONNECT_MS": "3600000",
    "DIGITALKIN_GRPC_KEEPALIVE_TIME_MS": "86400000",
    "DIGITALKIN_GRPC_KEEPALIVE_TIMEOUT_MS": "3600000",
    "DIGITALKIN_GRPC_MIN_PING_INTERVAL_MS": "3600000",
}


def test_the_defaults_are_the_channels_own() -> None:
    assert channel_options(Settings().channel) == ChannelOptions()


@pytest.mark.parametrize("environ", [LOWEST, HIGHEST])
def test_every_legal_value_makes_a_channel(environ: dict[str, str]) -> None:
    options = channel_options(Settings.from_environment(environ).channel)
    assert options.retry is not None
    assert options.retry.max_attempts == int(environ["DIGITALKIN_GRPC_RETRY_MAX_ATTEMPTS"])
    assert 0 < options.reconnect.minimum <= options.reconnect.maximum < inf


def test_a_small_cap_holds_for_the_first_delay_too() -> None:
    environ = {"DIGITALKIN_GRPC_MAX_RECONNECT_MS": "800"}
    assert channel_options(Settings.from_environment(environ).channel).reconnect.maximum == 0.8
