"""What a server tells in its log and nowhere else: signals that are lost, and errors of its own. So the log is read."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

_SIGNALS: Final = "dk_trio.signals"
_RPC: Final = "dk_trio.rpc"
_ID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_LOST: Final = re.compile(r" lost: | is dropped, ")


@contextmanager
def told_noted(note_loss: Callable[[str], object], note_defect: Callable[[str], object]) -> Iterator[None]:
    """Note what is told, in the context of who tells it.

    Args:
        note_loss: Called with the id of each job whose signal is lost.
        note_defect: Called with what a connection has ended by that is not to be expected of any.
    """

    def signals(record: logging.LogRecord) -> None:
        text = record.getMessage()
        if _LOST.search(text):
            for job_id in _ID.findall(text):
                note_loss(job_id)

    def rpc(record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            note_defect(f"{record.getMessage()}: {type(error).__name__}")

    handlers = {_SIGNALS: _Errors(signals), _RPC: _Errors(rpc)}
    for name, handler in handlers.items():
        logging.getLogger(name).addHandler(handler)
    try:
        yield
    finally:
        for name, handler in handlers.items():
            logging.getLogger(name).removeHandler(handler)


class _Errors(logging.Handler):
    def __init__(self, take: Callable[[logging.LogRecord], object]) -> None:
        super().__init__(logging.ERROR)
        self._take = take

    def emit(self, record: logging.LogRecord) -> None:
        self._take(record)
