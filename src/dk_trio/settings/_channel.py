"""The layer of every client channel. Times are in seconds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from dk_trio.errors import SettingError

from ._variable import duration, milliseconds, number, refuse, setting, whole

_HOUR_MS = 3_600_000
_MS = "a whole number of milliseconds from {} to {}"


@dataclass(frozen=True, kw_only=True)
class ChannelSettings:
    """Options of every client channel: retry layer A, reconnection, keepalive (tuning guide, layer 4)."""

    retry_max_attempts: int = setting(
        "DIGITALKIN_GRPC_RETRY_MAX_ATTEMPTS",
        whole(1, 10),
        default=5,
        expects="a whole number of attempts from 1 (no retry) to 10",
        about="Attempts of a call at channel level, the first one included.",
    )
    retry_initial_backoff: float = setting(
        "DIGITALKIN_GRPC_RETRY_INITIAL_BACKOFF",
        duration(0.001, 3600),
        default=0.1,
        expects='seconds followed by an s, such as "0.1s"',
        about="Delay before the first retry, give or take a fifth.",
    )
    retry_max_backoff: float = setting(
        "DIGITALKIN_GRPC_RETRY_MAX_BACKOFF",
        duration(0.001, 3600),
        default=10.0,
        expects='seconds followed by an s, such as "10s"',
        about="Cap of the retry delay.",
    )
    retry_backoff_multiplier: float = setting(
        "DIGITALKIN_GRPC_RETRY_BACKOFF_MULTIPLIER",
        number(1, 100),
        default=2.0,
        expects="a number from 1 to 100",
        about="Factor between one retry's delay and the next.",
    )
    dns_resolution_interval: float = setting(
        "DIGITALKIN_GRPC_DNS_RESOLUTION_MS",
        milliseconds(0, _HOUR_MS),
        default=0.5,
        expects=_MS.format(0, _HOUR_MS),
        about="Least time between two resolutions of the target's name.",
    )
    initial_reconnect_backoff: float = setting(
        "DIGITALKIN_GRPC_INITIAL_RECONNECT_MS",
        milliseconds(1, _HOUR_MS),
        default=1.0,
        expects=_MS.format(1, _HOUR_MS),
        about="Delay before the first attempt to reconnect; the cap holds for it too.",
    )
    max_reconnect_backoff: float = setting(
        "DIGITALKIN_GRPC_MAX_RECONNECT_MS",
        milliseconds(1, _HOUR_MS),
        default=10.0,
        expects=_MS.format(1, _HOUR_MS),
        about="Cap of the delay between attempts to reconnect.",
    )
    min_reconnect_backoff: float = setting(
        "DIGITALKIN_GRPC_MIN_RECONNECT_MS",
        milliseconds(1, _HOUR_MS),
        default=0.5,
        expects=_MS.format(1, _HOUR_MS),
        about="Floor of the delay between attempts to reconnect.",
    )
    keepalive_time: float = setting(
        "DIGITALKIN_GRPC_KEEPALIVE_TIME_MS",
        milliseconds(1, _HOUR_MS * 24),
        default=60.0,
        expects=_MS.format(1, _HOUR_MS * 24),
        about="Silence after which a connection is probed with a PING.",
    )
    keepalive_timeout: float = setting(
        "DIGITALKIN_GRPC_KEEPALIVE_TIMEOUT_MS",
        milliseconds(1, _HOUR_MS),
        default=20.0,
        expects=_MS.format(1, _HOUR_MS),
        about="Wait for the answer to a PING before the connection counts as dead.",
    )
    min_ping_interval: float = setting(
        "DIGITALKIN_GRPC_MIN_PING_INTERVAL_MS",
        milliseconds(0, _HOUR_MS),
        default=30.0,
        expects=_MS.format(0, _HOUR_MS),
        about="Least time between two PINGs; a server may refuse more than one per 10 s.",
    )

    def __post_init__(self) -> None:
        """Refuse values that contradict each other, also when a test or a program builds the object itself."""
        refuse(
            [
                *_ordered(
                    "DIGITALKIN_GRPC_RETRY_INITIAL_BACKOFF",
                    self.retry_initial_backoff,
                    "DIGITALKIN_GRPC_RETRY_MAX_BACKOFF",
                    self.retry_max_backoff,
                ),
                *_ordered(
                    "DIGITALKIN_GRPC_MIN_RECONNECT_MS",
                    self.min_reconnect_backoff,
                    "DIGITALKIN_GRPC_MAX_RECONNECT_MS",
                    self.max_reconnect_backoff,
                ),
            ]
        )


def _ordered(low_name: str, low: float, high_name: str, high: float) -> Iterator[SettingError]:
    if low > high:
        yield SettingError(
            f"{low_name} is {low:g} s, which is more than {high_name} with {high:g} s.",
            hint=f"Lower the first or raise {high_name}.",
        )
