"""What is asked for when somebody scrapes: statistics of the servers and the provider of this process."""

from __future__ import annotations

import platform
from importlib.metadata import version
from math import inf
from typing import TYPE_CHECKING, Final

import trio

from dk_trio.lifecycle import State
from dk_trio.rpc.handshake import HANDSHAKE_FAILURES

if TYPE_CHECKING:
    from dk_trio import rpc
    from dk_trio.admission import AdmissionStatistics
    from dk_trio.provider import Provider
    from dk_trio.provider_link import ProviderLinkStatistics
    from dk_trio.security import SecurityStatistics
    from dk_trio.server import ModuleServer
    from dk_trio.services.channels import ChannelCacheStatistics
    from dk_trio.services.query import QueryStatistics
    from dk_trio.services.setup_cache import SetupCacheStatistics
    from dk_trio.services.stores.database import DatabaseStatistics
    from dk_trio.signals import RemoteSignalsStatistics
    from dk_trio.stalls import LoopStatistics

    from ._metric_values import Book

_DENIED: Final = ("no_token", "wrong_token", "rpcs_per_client")
_BREAKER: Final = {"closed": 0.0, "half open": 0.5, "open": 1.0}


def tell_process(book: Book, worker: int) -> None:
    """What runs, and what its loop has to do."""
    book.add("build_info", 1, version("dk-trio"), platform.python_version(), trio.__version__, str(worker))
    loop = trio.lowlevel.current_statistics()
    book.add("loop_tasks", loop.tasks_living)
    book.add("loop_tasks_runnable", loop.tasks_runnable)


def tell_server(book: Book, server: ModuleServer) -> None:
    """A server of modules."""
    now = server.statistics()
    _health(book, server.health)
    _loop(book, now.loop)
    _rpc(book, now.rpc)
    _security(book, server.security.statistics())
    _admission(book, now.admission)
    for module in server.modules.values():
        book.add("jobs_queued", 0, module.name)
        book.add("jobs_running", 0, module.name)
    for session in server.jobs:
        waits = session.state is State.CREATED
        book.add("jobs_queued", waits, session.module_name)
        book.add("jobs_running", not waits, session.module_name)
    _setups(book, now.setups)
    _channels(book, now.channels)
    _database(book, server.platform.database.statistics())
    if now.provider is not None:
        _link(book, now.provider)


def tell_provider(book: Book, provider: Provider) -> None:
    """A services-provider."""
    from dk_trio.provider.task_manager import TaskManagerStatistics

    now = provider.statistics()
    _health(book, provider.health)
    _loop(book, now.loop)
    _rpc(book, now.rpc)
    _security(book, now.security)
    _database(book, now.database)
    book.add("provider_ready", now.ready)
    book.add("provider_requests_invalid_total", now.validation.refused)
    for rule, count in now.validation.broken.items():
        book.add("provider_rules_broken_total", count, rule)
    for service in now.services.values():
        if isinstance(service, TaskManagerStatistics):
            book.add("provider_polls", service.polls)
            book.add("provider_polled_jobs", service.jobs_polled)
            book.add("provider_asked_jobs", service.jobs_asked)
            book.add("provider_heard_jobs", service.heartbeats)
            book.add("provider_signals_received_total", service.received)
            book.add("provider_signals_delivered_total", service.delivered)
            book.add("provider_signals_purged_total", service.purged)


def _health(book: Book, health: rpc.Health) -> None:
    for name, serving in health.statistics().services.items():
        book.add("health", serving, name)


def _loop(book: Book, loop: LoopStatistics) -> None:
    # Of two servers that watch the one loop of this process, the one that has seen more.
    book.most("loop_lag_seconds", loop.recent)
    book.most("loop_lag_longest_seconds", loop.longest)
    book.most("loop_stalls_total", loop.stalls)


def _rpc(book: Book, now: rpc.ServerStatistics) -> None:
    book.add("rpcs_running", now.rpcs)
    book.add("rpcs_limit", inf if now.rpcs_limit is None else now.rpcs_limit)
    book.add("rpcs_started_total", now.rpcs_started)
    book.add("rpcs_refused_total", now.rpcs_refused)
    book.add("connections", now.connections)
    book.add("connections_started_total", now.connections_started)
    book.add("connections_refused_total", now.connections_refused)
    for cause in HANDSHAKE_FAILURES:
        book.add("handshakes_failed_total", now.handshakes_failed.get(cause, 0), cause)
    book.add("received_bytes_total", now.bytes_received)
    book.add("sent_bytes_total", now.bytes_sent)
    book.add("draining", now.draining)


