"""Where the contents of files are: a directory, or memory. What the index does not know is as good as not there.

A content is written once, under a name that is made for it and never used again, and does not change until it is
removed. So nothing here needs a lock: nobody finds a content before the index names it, and once no row of the index
names it nobody can come to need it again. What a crash leaves behind is a content without a row: the sweep finds it.
Contents of another index would look the same, so a file beside the directory says whose it is: all others are refused.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import itertools
import os
import re
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, ParamSpec, Protocol, TypeVar

import trio
from grpclib.const import Status

from dk_trio import chance
from dk_trio.errors import DatabaseError, FilesystemServiceError
from dk_trio.services.filesystem import Content

from .database import SETTING
from .durable import sync

P = ParamSpec("P")
T = TypeVar("T")

# Bytes of one step. A hop to a thread takes 0.1 ms, to hash and write so many 0.3 ms; a cancel waits for one step.
PIECE: Final = 256 * 1024

# Bytes of all contents in memory. Such a platform is for tests and trials, and must not take the machine down.
MEMORY_MAX: Final = 256 * 1024 * 1024

# Threads for contents: enough to keep a disk busy.
THREADS: Final = 8

# Seconds to remove what a failed or cancelled upload has written; if that is not enough, the next sweep does it.
CLEANUP_GRACE: Final = 10

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

OWNER: Final = ".owner"
"""Suffix of the file beside the directory that has the id of the index."""

_NAME = re.compile(r"[0-9a-f]{32}")
_SWEEP_STEP = 1000

Known = Callable[[list[str]], Awaitable[set[str]]]
"""Which of these names the index knows."""


class ContentGoneError(Exception):
    """The content was removed between the look into the index and its opening."""


@dataclass(frozen=True, slots=True)
class StoredContent:
    """A content that is written and, in a directory, durable."""

    name: str
    digest: str
    size: int


class Contents(Protocol):
    """Contents by name."""

    async def run(self, work: Callable[[], T]) -> T:
        """Do blocking work on files: in a thread, or at once where no thread may be, under a virtual clock."""
        ...

    async def write(self, pieces: AsyncIterator[bytes]) -> StoredContent:
        """Write a content. Cancelled or failed, it leaves nothing."""
        ...

    def opened(self, content: StoredContent) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Its pieces; once opened it can be read to its end, even if it is removed meanwhile."""
        ...

    async def remove(self, names: Iterable[str]) -> None:
        """Remove contents; one that is not there is no matter."""
        ...

    async def claim(self, owner: str, known: Known) -> None:
        """Be those of an index. Only before anything else is done.

        Args:
            owner: Its id.
            known: What it knows.

        Raises:
            DatabaseError: They are those of another one.
        """
        ...

    async def sweep(self, known: Known) -> int:
        """Remove what the index does not know, and say how many that were. Only after `claim`, before all else."""
        ...

    def uri(self, name: str) -> str:
        """Where a content is."""
        ...


