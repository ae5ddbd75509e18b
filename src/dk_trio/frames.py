"""Whose line a frame is: what a stack or a waiting task is told by is the innermost line that an author can change."""

from __future__ import annotations

import functools
import linecache
import os
from collections.abc import Iterable
from pathlib import Path
from types import FrameType
from typing import Final

_STANDARD: Final = str(Path(os.__file__).parent) + os.sep
_OURS: Final = str(Path(__file__).parent) + os.sep
_EXAMPLES: Final = _OURS + "_examples" + os.sep  # what `dk-trio demo` serves is an author's like any other
_INSTALLED: Final = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")

# Installed packages that carry every module's code, so that naming their lines says nothing.
_CARRIERS: Final = frozenset(
    "anyio betterproto2 dk_trio grpclib hypercorn outcome pydantic starlette tenacity trio".split()
)

_OTHERS, _PACKAGE, _AUTHORS = 0, 1, 2


def authors_frame(frames: Iterable[tuple[FrameType, int]]) -> tuple[FrameType, int] | None:
    """The innermost frame of an author's code, with its line; None when there is none.

    A module may be an installed package: such a frame counts when no other one is an author's.

    Args:
        frames: With their lines, innermost last.
    """
    best, found = _OTHERS, None
    for frame, line in frames:
        rank = _rank(frame.f_code.co_filename)
        if rank >= best and rank:
            best, found = rank, (frame, line)
    return found


def place(frame: FrameType, line: int, *, source: bool = False) -> str:
    """`FILE:LINE in FUNCTION`, with the text of the line when `source` is set, which may read the file."""
    code = frame.f_code
    told = f"{code.co_filename}:{line} in {code.co_qualname}"
    text = linecache.getline(code.co_filename, line, frame.f_globals).strip() if source else ""
    return f"{told}: {text}" if text else told


@functools.lru_cache(maxsize=4096)  # of file names: there are as many as a process has modules
def _rank(file: str) -> int:
    if file.startswith(_EXAMPLES):
        return _AUTHORS
    if file.startswith((_OURS, "<frozen ")):
        return _OTHERS
    for mark in _INSTALLED:
        if mark in file:
            package = file.rpartition(mark)[2].partition(os.sep)[0]
            return _OTHERS if package in _CARRIERS else _PACKAGE
    return _OTHERS if file.startswith(_STANDARD) else _AUTHORS
