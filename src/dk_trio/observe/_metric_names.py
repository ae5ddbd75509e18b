"""The metrics that there are, as one table: name, type, labels, meaning.

`docs/metrics.md` is made from it, the collector emits nothing that is not here, and a test holds a scrape, the
dashboard and the alerts to it. Names follow Prometheus: base units, `_total` for what only grows. The values of every
label are bounded by something that no caller chooses: the modules that are served, the methods of the contract, the
reasons of `lifecycle`, the providers that are configured.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

Kind: TypeAlias = Literal["gauge", "counter", "histogram"]

# Seconds. From what an echo takes to the longest that anybody looks at in a histogram.
JOB_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
WAIT_SECONDS: Final = (0.001, 0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
RPC_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
OUTPUTS: Final = (1, 2, 3, 5, 10, 20, 50, 100, 1_000, 10_000, 100_000)


@dataclass(frozen=True, slots=True)
class Metric:
    """One row.

    Attributes:
        name: As Prometheus shows it; a histogram's has `_bucket`, `_sum` and `_count` behind it.
        kind: Its type.
        about: What it means, for the page and for the scrape's HELP.
        labels: Names of its labels.
        unit: What it is counted in; empty for a plain number.
        buckets: Upper bounds of a histogram.
    """

    name: str
    kind: Kind
    about: str
    labels: tuple[str, ...] = ()
    unit: str = ""
    buckets: tuple[float, ...] = ()

    @property
    def series(self) -> tuple[str, ...]:
        """The names that a query can use."""
        if self.kind == "histogram":
            return tuple(f"{self.name}{end}" for end in ("_bucket", "_sum", "_count"))
        return (self.name,)


def _gauge(name: str, about: str, *labels: str, unit: str = "") -> Metric:
    return Metric(f"dk_trio_{name}", "gauge", about, labels, unit)


def _counter(name: str, about: str, *labels: str, unit: str = "") -> Metric:
    return Metric(f"dk_trio_{name}_total", "counter", about, labels, unit)


def _histogram(name: str, about: str, *labels: str, unit: str = "", buckets: tuple[float, ...]) -> Metric:
    return Metric(f"dk_trio_{name}", "histogram", about, labels, unit, buckets)


_PROCESS: Final = (
    _gauge("build_info", "Always 1; the labels say what runs.", "version", "python", "trio", "worker"),
    _gauge("health", "Whether a health check answers SERVING: 1 or 0.", "check"),
    _gauge("loop_lag_seconds", "How late the event loop was in the last ten seconds, at most.", unit="seconds"),
    _gauge("loop_lag_longest_seconds", "How late it was at most since the start.", unit="seconds"),
    _counter("loop_stalls", "Times at which it was late by more than DIGITALKIN_STALL_THRESHOLD."),
    _gauge("loop_tasks", "Tasks of Trio that live."),
    _gauge("loop_tasks_runnable", "Tasks of Trio that wait for their turn."),
)

_RPCS: Final = (
    _histogram(
        "rpc_duration_seconds",
        "From the begin of an RPC to the end of its handler.",
        "service",
        "method",
        unit="seconds",
        buckets=RPC_SECONDS,
    ),
    _counter("rpcs_handled", "RPCs that have ended, by status code.", "service", "method", "code"),
    _gauge("rpcs_running", "RPCs in progress."),
    _gauge("rpcs_limit", "DIGITALKIN_MAX_CONCURRENT_RPCS; +Inf without a limit."),
    _counter("rpcs_started", "RPCs that were begun; refused ones are not counted."),
    _counter("rpcs_refused", "RPCs that were turned away: the limit was reached, or the method is unknown."),
    _gauge("connections", "Connections that are open."),
    _counter("connections_started", "Connections that were made."),
    _counter("connections_refused", "Connections beyond the limit of their client."),
    _counter("handshakes_failed", "Connections that came to nothing, by cause.", "cause"),
    _counter("rpcs_denied", "RPCs without a token that is known, or beyond the limit of their client.", "cause"),
    _gauge(
        "certificate_expires_timestamp_seconds",
        "When the server's certificate ends, in seconds since 1970; +Inf without TLS.",
        unit="seconds",
    ),
    _counter("certificate_reloads", "Changed files of TLS and tokens: loaded, or failed.", "result"),
    _counter("received_bytes", "Received on all connections, without TLS.", unit="bytes"),
    _counter("sent_bytes", "Sent on all connections, without TLS.", unit="bytes"),
    _gauge("draining", "Whether the server takes nothing new, as it is about to end: 1 or 0."),
)

_ADMISSION: Final = (
    _gauge("admission_slots", "DIGITALKIN_MAX_CONCURRENT_TASKS: tasks that may run at the same time."),
    _gauge("admission_running", "Tasks that hold a slot."),
    _gauge("admission_places", "DIGITALKIN_MAX_QUEUED_TASKS: tasks that may wait for a slot."),
    _gauge("admission_queued", "Tasks that wait for a slot."),
    _gauge("admission_at_gate", "Tasks that wait for a place, as slots and places are taken."),
    _counter("admission_started", "Tasks that were given a slot."),
    _counter("admission_rejected", "Tasks that were refused, by where they had waited: gate or slot.", "at"),
    _counter("admission_abandoned", "Tasks that were cancelled while they waited."),
    _gauge("admission_longest_wait_seconds", "The longest wait of a task that got its slot.", unit="seconds"),
)

_JOBS: Final = (
    _gauge("jobs_running", "Jobs that have their slot and have not ended.", "module"),
    _gauge("jobs_queued", "Jobs that wait for their slot.", "module"),
    _counter("jobs_ended", "Jobs that have ended, by the one reason each has.", "module", "reason"),
    _histogram(
        "job_duration_seconds",
        "From a job's slot to its end; of jobs that had one.",
        "module",
        "reason",
        unit="seconds",
        buckets=JOB_SECONDS,
    ),
    _histogram(
        "job_wait_seconds",
        "From a job's begin to its slot, or to its end when it never had one.",
        "module",
        unit="seconds",
        buckets=WAIT_SECONDS,
    ),
    _histogram(
        "job_outputs",
        "Messages of a job that its caller's stream has taken, those of the system included.",
        "module",
        buckets=OUTPUTS,
    ),
    _gauge("setup_cache_entries", "Setups in the cache."),
    _gauge("setup_cache_limit", "Setups that the cache may hold (DIGITALKIN_SETUP_CACHE_MAX)."),
    _gauge("setup_cache_fetching", "Fetches of setups that run."),
    _counter("setup_cache_requests", "Setups that were asked for: hit, fetched, or joined a fetch.", "result"),
    _counter("setup_cache_failures", "Fetches that have failed."),
    _counter("setup_cache_dropped", "Setups that left the cache: evicted or expired.", "why"),
    _gauge("channels", "Channels to other servers that are open."),
    _gauge("channels_in_use", "Of these, those that somebody uses."),
    _counter("channels_opened", "Channels that were opened."),
)

_SIGNALS: Final = (
    _gauge("signals_pending", "Signals that wait to be sent or are being sent."),
    _gauge("signals_pending_jobs", "Jobs that these are of."),
    _counter("signals_delivered", "Signals that the provider has taken."),
    _counter("signals_batches", "SendSignals that ended well."),
    _counter("signals_calls", "SendSignals in all; what is above the batches was retried or refused."),
    _counter("signals_collapsed", "Signals in whose place a newer one of the same job was sent."),
    _counter("signals_refused", "Signals that the provider refused for good."),
    _counter("signals_lost", "Signals that were given up."),
    _counter("signals_outages", "Times at which signals ceased to get through, by direction: in or out.", "direction"),
    _gauge("signals_polled_jobs", "Jobs whose signals the provider is asked for."),
    _counter("signals_polls", "GetSignals in all."),
    _counter("signals_polls_failed", "GetSignals that have failed."),
    _counter("signals_polls_restarted", "GetSignals that were left for another one that names more jobs."),
    _counter("signals_received", "Signals that came and were handed on."),
    _counter("signals_repeated", "Signals that came again."),
    _counter("signals_strays", "Signals to jobs that are not here, or of no known kind."),
    _counter("signals_dropped", "Signals that a slow subscriber lost."),
)

_LINK: Final = (
    _gauge("registered", "Whether the registry has this server: 1 or 0."),
    _counter("registrations", "Times at which it was registered."),
    _counter("heartbeats", "Heartbeats that the registry has answered."),
    _counter("queries", "Calls of services to their provider.", "target"),
    _counter("queries_failed", "Of these, those that ended with an error.", "target"),
    _counter("query_retries", "Calls that were repeated: by the channel (a) or by the service (b).", "target", "layer"),
    _gauge("query_retry_tokens", "What is left of the budget of retries; at half of it there are none.", "target"),
    _gauge("query_retry_tokens_limit", "The whole budget.", "target"),
    _gauge("breaker_open", "Whether the circuit breaker keeps calls back: 1, half open 0.5, closed 0.", "target"),
    _counter("breaker_opened", "Times at which it went from closed to open.", "target"),
    _counter("breaker_refused", "Calls that it failed at once.", "target"),
    _counter("breaker_probes", "Calls that it let through to find out.", "target"),
    _gauge("provider_connections", "Connections to the provider that are open.", "target"),
    _counter("provider_connects", "Connections to the provider that were made.", "target"),
    _counter("provider_connects_failed", "Attempts to connect that have failed.", "target"),
)

_STORE: Final = (
    _gauge("database_open", "Whether the database is open: 1 or 0."),
    _gauge("database_queued", "Writes that wait for their transaction."),
    _gauge("database_blocked", "Callers that wait for room in the queue of writes."),
    _counter("database_writes", "Writes: committed, failed, or withdrawn by a caller that left.", "result"),
    _counter("database_commits", "Transactions that were committed."),
    _counter("database_reads", "Reads."),
)

_PROVIDER: Final = (
    _gauge("provider_ready", "Whether the provider's store could be written when it was looked at last: 1 or 0."),
    _counter("provider_requests_invalid", "Requests that a rule of the contract has refused."),
    _counter("provider_rules_broken", "How often each rule of the contract was broken.", "rule"),
    _gauge("provider_polls", "GetSignals that are held."),
    _gauge("provider_polled_jobs", "Jobs for which one is held."),
    _gauge("provider_asked_jobs", "Jobs for which a signal may be pending."),
    _gauge("provider_heard_jobs", "Jobs that were heard of of late."),
    _counter("provider_signals_received", "Signals that came, those that came again included."),
    _counter("provider_signals_delivered", "Signals that were handed to polls."),
    _counter("provider_signals_purged", "Jobs whose signals were removed, as they ended long ago."),
)

GROUPS: Final = {
    "The process": _PROCESS,
    "RPCs and connections": _RPCS,
    "Admission": _ADMISSION,
    "Jobs": _JOBS,
    "Signals, in remote mode": _SIGNALS,
    "The way to the services-provider, in remote mode": _LINK,
    "The database: of a provider, and of a server in local mode": _STORE,
    "The services-provider": _PROVIDER,
}
METRICS: Final = {metric.name: metric for group in GROUPS.values() for metric in group}

FOREIGN: Final = (
    "process_cpu_seconds_total",
    "process_max_fds",
    "process_open_fds",
    "process_resident_memory_bytes",
    "process_start_time_seconds",
    "process_virtual_memory_bytes",
    "python_gc_collections_total",
    "python_gc_objects_collected_total",
    "python_gc_objects_uncollectable_total",
    "python_info",
)
"""What prometheus-client adds about the process."""