class DiskContents:
    """Contents as files of a directory, which is made when the first is written.

    Args:
        directory: Where; nothing else should be in it.
        setting: What chooses the directory, for remedies.
    """

    def __init__(self, directory: Path, *, setting: str = SETTING) -> None:
        self._directory = directory
        self._setting = setting
        self._owner, self._claimed = "", False
        # Of our own: an upload must not wait for threads that authors keep busy.
        self._threads = trio.CapacityLimiter(THREADS)

    def __repr__(self) -> str:
        return f"<DiskContents {self._directory}>"

    async def run(self, work: Callable[[], T]) -> T:
        return await trio.to_thread.run_sync(work, limiter=self._threads)

    async def _run(self, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await self.run(lambda: work(*args, **kwargs))
        except OSError as error:
            raise FilesystemServiceError(
                f"The store of files failed: {error}.",
                hint=f"Look at the disk, or set {self._setting} to another directory.",
                status=Status.RESOURCE_EXHAUSTED if error.errno in _FULL else Status.UNAVAILABLE,
            ) from error

    async def write(self, pieces: AsyncIterator[bytes]) -> StoredContent:
        name = chance.new_uuid().hex
        if not self._claimed:
            self._check(await self._run(_owner_of, self._directory, self._owner))
        writer = await self._run(_Writer, self._directory / name)
        try:
            async for piece in pieces:
                await self._run(writer.add, piece)
            await self._run(writer.finish)
        except BaseException:
            with trio.move_on_after(CLEANUP_GRACE, shield=True):
                await self._run(writer.discard)
            raise
        return StoredContent(name, writer.digest.hexdigest(), writer.size)

    @asynccontextmanager
    async def opened(self, content: StoredContent) -> AsyncIterator[AsyncIterator[bytes]]:
        try:
            file = await self._run((self._directory / content.name).open, "rb", buffering=0)
        except FilesystemServiceError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                raise ContentGoneError from None
            raise
        with file:  # closed here, not in a thread: nothing is left to write
            async with aclosing(self._read(file, content)) as pieces:
                yield pieces

    async def _read(self, file: BinaryIO, content: StoredContent) -> AsyncGenerator[bytes]:
        rest = content.size
        while rest:
            piece = await self._run(file.read, min(PIECE, rest))
            if not piece:
                raise FilesystemServiceError(f"The content {content.name} lacks its last {rest} bytes.")
            rest -= len(piece)
            yield piece

    async def remove(self, names: Iterable[str]) -> None:
        paths = [self._directory / name for name in names]
        if paths:
            await self._run(_unlink, paths)

    async def claim(self, owner: str, known: Known) -> None:
        self._owner = owner
        if not await self._run(self._directory.is_dir):  # it is claimed by the first that is written
            return
        there = await self._run(_owner_of, self._directory)
        if not there:  # an earlier release has made it, or it is a copy: then its contents are known
            with await self._run(os.scandir, self._directory) as entries:
                names = (entry.name for entry in entries if _NAME.fullmatch(entry.name))
                some = await self._run(list, itertools.islice(names, _SWEEP_STEP))
            if not some or await known(some):
                there = await self._run(_owner_of, self._directory, owner)
        self._check(there)

    def _check(self, owner: str) -> None:
        if owner != self._owner:
            raise DatabaseError(
                f"The directory {self._directory} has contents of files of another database.",
                hint=f"Use that database, move {self._directory} away, or set {self._setting} to another directory.",
            )
        self._claimed = True

    async def sweep(self, known: Known) -> int:
        if not await self._run(self._directory.is_dir):
            return 0
        swept = 0
        with await self._run(os.scandir, self._directory) as entries:
            names = (entry.name for entry in entries if _NAME.fullmatch(entry.name))
            while step := await self._run(list, itertools.islice(names, _SWEEP_STEP)):
                unknown = set(step) - await known(step)
                await self.remove(unknown)
                swept += len(unknown)
        return swept

    def uri(self, name: str) -> str:
        return (self._directory / name).absolute().as_uri()


def _owner_of(directory: Path, new: str = "") -> str:
    """Whose a directory is; `new` makes it, durably, if it is nobody's or not there."""
    path = directory.with_suffix(OWNER)
    if not new:
        return _read_owner(path)
    _make(directory.parent)
    with path.open("a", encoding="ascii") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # between the look and the claim nobody else may claim it
        if directory.is_dir() and (owner := _read_owner(path)):
            return owner
        file.truncate(0)  # of a directory that was moved away
        file.write(new)
        file.flush()
        os.fsync(file.fileno())
        sync(directory.parent)
        _make(directory)
    return new


def _read_owner(path: Path) -> str:
    """What the file says; nothing when it is not there, or was not written to its end."""
    with suppress(FileNotFoundError):
        owner = path.read_text(encoding="ascii")
        return owner if _NAME.fullmatch(owner) else ""
    return ""


class _Writer:
    """A content that is being written. Every method blocks."""

    def __init__(self, path: Path) -> None:
        _make(path.parent)
        self._path = path
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o400)
        self.digest = hashlib.sha256()
        self.size = 0

    def add(self, piece: bytes) -> None:
        self.digest.update(piece)
        self.size += len(piece)
        rest = memoryview(piece)
        while rest:
            rest = rest[os.write(self._file, rest) :]

    def finish(self) -> None:
        """Return when the content and its entry in the directory are on the disk: the index may name it from now on."""
        os.fsync(self._file)
        self._close()
        sync(self._path.parent)

    def discard(self) -> None:
        with suppress(OSError):  # what cannot be removed now is swept later; why the upload ended matters more
            self._close()
            self._path.unlink(missing_ok=True)

    def _close(self) -> None:
        if self._file >= 0:
            file, self._file = self._file, -1
            os.close(file)


def _make(directory: Path) -> None:
    """Make a directory and those above it that are missing, all of them durable before a content is in them."""
    if directory.is_dir():
        return
    _make(directory.parent)
    with suppress(FileExistsError):  # of another upload; a file in its place shows when it is used
        directory.mkdir(mode=0o700)
    sync(directory.parent)


