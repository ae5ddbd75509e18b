"""Whether a server answers, how fast, and whether its clock is ours."""

from __future__ import annotations

import statistics
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import trio
from grpclib.exceptions import GRPCError

from dk_trio.cli._connect import Connection, opened, told
from dk_trio.cli._health import check
from dk_trio.errors import ConfigurationError
from dk_trio.rpc.health import CLOCK

from ._finding import Finding, fail, ok, warn

if TYPE_CHECKING:
    from dk_trio.settings import Settings

_CHECKS: Final = 5
_SLOW: Final = 0.1
"""Seconds for a health check. A job waits for several answers of a provider before its module runs."""

_SKEW: Final = 1.0
"""Seconds between two clocks that tokens and certificates, and people who read two logs, put up with."""


async def server(
    what: str, address: str, connection: Connection, settings: Settings, *, timeout: float
) -> AsyncIterator[Finding]:
    """Connect, ask for its health a few times, compare clocks.

    Args:
        what: The server, as people call it.
        address: `HOST:PORT` or `unix:PATH`.
        connection: TLS and token.
        settings: Those of this process.
        timeout: Seconds for each answer.
    """
    facts: dict[str, object] = {"address": address}
    # What a retry would cover up is what is looked for.
    settings = replace(settings, channel=replace(settings.channel, retry_max_attempts=1))
    try:
        async with opened(address, connection, settings) as channel:
            times, skews = [], []
            for _ in range(_CHECKS):
                began, clock = trio.current_time(), time.time()
                found = await check(channel, timeout=timeout, metadata={CLOCK: "?"})
                times.append(trio.current_time() - began)
                if CLOCK in found:
                    skews.append((times[-1], float(found[CLOCK]) - (clock + times[-1] / 2)))
    except GRPCError as error:
        yield fail(
            f"{what} at {address} does not answer: {told(error).rstrip('.')}.",
            "Is it running, and are address, TLS and token right? `dk-trio call ADDRESS --health` asks it alone.",
            **facts,
        )
        return
    except ConfigurationError as error:
        yield fail(f"{what} at {address} cannot be called: {error.message}", error.hint, **facts)
        return
    if found["status"] != "SERVING":
        why = found.get("why", "it does not say why")
        yield fail(f"{what} at {address} is {found['status']}: {why}.", "Its log says more.", **facts)
    first, *others = times
    least, median = min(others), statistics.median(others)
    text = (
        f"{what} at {address} answers in {least * 1e3:.1f} ms at least, {median * 1e3:.1f} ms in the median; "
        f"to connect and ask took {first * 1e3:.1f} ms."
    )
    facts |= {"min_s": round(least, 6), "median_s": round(median, 6), "first_s": round(first, 6)}
    if median > _SLOW:
        yield warn(text, "Run it nearer to this process, or see what keeps it busy.", **facts)
    else:
        yield ok(text, **facts)
    if skews:
        yield _clocks(what, *min(skews))


def _clocks(what: str, took: float, skew: float) -> Finding:
    """Of the quickest answer: half of the time that it took is what the skew may be wrong by."""
    side = "ahead of" if skew > 0 else "behind"
    text = f"The clock of {what[:1].lower()}{what[1:]} is {abs(skew) * 1e3:.0f} ms {side} ours (± {took * 500:.0f} ms)."
    if abs(skew) > _SKEW:
        return warn(text, "Let both machines take the time from NTP.", skew_s=round(skew, 3))
    return ok(text, skew_s=round(skew, 3))
