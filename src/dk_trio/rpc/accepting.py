"""The accept loop of a server: as `trio.serve_listeners`, which logs a traceback each 0.1 s while there is no room."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Awaitable, Callable
from math import inf
from typing import Final, NoReturn, TypeVar

import trio

PAUSE: Final = 0.1
"""Seconds between two tries while the system has no room for a connection; it queues those that come."""
TELL_EVERY: Final = 60.0
"""Seconds between two lines of the log that say so."""

NO_ROOM: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""Errors of the system that has no room for a connection now."""

S = TypeVar("S", bound=trio.abc.Stream)

_logger = logging.getLogger("dk_trio.rpc.server")


async def accept_all(
    listener: trio.abc.Listener[S],
    serve: Callable[[S], Awaitable[None]],
    connections: trio.Nursery,
) -> NoReturn:
    """Give each connection a task in `connections`, until cancelled. Closes the listener.

    Raises:
        OSError: The listener is broken. That the system has no room for a connection is waited out.
    """
    told_at = -inf
    quiet = True
    async with listener:
        while True:
            try:
                stream = await listener.accept()
            except OSError as error:
                if error.errno not in NO_ROOM:
                    raise
                if trio.current_time() - told_at >= TELL_EVERY:
                    told_at = trio.current_time()
                    quiet = False
                    why = os.strerror(error.errno)
                    _logger.log(logging.ERROR, "no connection can be accepted: %s; raise ulimit -n", why)
                await trio.sleep(PAUSE)
                continue
            if not quiet:
                _logger.info("connections are accepted again")
                quiet = True
            connections.start_soon(_served, serve, stream)


async def _served(serve: Callable[[S], Awaitable[None]], stream: S) -> None:
    try:
        await serve(stream)
    finally:
        await trio.aclose_forcefully(stream)