def _unlink(paths: Iterable[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


class MemoryContents:
    """Contents in memory, for as long as this object lives.

    Args:
        limit: Bytes of all contents; what does not fit is `FilesystemServiceError`.
        setting: What chooses a directory instead, for remedies.
    """

    def __init__(self, limit: int = MEMORY_MAX, *, setting: str = SETTING) -> None:
        self._limit = limit
        self._setting = setting
        self._used = 0
        self._contents: dict[str, list[bytes]] = {}

    def __repr__(self) -> str:
        return f"<MemoryContents {len(self._contents)} contents, {self._used} of {self._limit} bytes>"

    async def run(self, work: Callable[[], T]) -> T:
        await trio.lowlevel.checkpoint()
        return work()

    async def write(self, pieces: AsyncIterator[bytes]) -> StoredContent:
        name = chance.new_uuid().hex
        content = self._contents[name] = []
        digest = hashlib.sha256()
        size = 0
        try:
            async for piece in pieces:
                await trio.lowlevel.checkpoint()
                if self._used + len(piece) > self._limit:
                    raise FilesystemServiceError(
                        f"Files in memory may have {self._limit} bytes together, and this one does not fit.",
                        hint=f"{self._setting} names a directory to keep them in.",
                        status=Status.RESOURCE_EXHAUSTED,
                    )
                content.append(piece)
                digest.update(piece)
                size += len(piece)
                self._used += len(piece)
        except BaseException:
            self._drop(name)
            raise
        return StoredContent(name, digest.hexdigest(), size)

    @asynccontextmanager
    async def opened(self, content: StoredContent) -> AsyncIterator[AsyncIterator[bytes]]:
        await trio.lowlevel.checkpoint()
        pieces = self._contents.get(content.name)
        if pieces is None:
            raise ContentGoneError
        async with aclosing(_each(pieces)) as stream:
            yield stream

    async def remove(self, names: Iterable[str]) -> None:
        for name in names:
            self._drop(name)

    async def claim(self, owner: str, known: Known) -> None:
        pass  # nobody else can reach it

    async def sweep(self, known: Known) -> int:
        return 0  # what is in memory was written by this process, which removes what it has no use for

    def uri(self, name: str) -> str:
        return f"memory:{name}"

    def _drop(self, name: str) -> None:
        self._used -= sum(map(len, self._contents.pop(name, ())))


async def _each(pieces: Iterable[bytes]) -> AsyncGenerator[bytes]:
    for piece in pieces:
        await trio.lowlevel.checkpoint()
        yield piece


def pieces_of(content: Content, contents: Contents) -> AsyncGenerator[bytes]:
    """What is to be written to `contents`, in pieces of `PIECE` bytes, the last one shorter, one at a time."""
    if isinstance(content, bytes):
        return _pieces_of_bytes(content)
    if isinstance(content, os.PathLike):
        return _pieces_of_file(Path(content), contents)
    return _pieces_of_stream(content)


async def _pieces_of_bytes(content: bytes) -> AsyncGenerator[bytes]:
    view = memoryview(content)
    for start in range(0, len(view), PIECE):
        yield bytes(view[start : start + PIECE])


async def _pieces_of_stream(content: AsyncIterable[bytes]) -> AsyncGenerator[bytes]:
    """Joins small pieces, since a byte is not worth a thread, and cuts large ones, since a cancel waits for a piece."""
    buffer = bytearray()
    source = aiter(content)
    try:
        async for piece in source:
            with memoryview(piece).cast("B") as view:  # released, so that a bytearray can be used again
                for start in range(0, len(view), PIECE):
                    buffer += view[start : start + PIECE]
                    if len(buffer) >= PIECE:
                        yield bytes(buffer[:PIECE])
                        del buffer[:PIECE]
        if buffer:
            yield bytes(buffer)
    finally:
        close = getattr(source, "aclose", None)
        if close is not None:  # a generator: its `finally` runs here, not when the collector comes by
            await close()


async def _pieces_of_file(path: Path, contents: Contents) -> AsyncGenerator[bytes]:
    try:
        if not await contents.run(path.is_file):  # to open a pipe could take for ever
            raise FilesystemServiceError(f"The content cannot be read from {path}: no such file, or not a regular one.")
        with await contents.run(lambda: path.open("rb", buffering=0)) as file:
            while piece := await contents.run(lambda: file.read(PIECE)):
                yield piece
    except OSError as error:
        raise FilesystemServiceError(f"The content cannot be read from {path}: {error.strerror}.") from error
