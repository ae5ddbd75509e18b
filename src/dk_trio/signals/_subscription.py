"""The signals of one job as a stream, for a consumer that may be slow."""

from __future__ import annotations

import logging
from collections import deque
from typing import Final

import trio

from ._signal import Signal, SignalAction

_log = logging.getLogger("dk_trio.signals")

URGENT: Final = frozenset({SignalAction.CANCEL, SignalAction.STOP})
"""What is never dropped, and goes before all else."""


class Subscription:
    """Signals to one job, in order; `async for`, or `receive`. One task may wait at a time.

    It holds `size` signals. When it is full the newest is dropped, counted, and told once; but for a `cancel` or `stop`
    the oldest other signal is dropped. One of these that finds only their like is dropped when the same action waits
    already: it says nothing new.

    Attributes:
        job_id: Whose signals these are.
        dropped: Signals that were dropped.
    """

    def __init__(self, job_id: str, size: int) -> None:
        self.job_id = job_id
        self.dropped = 0
        self._size = size
        self._signals: deque[Signal] = deque()
        self._arrived = trio.Event()
        self._closed = False

    def __repr__(self) -> str:
        return f"<Subscription to {self.job_id}, {len(self._signals)} of {self._size}, {self.dropped} dropped>"

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> Signal:
        try:
            return await self.receive()
        except trio.EndOfChannel:
            raise StopAsyncIteration from None

    async def receive(self) -> Signal:
        """The next signal.

        Raises:
            trio.EndOfChannel: The `with` block has ended, and all that came before was received.

        Cancellation:
            Nothing is lost.
        """
        await trio.lowlevel.checkpoint()
        while not self._signals:
            if self._closed:
                raise trio.EndOfChannel
            self._arrived = trio.Event()
            await self._arrived.wait()
        return self._signals.popleft()

    def put(self, signal: Signal) -> int:
        """Add a signal. Does not wait; returns how many signals were dropped for want of room, 0 or 1."""
        signals = self._signals
        victim: Signal | None = None
        if len(signals) >= self._size:
            victim = signal
            if signal.action in URGENT:
                victim = next((kept for kept in signals if kept.action not in URGENT), None)
                if victim is None and any(kept.action == signal.action for kept in signals):
                    victim = signal
        if victim is not signal:
            if victim is not None:
                signals.remove(victim)
            signals.append(signal)
            self._arrived.set()
        if victim is None:
            return 0
        if not self.dropped:
            _log.warning(
                "signals to job %s are dropped: %d wait to be taken (DIGITALKIN_SIGNAL_QUEUE_SIZE), so the newest go; "
                "cancel and stop are kept",
                self.job_id,
                len(signals),
            )
        self.dropped += 1
        return 1

    def close(self) -> None:
        """Nothing more comes."""
        self._closed = True
        self._arrived.set()
