"""The line between a parent and one of its workers: JSON objects, one a line, in order, both ways.

Neither side may be held up by the other, which may be stopped, or busy with an author's loop. So `offer` never waits:
it queues, up to a number of bytes, and says whether it did. What is queued goes out with one call.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

import trio

LINE_BYTES: Final = 2 * 2**20
"""Longest line that is sent or read; a list of ten thousand jobs is a quarter of it."""
QUEUED_BYTES: Final = 8 * 2**20
"""Most that waits for a reader."""
READ_BYTES: Final = 64 * 1024


class ControlError(Exception):
    """The other side has sent what is no line of this protocol."""


def line_of(message: Mapping[str, Any]) -> bytes:
    """A message as it is sent."""
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


class Control:
    """One end of the line. `run` does the work; the stream is closed by whoever gave it."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._out = bytearray()
        self._writing = False
        self._queued = trio.Event()
        self._flushed = trio.Event()

    def __repr__(self) -> str:
        return f"<Control, {len(self._out)} bytes queued>"

    def offer(self, message: Mapping[str, Any]) -> bool:
        """Queue a message; False, and nothing is queued, when too much waits already or it is too long to be read."""
        line = line_of(message)
        if len(line) > LINE_BYTES or len(self._out) + len(line) > QUEUED_BYTES:
            return False
        self._out += line
        self._queued.set()
        return True

    async def flushed(self) -> None:
        """Wait until all that was queued is with the system. For ever, when the other side reads no more."""
        while self._out or self._writing:
            await self._flushed.wait()

    async def run(self, handle: Callable[[dict[str, Any]], object]) -> None:
        """Send what is offered, and call `handle` with each message, until the other side is gone.

        Raises:
            ControlError: See there.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._write)
            await self._read(handle)
            nursery.cancel_scope.cancel()

    async def _write(self) -> None:
        while True:
            await self._queued.wait()
            self._queued = trio.Event()
            lines, self._out = self._out, bytearray()
            self._writing = True
            try:
                await self._stream.send_all(lines)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return  # the reader sees the end too, after what was sent last
            finally:
                self._writing = False
            if not self._out:
                self._flushed.set()
                self._flushed = trio.Event()

    async def _read(self, handle: Callable[[dict[str, Any]], object]) -> None:
        rest = bytearray()
        while True:
            try:
                data = await self._stream.receive_some(READ_BYTES)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return
            if not data:
                return
            rest += data
            *lines, rest = rest.split(b"\n")
            for line in lines:
                handle(_parsed(bytes(line)))
            if len(rest) > LINE_BYTES:
                raise ControlError(f"a line of more than {LINE_BYTES} bytes")


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        message = json.loads(line)
    except ValueError as error:
        raise ControlError(f"no JSON: {line[:80]!r}") from error
    if not isinstance(message, dict):
        raise ControlError(f"no object: {line[:80]!r}")
    return message
