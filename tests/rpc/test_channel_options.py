"""Channel options: the defaults of the tuning guide, and what is refused."""

from __future__ import annotations

import dataclasses
from math import inf

import pytest

import dk_trio
from dk_trio.rpc.channel_options import USER_AGENT, ChannelOptions


def test_defaults_are_those_of_the_tuning_guide() -> None:
    options = ChannelOptions()
    assert options.keepalive_time == 60
    assert options.keepalive_timeout == 20
    assert options.keepalive_without_calls
    assert options.min_ping_interval == 30
    assert options.dns_min_interval == 0.5
    assert (options.reconnect.initial, options.reconnect.maximum, options.reconnect.minimum) == (1, 10, 0.5)
    assert options.retry is not None
    assert (options.retry.max_attempts, options.retry.initial_backoff) == (5, 0.1)
    assert (options.retry.max_backoff, options.retry.multiplier) == (10, 2)


def test_options_are_frozen_and_hashable() -> None:
    assert hash(ChannelOptions()) == hash(ChannelOptions())
    with pytest.raises(dataclasses.FrozenInstanceError):
        ChannelOptions().connections = 2  # type: ignore[misc]


def test_user_agent_carries_the_version() -> None:
    assert f"/{dk_trio.__version__} " in USER_AGENT


def test_keepalive_can_be_switched_off() -> None:
    assert ChannelOptions(keepalive_time=inf).keepalive_time == inf


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("keepalive_time", 0),
        ("keepalive_timeout", -1),
        ("min_ping_interval", -1),
        ("dns_min_interval", -1),
        ("happy_eyeballs_delay", -1),
        ("connect_timeout", 0),
        ("max_receive_message_bytes", 0),
        ("max_receive_message_bytes", 2**32),
        ("max_send_message_bytes", 0),
        ("max_metadata_bytes", 0),
        ("stream_window", 65_534),
        ("compression", "br"),
        ("user_agent", ""),
        ("user_agent", "é"),
        ("authority", " a"),
        ("connections", 0),
    ],
)
def test_bad_options_are_named(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=field):
        ChannelOptions(**{field: value})
