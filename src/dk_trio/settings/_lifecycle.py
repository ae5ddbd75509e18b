"""The layer of a job's life: what it waits for, and how long (tuning guide, layer 3). Times are in seconds."""

from __future__ import annotations

from dataclasses import dataclass

from ._variable import SECONDS, WEEK, number, setting, whole

# A wait of nothing would cancel what has not begun.
_SHORTEST = 0.001


@dataclass(frozen=True, kw_only=True)
class LifecycleSettings:
    """How long each part of a job's life may take, and what is kept between jobs."""

    completion_timeout: float = setting(
        "DIGITALKIN_COMPLETION_TIMEOUT",
        number(_SHORTEST, WEEK),
        default=300.0,
        expects=SECONDS.format(_SHORTEST),
        about="Time for cleanup and end_of_stream after the handler's end; then the job is cancelled, reason TIMEOUT.",
    )
    cleanup_grace: float = setting(
        "DIGITALKIN_CLEANUP_GRACE",
        number(0, WEEK),
        default=10.0,
        expects=SECONDS.format(0),
        about="Time for the cleanup of a job that was cancelled; then cleanup is cancelled, too.",
    )
    stream_drain_timeout: float = setting(
        "DIGITALKIN_STREAM_DRAIN_TIMEOUT",
        number(_SHORTEST, WEEK),
        default=300.0,
        expects=SECONDS.format(_SHORTEST),
        about="Time for which a client may read nothing while an output waits for it; then its job is cancelled.",
    )
    setup_cache_max: int = setting(
        "DIGITALKIN_SETUP_CACHE_MAX",
        whole(0, 1_000_000),
        default=100,
        expects="a whole number of setups from 0 (keep none) to 1000000",
        about="Setups that are kept between jobs; one more drops the one that was not used for longest.",
    )
    setup_cache_ttl: float = setting(
        "DIGITALKIN_SETUP_CACHE_TTL",
        number(0, WEEK),
        default=600.0,
        expects=SECONDS.format(0),
        about="Age at which a kept setup is fetched anew.",
    )
    config_setup_timeout: float = setting(
        "DIGITALKIN_CONFIG_SETUP_TIMEOUT",
        number(_SHORTEST, WEEK),
        default=30.0,
        expects=SECONDS.format(_SHORTEST),
        about="Time for one ConfigSetupModule.",
    )
    execution_timeout: float | None = setting(
        "DIGITALKIN_EXECUTION_TIMEOUT",
        number(_SHORTEST, WEEK),
        expects=SECONDS.format(_SHORTEST),
        about="Time for which a job may run once it has its slot; none: for as long as its client waits.",
    )
