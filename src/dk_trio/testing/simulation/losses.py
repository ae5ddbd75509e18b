"""Which signals a server has told to be lost. It tells that in its log and nowhere else, so the log is what is read."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

_LOGGER: Final = "dk_trio.signals"
_ID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_LOST: Final = re.compile(r" lost: | is dropped, ")


@contextmanager
def losses_noted(note: Callable[[str], object]) -> Iterator[None]:
    """Call `note` with the id of each job whose signal is told to be lost, in the context of who tells it."""
    handler = _Losses(note)
    logger = logging.getLogger(_LOGGER)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


class _Losses(logging.Handler):
    def __init__(self, note: Callable[[str], object]) -> None:
        super().__init__(logging.ERROR)
        self._note = note

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if _LOST.search(text):
            for job_id in _ID.findall(text):
                self._note(job_id)
