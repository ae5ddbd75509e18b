"""The layers of a served module: where it listens, its front door, and its identity."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

from ._presets import PRESETS
from ._variable import BOOL, SECONDS, WEEK, choice, milliseconds, number, setting, truth, whole
from ._variable import host as host_name

# The seed: "cpu x 200".
RPCS_PER_CPU = 200
THREADS_MAX = 4  # the seed: "min(4, cpu)"

_HOUR_MS = 3_600_000
_MS = "a whole number of milliseconds from {} to {}"
_LARGEST_MESSAGE = 2**31 - 1  # what peers keep the length in
_BYTES = f"a whole number of bytes from 1024 to {_LARGEST_MESSAGE}"
_MESSAGE = 100 * 2**20


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """Where a module listens, and its front door."""

    preset: Literal["small", "medium", "large", "railway"] | None = setting(
        "DIGITALKIN_PRESET",
        choice(*PRESETS),
        expects="small, medium, large or railway",
        about="The tuning guide's values for a size of machine; what is set otherwise goes before them.",
    )
    # Loopback, unlike the existing SDK's [::]: a module asks nobody who they are, so being reachable is a choice.
    host: str = setting(
        "SERVER_CHANNEL_HOST",
        host_name,
        default="127.0.0.1",
        expects="a host name or address, such as 0.0.0.0 or [::]",
        about="Address that `serve` listens on.",
    )
    port: int = setting(
        "SERVER_CHANNEL_PORT",
        whole(0, 65535),
        default=50055,
        expects="a port number from 0 (any free port) to 65535",
        about="Port that `serve` listens on.",
    )
    advertise_host: str | None = setting(
        "SERVER_CHANNEL_ADVERTISE_HOST",
        host_name,
        expects="a host name or address that others reach this server by",
        about="Address that the registry is told; the one that is listened on when unset.",
    )
    heartbeat_interval: float = setting(
        "DIGITALKIN_HEARTBEAT_INTERVAL",
        number(0.01, WEEK),
        default=10.0,
        expects=SECONDS.format(0.01),
        about="Time between two heartbeats to the registry, in remote mode.",
    )
    max_concurrent_rpcs: int = setting(
        "DIGITALKIN_MAX_CONCURRENT_RPCS",
        whole(1, 10_000_000),
        default_factory=lambda: (os.cpu_count() or 1) * RPCS_PER_CPU,
        expects="a whole number of RPCs from 1 to 10000000",
        about="RPCs a server runs at the same time; one more gets RESOURCE_EXHAUSTED.",
        aliases=("SERVER_MAX_CONCURRENT_RPCS",),
    )
    thread_pool_workers: int = setting(
        "DIGITALKIN_THREAD_POOL_WORKERS",
        whole(1, 1000),
        default_factory=lambda: min(THREADS_MAX, os.cpu_count() or 1),
        expects="a whole number of threads from 1 to 1000",
        about="Threads that run the synchronous code of a module's authors; further code waits for one.",
        aliases=("SERVER_THREAD_POOL_WORKERS",),
    )
    workers: int = setting(
        "DIGITALKIN_WORKERS",
        whole(1, 256),
        default=1,
        expects="a whole number of processes from 1 to 256",
        about="Processes that `serve` runs; each one has all the limits of these settings for itself.",
    )
    grace: float = setting(
        "DIGITALKIN_GRACE",
        number(0, WEEK),
        default=10.0,
        expects=SECONDS.format(0),
        about="Time that running jobs get to end after the first SIGTERM or Ctrl-C.",
    )
    reflection: bool = setting(
        "SERVER_REFLECTION",
        truth,
        default=True,
        expects=BOOL,
        about="Whether the server answers grpc.reflection, which tells its methods and messages to tools.",
    )
    health_check: bool = setting(
        "SERVER_HEALTH_CHECK",
        truth,
        default=True,
        expects=BOOL,
        about="Whether the server answers grpc.health, which probes ask.",
    )
    compression: Literal["none", "gzip", "deflate"] = setting(
        "SERVER_GRPC_COMPRESSION",
        choice("none", "gzip", "deflate"),
        default="none",
        expects="none, gzip or deflate",
        about="Compression of responses, for callers that accept it.",
    )
    keepalive_time: float = setting(
        "SERVER_GRPC_OPTIONS_KEEPALIVE_TIME",
        milliseconds(1, _HOUR_MS * 24),
        default=120.0,
        expects=_MS.format(1, _HOUR_MS * 24),
        about="Silence after which the server probes a connection with a PING.",
    )
    keepalive_timeout: float = setting(
        "SERVER_GRPC_OPTIONS_KEEPALIVE_TIMEOUT",
        milliseconds(1, _HOUR_MS),
        default=20.0,
        expects=_MS.format(1, _HOUR_MS),
        about="Wait for the answer to the server's PING before the connection counts as dead.",
    )
    min_ping_interval: float = setting(
        "SERVER_GRPC_OPTIONS_MIN_PING_INTERVAL",
        milliseconds(0, _HOUR_MS),
        default=10.0,
        expects=_MS.format(0, _HOUR_MS),
        about="Least time between two PINGs of a client; one that goes on asking more often loses its connection.",
    )
    max_receive_message_bytes: int = setting(
        "SERVER_GRPC_OPTIONS_MAX_RECEIVE_MESSAGE_LENGTH",
        whole(1024, _LARGEST_MESSAGE),
        default=_MESSAGE,
        expects=_BYTES,
        about="Longest request; one that is longer gets RESOURCE_EXHAUSTED.",
    )
    max_send_message_bytes: int = setting(
        "SERVER_GRPC_OPTIONS_MAX_SEND_MESSAGE_LENGTH",
        whole(1024, _LARGEST_MESSAGE),
        default=_MESSAGE,
        expects=_BYTES,
        about="Longest response; one that is longer is not sent, and its call fails.",
    )


@dataclass(frozen=True, kw_only=True)
class ModuleSettings:
    """Identity of the served module."""

    module_id: str | None = setting(
        "DIGITALKIN_MODULE_ID",
        str,
        expects="a module id",
        about="Module id, in place of the one in the module's `metadata`.",
    )
