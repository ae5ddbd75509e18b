"""Whether time goes on as it should: forwards, evenly, and from a date that can be true."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Final

import trio

from ._finding import Finding, fail, ok, warn

_SAMPLES: Final = 10
_PAUSE: Final = 0.02
_STEP: Final = 0.05
"""Seconds by which the clock of the day may leave the monotonic one meanwhile; NTP slews by 0.1 ms at most."""

_RELEASED: Final = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
"""Nobody runs this before it was written."""


async def clock() -> AsyncIterator[Finding]:
    """Watches both clocks for a fifth of a second."""
    began, day = time.monotonic(), time.time()
    latest = began
    late = 0.0
    for _ in range(_SAMPLES):
        due = time.monotonic() + _PAUSE
        await trio.sleep(_PAUSE)
        now = time.monotonic()
        if now < latest:
            yield fail("The monotonic clock goes backwards.", "That is a defect of the machine or its hypervisor.")
            return
        latest, late = now, max(late, now - due)
    moved = (time.time() - day) - (latest - began)
    told = datetime.now(UTC).isoformat(timespec="seconds")
    if day < _RELEASED:
        yield fail(f"It cannot be {told}: certificates and tokens will be refused.", "Set the clock, best by NTP.")
    elif abs(moved) > _STEP:
        yield warn(f"The clock was moved by {moved * 1e3:.0f} ms just now.", "Let NTP slew it, and not step it.")
    else:
        yield ok(f"It is {told}, and a sleep of {_PAUSE * 1e3:g} ms is late by {late * 1e3:.1f} ms at most.")
