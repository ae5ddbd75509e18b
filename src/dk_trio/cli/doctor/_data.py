"""Whether what is kept can be kept: the directory of data, its locks, its disk."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ._finding import Finding, Level, fail, ok, warn

if TYPE_CHECKING:
    from dk_trio.settings import Settings

_SETTING: Final = "DIGITALKIN_DATA_DIR"
_FULL: Final = 64 * 2**20
_LITTLE: Final = 2**30


def data(settings: Settings) -> Iterator[Finding]:
    """The directories that something is written to. Blocks for as long as the disk does."""
    directory = settings.services.data_dir
    if directory is None:
        yield ok("No data are kept on disk.")
    else:
        written = _written("data", directory, _SETTING, fail)
        yield written
        if written.level is Level.OK:
            yield from _locks(directory)
            yield _room(_nearest(directory))
    observe = settings.observe
    if observe.log_file is not None:
        yield _written("the log", observe.log_file.parent, "DIGITALKIN_LOG_FILE", warn)
    elif observe.log_dir != type(observe)().log_dir:  # where the default cannot be written, there is no file
        yield _written("the log", observe.log_dir, "DIGITALKIN_LOG_DIR", warn)
    if observe.profiler != "none":
        yield _written("profiles", observe.profile_output_dir, "DIGITALKIN_PROFILE_OUTPUT_DIR", warn)


def _written(what: str, directory: Path, setting: str, refuse: Callable[..., Finding]) -> Finding:
    there = directory
    try:
        there = _nearest(directory)
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        return refuse(
            f"{there}, for {what}, cannot be written: {error.strerror}.",
            f"Make it writable, or set {setting} to another place.",
            directory=str(directory),
        )
    state = "can be written" if directory.exists() else "is made when needed"
    return ok(f"{directory}, for {what}, {state}.", directory=str(directory))


def _nearest(directory: Path) -> Path:
    """The directory, or the first one above it that there is."""
    directory = directory.absolute()
    return next(folder for folder in (directory, *directory.parents) if folder.exists())


def _room(there: Path) -> Finding:
    free = shutil.disk_usage(there).free
    inodes = os.statvfs(there).f_favail
    text = f"{free / 2**30:.1f} GiB are free at {there}."
    remedy = f"Make room, or set {_SETTING} to another disk."
    if free < _FULL or inodes == 0:
        return fail(text if inodes else f"No more files can be made at {there}: it has no inodes left.", remedy)
    if free < _LITTLE:
        return warn(text, remedy, free_bytes=free)
    return ok(text, free_bytes=free)


def _locks(directory: Path) -> Iterator[Finding]:
    """Each server and provider has a directory of its own in it, and locks it for as long as it runs."""
    from dk_trio.services.stores.sqlite import LOCK

    for lock in sorted({directory / LOCK, *directory.glob(f"*/{LOCK}")}):
        try:
            descriptor = os.open(lock, os.O_RDONLY)
        except OSError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            pid = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
            yield ok(f"{lock.parent} is in use by the process {pid}.", directory=str(lock.parent), pid=pid)
        finally:
            os.close(descriptor)  # and with it the lock
