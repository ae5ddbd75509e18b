"""Signals: what a job tells the platform about itself, and what the platform tells the job.

A session publishes START when it has its slot and STOP when it has ended, once each. From the other side come `cancel`
and `stop` for a job id; the session that listens for it cancels first and acknowledges afterwards.
"""

from ._local import LocalSignals as LocalSignals
from ._signal import Signal as Signal
from ._signal import SignalAction as SignalAction
from ._signal import SignalExchange as SignalExchange