def _security(book: Book, now: SecurityStatistics) -> None:
    for cause in _DENIED:
        book.add("rpcs_denied_total", now.calls_refused.get(cause, 0), cause)
    # The first to end, should there be several.
    book.least(
        "certificate_expires_timestamp_seconds", inf if now.certificate_expires is None else now.certificate_expires
    )
    book.add("certificate_reloads_total", now.reloads, "loaded")
    book.add("certificate_reloads_total", now.reload_failures, "failed")


def _admission(book: Book, now: AdmissionStatistics) -> None:
    book.add("admission_slots", now.slots)
    book.add("admission_running", now.running)
    book.add("admission_places", now.queue)
    book.add("admission_queued", now.queued)
    book.add("admission_at_gate", now.at_gate)
    book.add("admission_started_total", now.started)
    book.add("admission_rejected_total", now.rejected_by_gate, "gate")
    book.add("admission_rejected_total", now.rejected_by_slot, "slot")
    book.add("admission_abandoned_total", now.abandoned)
    book.add("admission_longest_wait_seconds", now.longest_wait)


def _setups(book: Book, now: SetupCacheStatistics) -> None:
    book.add("setup_cache_entries", now.entries)
    book.add("setup_cache_limit", now.max_entries)
    book.add("setup_cache_fetching", now.in_flight)
    book.add("setup_cache_requests_total", now.hits, "hit")
    book.add("setup_cache_requests_total", now.fetches, "fetched")
    book.add("setup_cache_requests_total", now.joined, "joined")
    book.add("setup_cache_failures_total", now.failures)
    book.add("setup_cache_dropped_total", now.evicted, "evicted")
    book.add("setup_cache_dropped_total", now.expired, "expired")


def _channels(book: Book, now: ChannelCacheStatistics) -> None:
    book.add("channels", now.channels)
    book.add("channels_in_use", now.in_use)
    book.add("channels_opened_total", now.opened)


def _database(book: Book, now: DatabaseStatistics) -> None:
    book.add("database_open", now.open)
    book.add("database_queued", now.queued)
    book.add("database_blocked", now.blocked)
    book.add("database_writes_total", now.writes, "committed")
    book.add("database_writes_total", now.failed, "failed")
    book.add("database_writes_total", now.withdrawn, "withdrawn")
    book.add("database_commits_total", now.commits)
    book.add("database_reads_total", now.reads)


def _link(book: Book, now: ProviderLinkStatistics) -> None:
    registration = now.registration
    book.add("registered", registration is not None and registration.registered)
    book.add("registrations_total", 0 if registration is None else registration.registrations)
    book.add("heartbeats_total", 0 if registration is None else registration.heartbeats)
    _signals(book, now.signals)
    for target, query in now.queries.items():
        _query(book, target, query)


def _signals(book: Book, now: RemoteSignalsStatistics) -> None:
    out, inbound = now.outbound, now.inbound
    book.add("signals_pending", out.pending)
    book.add("signals_pending_jobs", out.pending_tasks)
    book.add("signals_delivered_total", out.delivered)
    book.add("signals_batches_total", out.batches)
    book.add("signals_calls_total", out.calls)
    book.add("signals_collapsed_total", out.collapsed)
    book.add("signals_refused_total", out.refused)
    book.add("signals_lost_total", out.lost)
    book.add("signals_outages_total", out.outages, "out")
    book.add("signals_outages_total", inbound.outages, "in")
    book.add("signals_polled_jobs", inbound.listening)
    book.add("signals_polls_total", inbound.polls)
    book.add("signals_polls_failed_total", inbound.failed_polls)
    book.add("signals_polls_restarted_total", inbound.restarts)
    book.add("signals_received_total", inbound.received)
    book.add("signals_repeated_total", inbound.repeated)
    book.add("signals_strays_total", inbound.strays)
    book.add("signals_dropped_total", inbound.dropped)


def _query(book: Book, target: str, now: QueryStatistics) -> None:
    book.add("queries_total", now.queries, target)
    book.add("queries_failed_total", now.failed, target)
    book.add("query_retries_total", now.retries, target, "b")
    book.add("query_retry_tokens", now.retry_tokens, target)
    book.add("query_retry_tokens_limit", now.retry_tokens_limit, target)
    book.add("breaker_open", _BREAKER[now.breaker.state], target)
    book.add("breaker_opened_total", now.breaker.opened, target)
    book.add("breaker_refused_total", now.breaker.refused, target)
    book.add("breaker_probes_total", now.breaker.probes, target)
    if now.channel is not None:
        book.add("query_retries_total", now.channel.retries, target, "a")
        book.add("provider_connections", now.channel.connections, target)
        book.add("provider_connects_total", now.channel.connects, target)
        book.add("provider_connects_failed_total", now.channel.connect_failures, target)
