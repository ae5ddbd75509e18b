"""Threads that a module's code has left behind, when everything else has ended."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Sequence
from typing import Final

from ._exits import Exit

_log = logging.getLogger("dk_trio.serve")

GRACE: Final = 3.0
"""Seconds that they get. Nothing is lost when they are left: every job has ended, and every caller was told."""


def leave_threads_behind() -> None:
    """See to it that the process ends soon; called where nothing is left to do but that.

    Python waits at its end for every thread that is no daemon, and an author may have started one that does not end:
    whoever sent SIGTERM would have to send SIGKILL. A pool's threads end by themselves in that wait. So it is given
    `GRACE` seconds; then the threads are named, and the process ends with the exit code of code that goes on.
    """
    main = threading.main_thread()
    left = [thread for thread in threading.enumerate() if thread is not main and not thread.daemon]
    if left:
        threading.Thread(target=_end, args=(left,), name="the end of dk-trio", daemon=True).start()


def _end(left: Sequence[threading.Thread]) -> None:
    until = time.monotonic() + GRACE
    for thread in left:
        thread.join(max(0.0, until - time.monotonic()))
    names = ", ".join(thread.name for thread in left if thread.is_alive())
    if names:
        # The log is closed by now, so this goes to stderr as Python does it when there is none.
        _log.error("stopped around threads that a module has started and that do not end: %s", names)
        os._exit(Exit.STUCK)
