"""`dk-trio demo`: the main job from outside, with real processes and real sockets.

First one module: its stream with timings, a caller that leaves, a clean stop. Then a mesh: a services-provider, and two
modules that find each other by it, call each other, and are cancelled by a signal. Fails when any of that fails.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

import click

from ._processes import DemoError

# The number of a signal stands for a process that it ended.
_SIGNAL_BASE = 128

# Seconds for the whole demo: a machine under load takes a few, and nobody watches longer.
DEADLINE = 90.0


@click.command(
    epilog="""\b
Examples:
  dk-trio demo

It takes some seconds and ports of 127.0.0.1 that are free, and leaves nothing behind."""
)
def command() -> None:
    """Serve examples, call them, show a stream, cancels, and a mesh around a provider."""
    import trio
    from grpclib.exceptions import GRPCError

    failures: list[str] = []
    ended_by = 0
    try:
        ended_by = trio.run(_demo)
    except* DemoError as group:
        failures += [error.message for error in _leaves(group)]
    except* GRPCError as group:
        failures += [f"a call ended with {error.status.name}: {error.message}" for error in _leaves(group)]
    if failures:
        raise DemoError("; ".join(failures))
    if ended_by:
        sys.exit(_SIGNAL_BASE + ended_by)


async def _demo() -> int:
    """Show everything.

    Returns:
        The signal that ended it before; 0 without one.
    """
    import trio

    from . import _mesh, _one

    received: list[int] = []
    # Whoever has told a program not to mind a hang-up, as `nohup` does, means its processes, too.
    minded = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) is not signal.SIG_IGN]

    async def end_at_a_signal(signals: AsyncIterator[int]) -> None:
        received.append(await anext(signals))
        nursery.cancel_scope.cancel()

    with trio.move_on_after(DEADLINE) as scope, trio.open_signal_receiver(*minded) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(end_at_a_signal, signals)
            await _one.show()
            await _mesh.show()
            click.echo("\nEverything worked.")
            nursery.cancel_scope.cancel()
    if scope.cancelled_caught:
        raise DemoError(f"the demo did not end within {DEADLINE:g} s")
    return received[0] if received else 0


def _leaves(error: BaseException) -> Iterator[Any]:
    """The exceptions in a group, which each nursery puts into one more."""
    if isinstance(error, BaseExceptionGroup):
        for part in error.exceptions:
            yield from _leaves(part)
    else:
        yield error
