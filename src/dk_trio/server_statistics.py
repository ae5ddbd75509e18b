"""What a server tells of itself: a snapshot of now, and what a drain has come to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dk_trio import rpc
from dk_trio.admission import AdmissionStatistics
from dk_trio.jobs import JobStatistics
from dk_trio.services.channels import ChannelCacheStatistics
from dk_trio.services.setup_cache import SetupCacheStatistics
from dk_trio.stalls import LoopStatistics

if TYPE_CHECKING:
    from dk_trio.provider_link import ProviderLinkStatistics


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainReport:
    """What became of the jobs that were here when a drain began.

    Attributes:
        finished: Ended by themselves, or by their callers, within the grace.
        cut: Cancelled when the grace was over.
        stuck: Of those that were cut, the ones whose code goes on all the same.
    """

    finished: int
    cut: int
    stuck: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerStatistics:
    """A snapshot of a server, part by part."""

    jobs: JobStatistics
    admission: AdmissionStatistics
    setups: SetupCacheStatistics
    channels: ChannelCacheStatistics
    rpc: rpc.ServerStatistics
    provider: ProviderLinkStatistics | None
    """None in local mode."""
    loop: LoopStatistics
    """While the server is `running`."""
