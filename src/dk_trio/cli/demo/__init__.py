"""`dk-trio demo`: the main job from outside, with real processes and real sockets.

First one module: its stream with timings, a caller that leaves, a clean stop. Then a mesh: a services-provider, and two
modules that find each other by it, call each other, and are cancelled by a signal. Fails when any of that fails.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from ._processes import DemoError

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
    try:
        trio.run(_demo)
    except* DemoError as group:
        failures += [error.message for error in _leaves(group)]
    except* GRPCError as group:
        failures += [f"a call ended with {error.status.name}: {error.message}" for error in _leaves(group)]
    if failures:
        raise DemoError("; ".join(failures))


async def _demo() -> None:
    import trio

    from . import _mesh, _one

    with trio.move_on_after(DEADLINE) as scope:
        await _one.show()
        await _mesh.show()
        click.echo("\nEverything worked.")
    if scope.cancelled_caught:
        raise DemoError(f"the demo did not end within {DEADLINE:g} s")


def _leaves(error: BaseException) -> Iterator[Any]:
    """The exceptions in a group, which each nursery puts into one more."""
    if isinstance(error, BaseExceptionGroup):
        for part in error.exceptions:
            yield from _leaves(part)
    else:
        yield error
