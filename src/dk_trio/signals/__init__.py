"""Signals: what a job tells the platform about itself, and what the platform tells the job.

A session publishes START when it has its slot and STOP when it has ended, once each. From the other side come `cancel`
and `stop` for a job id; the session that listens for it cancels first and acknowledges afterwards.

`LocalSignals` carries them within a process, `RemoteSignals` to and from a services-provider.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dk_trio.lazy import lazily

from ._local import LocalSignals as LocalSignals
from ._signal import Signal as Signal
from ._signal import SignalAction as SignalAction
from ._signal import SignalExchange as SignalExchange

if TYPE_CHECKING:
    from ._path import PathHealth as PathHealth
    from ._remote import RemoteSignals as RemoteSignals
    from ._remote import RemoteSignalsHealth as RemoteSignalsHealth
    from ._remote import RemoteSignalsStatistics as RemoteSignalsStatistics
    from ._subscription import Subscription as Subscription
    from .inbox import InboundStatistics as InboundStatistics
    from .outbox import OutboundStatistics as OutboundStatistics

# Lazily: a server without a provider loads neither the messages nor the calls.
_HOMES: Final = {
    "InboundStatistics": "inbox",
    "OutboundStatistics": "outbox",
    "PathHealth": "_path",
    "RemoteSignals": "_remote",
    "RemoteSignalsHealth": "_remote",
    "RemoteSignalsStatistics": "_remote",
    "Subscription": "_subscription",
}

__all__ = ["LocalSignals", "Signal", "SignalAction", "SignalExchange", *_HOMES]  # noqa: PLE0604  all of them names

__getattr__, __dir__ = lazily(__name__, _HOMES)
