"""The layers of a served module: where it listens, its front door, and its identity."""

from __future__ import annotations

import os
from dataclasses import dataclass

from ._variable import SECONDS, WEEK, number, setting, whole
from ._variable import host as host_name

# The seed: "cpu x 200".
RPCS_PER_CPU = 200


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """Where a module listens, and its front door."""

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


@dataclass(frozen=True, kw_only=True)
class ModuleSettings:
    """Identity of the served module."""

    module_id: str | None = setting(
        "DIGITALKIN_MODULE_ID",
        str,
        expects="a module id",
        about="Module id, in place of the one in the module's `metadata`.",
    )
