"""Files that are read again when they have changed; what cannot be used keeps what was loaded before.

Whoever replaces a pair of files does so one after the other, and a look may fall in between: what does not fit together
is told once, and tried again when it changes again. Contents count and not times: a Kubernetes secret is a link that
moves, a copy may keep the time of its origin, and two writes may have the same one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Final, Generic, TypeVar

import trio

from dk_trio.errors import ConfigurationError

_log = logging.getLogger("dk_trio.security")

T = TypeVar("T")

RELOAD_INTERVAL: Final = 10.0
"""Seconds between two looks, where nothing else is said: the default of `DIGITALKIN_TLS_RELOAD_INTERVAL`."""


class Reloaded(Generic[T]):
    """What was made of some files, and is made anew when they change.

    Args:
        what: It, for the log.
        paths: The files.
        load: Makes it; raises ConfigurationError when it cannot.

    Attributes:
        current: What was made last.
        reloads: Times that it was made anew.
        failures: Times that it could not be made anew.

    Raises:
        ConfigurationError: What `load` says of the files as they are now.
    """

    def __init__(self, what: str, paths: Sequence[Path], load: Callable[[], T]) -> None:
        self._what = what
        self._paths = tuple(paths)
        self._load = load
        self._content = self._read()
        self.current = load()
        self.reloads = self.failures = 0

    def __repr__(self) -> str:
        return f"<Reloaded {self._what}, {self.reloads} reloads, {self.failures} failures>"

    async def watch(self, interval: float) -> None:
        """Look every `interval` seconds, for ever. A disk that does not answer holds a thread, and not the loop."""
        if not self._paths:
            return
        while True:
            await trio.sleep(interval)
            try:
                # A look changes nothing but this object, so one that hangs may be left to end by itself.
                await trio.to_thread.run_sync(self.look, abandon_on_cancel=True)
            except RuntimeError as error:  # no thread can be had now: who watches must not end for want of one
                _log.warning("the files of %s were not looked at, that is tried again: %s", self._what, error)

    def look(self) -> bool:
        """Make it anew, if the files have changed; whether that was done."""
        content = self._read()
        if content == self._content:
            return False
        self._content = content
        try:
            self.current = self._load()
        except ConfigurationError as error:
            self.failures += 1
            _log.error("%s stays as it was, what is in its files now is not taken: %s", self._what, error.text)
            return False
        except Exception:  # noqa: BLE001  boundary: a file that goes while it is loaded ends neither the watch nor the server
            self.failures += 1
            self._content = b""  # the same files may be taken the next time
            _log.exception("%s stays as it was, it could not be loaded; that is tried again", self._what)
            return False
        self.reloads += 1
        _log.info("%s was loaded again from %s", self._what, ", ".join(map(str, self._paths)))
        return True

    def _read(self) -> bytes:
        return b"".join(map(_digest_of, self._paths))


def _digest_of(path: Path) -> bytes:
    try:
        return sha256(path.read_bytes()).digest()
    except OSError:
        return b"-" * 32
