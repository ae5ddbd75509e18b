"""The layer of signals and of calls to the services-provider (tuning guide, layer 4). Times are in seconds."""

from __future__ import annotations

from dataclasses import dataclass

from dk_trio.errors import SettingError

from ._variable import SECONDS, WEEK, number, setting, some_milliseconds, whole

_HOUR_MS = 3_600_000
_SHORTEST = 0.001
_SIGNALS = "a whole number of signals from 1 to {}"


@dataclass(frozen=True, kw_only=True)
class SignalSettings:
    """What jobs tell the platform, and what it tells them: batches, polls, and their retries (layer C)."""

    send_timeout: float = setting(
        "DIGITALKIN_GRPC_TIMEOUT",
        number(_SHORTEST, WEEK),
        default=30.0,
        expects=SECONDS.format(_SHORTEST),
        about="Deadline of one SendSignals.",
    )
    max_batch_size: int = setting(
        "DIGITALKIN_SIGNAL_MAX_BATCH_SIZE",
        whole(1, 10_000),
        default=50,
        expects=_SIGNALS.format(10_000),
        about="Signals that are sent together; so many are sent at once.",
    )
    flush_interval: float = setting(
        "DIGITALKIN_SIGNAL_FLUSH_INTERVAL",
        number(0, WEEK),
        default=0.1,
        expects=SECONDS.format(0),
        about="Time for which a signal waits for others to be sent with.",
    )
    send_retries: int = setting(
        "DIGITALKIN_SIGNAL_SEND_RETRIES",
        whole(0, 100),
        default=3,
        expects="a whole number of retries from 0 to 100",
        about="Further SendSignals after one that failed; then the outage is told, and the signals are kept.",
    )
    send_backoff: float = setting(
        "DIGITALKIN_SIGNAL_SEND_BACKOFF_MS",
        some_milliseconds(0, _HOUR_MS),
        default=0.1,
        expects=f"a number of milliseconds from 0 to {_HOUR_MS}",
        about="Delay before the first retry of SendSignals; each further one doubles it.",
    )
    poll_timeout: float = setting(
        "DIGITALKIN_POLL_TIMEOUT",
        number(_SHORTEST, WEEK),
        default=1.0,
        expects=SECONDS.format(_SHORTEST),
        about="Deadline of one GetSignals. A provider that can holds it until shortly before that.",
    )
    initial_poll_interval: float = setting(
        "DIGITALKIN_SIGNAL_INITIAL_POLL_INTERVAL",
        number(_SHORTEST, WEEK),
        default=0.1,
        expects=SECONDS.format(_SHORTEST),
        about="Wait between two polls after signals came; doubled after each poll that brought none.",
    )
    poll_interval: float = setting(
        "DIGITALKIN_SIGNAL_POLL_INTERVAL",
        number(_SHORTEST, WEEK),
        default=1.0,
        expects=SECONDS.format(_SHORTEST),
        about="Longest wait between two polls of a provider that does not hold them.",
    )
    queue_size: int = setting(
        "DIGITALKIN_SIGNAL_QUEUE_SIZE",
        whole(1, 1_000_000),
        default=512,
        expects=_SIGNALS.format(1_000_000),
        about="Signals that are kept for one job that is slow to take them; cancel and stop are never dropped.",
    )

    def __post_init__(self) -> None:
        """Refuse values that contradict each other."""
        if self.initial_poll_interval > self.poll_interval:
            raise SettingError(
                f"DIGITALKIN_SIGNAL_INITIAL_POLL_INTERVAL is {self.initial_poll_interval:g} s, which is more than "
                f"DIGITALKIN_SIGNAL_POLL_INTERVAL with {self.poll_interval:g} s.",
                hint="Lower the first or raise DIGITALKIN_SIGNAL_POLL_INTERVAL.",
            )


@dataclass(frozen=True, kw_only=True)
class QuerySettings:
    """Calls of the services to their provider: retry layer B."""

    max_retries: int = setting(
        "DIGITALKIN_GRPC_QUERY_MAX_RETRIES",
        whole(0, 100),
        default=2,
        expects="a whole number of retries from 0 to 100",
        about="Further calls after one that failed with a status that the channel does not retry by itself.",
    )
    backoff_base: float = setting(
        "DIGITALKIN_GRPC_QUERY_BACKOFF_BASE_MS",
        some_milliseconds(0, _HOUR_MS),
        default=0.05,
        expects=f"a number of milliseconds from 0 to {_HOUR_MS}",
        about="Delay before the first of them; each further one doubles it.",
    )
    timeout: float = setting(
        "DIGITALKIN_GRPC_QUERY_TIMEOUT",
        number(_SHORTEST, WEEK),
        default=30.0,
        expects=SECONDS.format(_SHORTEST),
        about="Deadline of a call to the provider, all its retries included.",
    )
