"""Workers as processes of this machine: started with two sockets, fed with descriptors, reaped."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from secrets import token_hex
from typing import Self

import trio

from dk_trio.addresses import with_port
from dk_trio.listening import open_listeners

from ._group import GroupReport, WorkerGroup
from ._handover import hand
from ._post import Post


class ProcessChild:
    """A `_worker.Child`."""

    def __init__(self, process: trio.Process, line: socket.socket, channel: socket.socket) -> None:
        self._process = process
        self._channel = channel
        channel.setblocking(False)
        self._line = trio.socket.from_stdlib_socket(line)
        self.pid = process.pid
        self.control: trio.abc.Stream = trio.SocketStream(self._line)

    def hand(self, connection: trio.SocketStream) -> bool:
        """See `_worker.Child`."""
        return hand(self._channel, connection)

    async def wait(self) -> int:
        """See `_worker.Child`."""
        return await self._process.wait()

    def send_signal(self, number: int) -> None:
        """See `_worker.Child`."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    def kill(self) -> None:
        """See `_worker.Child`."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    def close(self) -> None:
        """See `_worker.Child`."""
        self._line.close()
        self._channel.close()


async def start(
    number: int, beside: bool, command: Callable[[Post], Sequence[str]], *, host: str, port: int, crew: str = ""
) -> ProcessChild:
    """Start the process of one worker, which inherits its ends of two sockets and no other descriptor above 2.

    Raises:
        OSError: The system has no room for it.
    """
    with contextlib.ExitStack() as theirs, contextlib.ExitStack() as ours:
        pairs = [socket.socketpair(), socket.socketpair()]
        for mine, other in pairs:
            ours.enter_context(mine)
            theirs.enter_context(other)
        (line, control), (channel, handover) = pairs
        post = Post(
            number=number,
            control=control.fileno(),
            handover=handover.fileno(),
            host=host,
            port=port,
            beside=beside,
            crew=crew,
        )
        process = await trio.lowlevel.open_process(
            command(post), stdin=subprocess.DEVNULL, pass_fds=(post.control, post.handover)
        )
        ours.pop_all()
        return ProcessChild(process, line, channel)


async def run_workers(
    count: int,
    command: Callable[[Post], Sequence[str]],
    *,
    host: str,
    port: int,
    grace: float,
    drain_within: float,
    on_ready: Callable[[str], object],
) -> GroupReport:
    """Listen, and let workers serve, until SIGTERM or SIGINT; then drain.

    SIGHUP replaces the workers one by one, SIGUSR1 goes to each of them. Must be called in the main thread, as signals
    want it.

    Args:
        count: How many workers.
        command: The command line of a worker, from its post.
        host: Address to listen on.
        port: Port to listen on, 0 for any free one.
        grace: Seconds that the jobs of workers get to end by themselves; workers know it too.
        drain_within: Seconds after which a worker that drains is killed.
        on_ready: Called once with `HOST:PORT` when all workers are ready.

    Raises:
        ListenError: The address cannot be listened on.
        WorkerStartError: A worker has ended before all were ready.
    """
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1) as signals:
        listeners = await open_listeners(host, port)
        port = listeners[0].socket.getsockname()[1]
        group = WorkerGroup[trio.SocketStream](
            count,
            partial(start, command=command, host=host, port=port, crew=token_hex(8)),
            drain_within=drain_within,
            grace=grace,
            close=lambda connection: connection.socket.close(),
        )
        address = with_port(host, port)
        return await group.run(listeners, orders=_Orders(signals), on_ready=lambda: on_ready(address))


class _Orders:
    """Signals as they come. The SIGHUP of a terminal that is gone means what it does to everybody: the end."""

    def __init__(self, signals: AsyncIterator[int]) -> None:
        self._signals = signals
        self._at_a_terminal = os.isatty(2)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> int:
        number = await anext(self._signals)
        return signal.SIGTERM if number == signal.SIGHUP and self._at_a_terminal and not os.isatty(2) else number
