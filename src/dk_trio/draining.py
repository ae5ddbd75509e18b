"""How a server ends: what runs gets a grace, what is left is cancelled, and what goes on all the same is named."""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import TypeAlias

import trio

from dk_trio import rpc
from dk_trio.config_setup import ConfigSetup
from dk_trio.jobs import SLACK, Jobs, JobStatistics
from dk_trio.lifecycle import Reason
from dk_trio.server_statistics import DrainReport
from dk_trio.servicer import LAST_WORDS
from dk_trio.session import ABANDON_AFTER, Session

_log = logging.getLogger("dk_trio.server")

Stuck: TypeAlias = Session | ConfigSetup | str
"""A job or a configuration whose code goes on although it was cancelled, or in words how many other calls do."""


async def drained(server: rpc.Server, jobs: Jobs, config_setups: Collection[ConfigSetup], grace: float) -> list[Stuck]:
    """Take nothing new, let jobs end for `grace` seconds, cancel the rest.

    Returns:
        What goes on all the same; empty unless a module misbehaves, or a disk hangs.
    """
    with trio.move_on_after(grace):
        await server.drain()
        return []
    stuck: list[Stuck] = [*await jobs.shut_down()]
    if not stuck:
        # Authors' code runs in configurations, health checks and schemas too, and would hold its call for ever.
        with trio.move_on_after(LAST_WORDS + ABANDON_AFTER + SLACK):
            await server.drain(LAST_WORDS)
        stuck = [*config_setups]
        others = server.statistics().rpcs - len(stuck)
        if others > 0:
            stuck.append(f"{others} health checks or schemas")
    if stuck:
        _log.critical("jobs that go on although they were cancelled: %d, %r", len(stuck), stuck)
    return stuck


def drain_report(before: JobStatistics, after: JobStatistics, *, stuck: int) -> DrainReport:
    """What became of the jobs that were here before."""
    cut = after.ended.get(Reason.SHUTDOWN, 0) - before.ended.get(Reason.SHUTDOWN, 0)
    ended = sum(after.ended.values()) - sum(before.ended.values())
    return DrainReport(finished=ended - cut, cut=cut, stuck=stuck)
