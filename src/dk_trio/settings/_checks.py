"""What does not fit together across layers: contradictions, rules of the tuning guide, values without effect."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import combinations
from typing import Any, NamedTuple

from dk_trio.addresses import EVERYWHERE
from dk_trio.errors import SettingError

from ._channel import ChannelSettings
from ._observe import ObserveSettings
from ._reading import Source
from ._server import ServerSettings
from ._tasks import TaskSettings

# "20-50x fewer" tasks than RPCs is the guide's second rule. Its own recommendations have 10 to 30, and its defaults 2
# on a machine of one CPU: only what is narrower than all of these is told.
_RPCS_PER_TASK = 2
# The most that the guide gives any machine, one of 32 CPUs, and that with a queue of 5,000.
_SLOTS_WITHOUT_QUEUE = 400


class _Listener(NamedTuple):
    name: str
    host: str
    port: int
    ports: int

    def meets(self, other: _Listener) -> bool:
        """Whether both want one port of one address."""
        if not self.port or not other.port:  # any free one
            return False
        same_host = self.host == other.host or not EVERYWHERE.isdisjoint({self.host, other.host})
        return same_host and self.port < other.port + other.ports and other.port < self.port + self.ports


def contradictions(server: ServerSettings, observe: ObserveSettings) -> Iterator[SettingError]:
    """Ports that two listeners would take. Each worker takes the next port of the inspector and of the metrics."""
    taken = [_Listener("SERVER_CHANNEL_PORT", server.host, server.port, 1)]
    if observe.inspector:
        inspector = observe.inspector_host, observe.inspector_port
        taken.append(_Listener("DIGITALKIN_INSPECTOR_PORT", *inspector, server.workers))
    if observe.metrics_port is not None:
        metrics = observe.metrics_host, observe.metrics_port
        taken.append(_Listener("DIGITALKIN_METRICS_PORT", *metrics, server.workers))
    for one, other in combinations(taken, 2):
        if one.meets(other):
            more = f" for {server.workers} workers" if server.workers > 1 else ""
            yield SettingError(
                f"{other.name} is {other.port} and {one.name} is {one.port}{more}: both would listen on one port.",
                hint=f"Set {other.name} to another port.",
            )


def warnings_of(layers: Mapping[str, Any], sources: Iterable[Source]) -> Iterator[str]:
    """One line for each thing that a server's operator should know. The defaults are silent on any machine."""
    server, tasks, channel = layers["server"], layers["tasks"], layers["channel"]
    yield from _without_effect(layers, sources)
    yield from _golden_rules(server, tasks)
    yield from _pings(server, channel)
    limit = layers["security"].max_rpcs_per_client
    if limit is not None and limit > server.max_concurrent_rpcs:
        yield (
            f"DIGITALKIN_MAX_RPCS_PER_CLIENT is {limit}, more than DIGITALKIN_MAX_CONCURRENT_RPCS with "
            f"{server.max_concurrent_rpcs}: one client can take the whole server."
        )


def without_effect(layers: Mapping[str, Any]) -> dict[str, str]:
    """Variables that have no effect beside the values of others, and why."""
    tasks: TaskSettings = layers["tasks"]
    observe: ObserveSettings = layers["observe"]
    return tasks.without_effect() | observe.without_effect()


def _without_effect(layers: Mapping[str, Any], sources: Iterable[Source]) -> Iterator[str]:
    """An operator who sets a variable believes in it; a default or a part of a preset nobody has asked for."""
    reasons = without_effect(layers)
    for source in sources:
        name = source.variable.name
        if name in reasons and source.given and not source.origin.startswith("preset "):
            yield f"{name} is set but has no effect: {reasons[name]}."


def _golden_rules(server: ServerSettings, tasks: TaskSettings) -> Iterator[str]:
    """The three rules of the tuning guide. The first two are about one number, so one of them speaks."""
    rpcs, slots, queued = server.max_concurrent_rpcs, tasks.max_concurrent_tasks, tasks.max_queued_tasks
    if rpcs < slots + queued:
        yield (
            f"DIGITALKIN_MAX_CONCURRENT_RPCS is {rpcs}, less than DIGITALKIN_MAX_CONCURRENT_TASKS + "
            f"DIGITALKIN_MAX_QUEUED_TASKS with {slots} + {queued}: callers are refused while there is room for their "
            f"tasks. Set it to {slots + queued} or more."
        )
    elif rpcs < slots * _RPCS_PER_TASK:
        yield (
            f"DIGITALKIN_MAX_CONCURRENT_TASKS is {slots}, more than half of DIGITALKIN_MAX_CONCURRENT_RPCS with "
            f"{rpcs}: an open RPC is cheap, a running task is not. The tuning guide advises 20 to 50 RPCs for a task."
        )
    if not queued and slots > _SLOTS_WITHOUT_QUEUE:
        yield (
            f"DIGITALKIN_MAX_CONCURRENT_TASKS is {slots} and DIGITALKIN_MAX_QUEUED_TASKS is 0: fewer tasks at a time "
            "end sooner each, and those that wait in a queue are not refused. The tuning guide advises 200 tasks with "
            "a queue of 3000 in place of 800 without one."
        )


def _pings(server: ServerSettings, channel: ChannelSettings) -> Iterator[str]:
    if channel.keepalive_time < channel.min_ping_interval:
        yield (
            f"DIGITALKIN_GRPC_KEEPALIVE_TIME_MS is {channel.keepalive_time * 1000:g}, less than "
            f"DIGITALKIN_GRPC_MIN_PING_INTERVAL_MS with {channel.min_ping_interval * 1000:g}, which holds: a dead "
            "connection is found that much later."
        )
    apart = max(channel.keepalive_time, channel.min_ping_interval)
    if apart < server.min_ping_interval:
        yield (
            f"PINGs of a channel are {apart * 1000:g} ms apart (DIGITALKIN_GRPC_KEEPALIVE_TIME_MS, "
            f"DIGITALKIN_GRPC_MIN_PING_INTERVAL_MS), and a server takes one in {server.min_ping_interval * 1000:g} ms "
            "(SERVER_GRPC_OPTIONS_MIN_PING_INTERVAL): modules that call each other lose their connections."
        )
