"""Files of all contexts: contents in a directory or in memory, and the index of them in the database.

A file is there when the index says so. Its content is written first, in pieces, under a name that nobody else knows,
and made durable; then one transaction makes the file visible, or gives a file its new content. If the same bytes are
stored already, the transaction takes those and the new content is removed. A content that the last file has lost is
dropped in the transaction, and removed after it. Whatever a crash, a cancel or an error leaves behind is therefore at
most a content that no row names, and the first use of the next process sweeps those away.
"""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeAlias

import trio
from grpclib.const import Status

from dk_trio import chance
from dk_trio.errors import FilesystemServiceError, StorageServiceError, StoredFileNotFoundError
from dk_trio.services.filesystem import (
    DEFAULT_CONTENT_TYPE,
    ID_PREFIX,
    LIST_MAX,
    Content,
    DeleteResult,
    FileFilter,
    FileStatus,
    FilesystemRecord,
    UploadFileData,
    check_content_type,
    check_metadata,
    check_name,
    check_status,
    check_text,
    check_type,
    refused,
)

from . import file_index as index
from .contents import CLEANUP_GRACE, ContentGoneError, Contents, DiskContents, MemoryContents, StoredContent, pieces_of
from .database import SETTING, Database
from .work import T, Work

# Bytes that one answer may hold in memory: as much as one gRPC message of the contract. `opened` has no limit.
INLINE_MAX: Final = 100 * 1024 * 1024

Change: TypeAlias = tuple[index.Row, list[str]]
"""A row as it is from now on, and contents that no file has any more."""

Dump: TypeAlias = Callable[[Change], bytes]
Load: TypeAlias = Callable[[bytes], Change]

_log = logging.getLogger("dk_trio.filesystem")


def _utc_now() -> datetime:
    return chance.utc_now()


class FileStore:
    """Files by context and id. One for all jobs of a server.

    Args:
        database: Where the index is.
        directory: Its subdirectory `files` holds the contents; it is made when the first is written. None: in memory.
            It belongs to this database, and is refused to others: what the index does not know is swept.
        now: What is written as date of a file.
        setting: What chooses the directory, as the remedies of errors name it.
    """

    def __init__(
        self,
        database: Database,
        directory: Path | None,
        *,
        now: Callable[[], datetime] = _utc_now,
        setting: str = SETTING,
    ) -> None:
        self._database = database
        self._contents: Contents = (
            MemoryContents(setting=setting) if directory is None else DiskContents(directory / "files", setting=setting)
        )
        self._now = now
        self._claimed = self._swept = False
        self._sweeping = trio.Lock()
        database.declare("files", index.SCHEMA)

    def __repr__(self) -> str:
        return f"<FileStore of {self._contents!r}>"

    # --- one file ----------------------------------------------------------------------------------------------------

    async def put(
        self,
        context: str,
        file: UploadFileData,
        *,
        max_size: int,
        field: str = "file",
        file_id: str | None = None,
        status: FileStatus = "ACTIVE",
    ) -> FilesystemRecord:
        """Store a file.

        Args:
            context: The id of its context.
            file: The file; its own `context` is not looked at.
            max_size: Bytes that its content may have.
            field: What the file is called in errors, such as `files[0]`.
            file_id: Its id, if it is new; None: a new one. When a file of this id is there already, the upload has come
                before: it is returned as it is, and the content is not read.
            status: What it is when it is stored.

        Raises:
            InvalidFileError: Something of the file is not allowed.
            FileExistsInContextError: The name is taken, or the id by a file of another context.
            Exception: What the content's own iterable raises.
        """
        name = check_name(file.name, f"{field}.name")
        content_type = check_content_type(file.content_type or DEFAULT_CONTENT_TYPE, f"{field}.content_type")
        metadata = None if file.metadata is None else check_metadata(file.metadata, f"{field}.metadata")
        key = None if file_id is None else index.full_id(check_text(file_id, "file_id"))
        if key == ID_PREFIX:
            raise refused("file_id", "an id is not empty")

        def uploaded() -> Work[index.Row | None]:
            row = None if key is None else (yield from index.row_with_id(key))
            if row is not None and row.context != context:
                raise index.id_taken(context, row.id)
            return row

        def existing() -> Work[index.Row | None]:
            row = yield from index.row_named(context, name)
            if row is not None and not file.replace_if_exists:
                raise index.name_taken(context, name, f"{field}.name", "replace_if_exists=True replaces it.")
            return row

        def before() -> Work[index.Row | None]:
            row = yield from uploaded()
            if row is None:
                yield from existing()
            return row

        def work(content: StoredContent) -> Work[Change]:
            row = yield from uploaded()
            if row is not None:
                return row, []
            old = yield from existing()
            now = index.microseconds(self._now())
            row = index.Row(
                id=(key or ID_PREFIX + str(chance.new_uuid())) if old is None else old.id,
                context=context,
                name=name,
                file_type=file.file_type,
                content_type=content_type,
                metadata=metadata,
                status=status,
                created=now if old is None else old.created,
                updated=now,
                content=content.name,
                digest=content.digest,
                size=content.size,
            )
            if old is None:
                yield from index.insert(row)
                return row, []
            yield from index.change(row)
            return row, (yield from index.drop_unused([old.content]))

        row = await self._read(before)  # a name that is taken is told before a gigabyte was read, not after
        if row is not None:
            return row.record(self._contents.uri)
        return await self._stored(file.content, work, max_size=max_size, field=f"{field}.content")

    async def get(self, context: str, file_id: str) -> FilesystemRecord:
        """A file without its content.

        Raises:
            StoredFileNotFoundError: No such file in this context.
        """
        row = await self._read(partial(index.row_of, context, file_id))
        return row.record(self._contents.uri)

    async def get_with_content(self, context: str, file_id: str, *, room: int = INLINE_MAX) -> FilesystemRecord:
        """A file with its content.

        Raises:
            StoredFileNotFoundError: No such file in this context.
            FilesystemServiceError: The content has more bytes than there is room for.
        """
        async with self.opened(context, file_id) as (record, pieces):
            if record.size_bytes > room:
                raise FilesystemServiceError(
                    f"The content of {record.id} does not fit into the {INLINE_MAX} bytes of one answer.",
                    hint="`open_file` streams a file of any size; fewer files may be asked for at a time.",
                )
            record.content = b"".join([piece async for piece in pieces])
        return record

    @asynccontextmanager
    async def opened(self, context: str, file_id: str) -> AsyncIterator[tuple[FilesystemRecord, AsyncIterator[bytes]]]:
        """A file and its content in pieces, of one state of the file, whatever happens to it meanwhile.

        Raises:
            StoredFileNotFoundError: No such file in this context.
        """
        async with AsyncExitStack() as stack:
            gone = ""
            while True:
                row = await self._read(partial(index.row_of, context, file_id))
                try:
                    pieces = await stack.enter_async_context(self._contents.opened(row.stored_content()))
                    break
                except ContentGoneError:
                    # Removed since we looked: the next look does not find it. What it finds twice has been lost.
                    if row.content == gone:
                        raise FilesystemServiceError(
                            f"The content of the file {row.id} is lost: {self._contents.uri(gone)} is not there."
                        ) from None
                    gone = row.content
            yield row.record(self._contents.uri), pieces

    async def update(
        self,
        context: str,
        file_id: str,
        *,
        content: Content | None,
        file_type: str | None,
        content_type: str | None,
        metadata: Mapping[str, Any] | None,
        new_name: str | None,
        status: str | None,
        max_size: int,
        once: Callable[[Callable[[], Work[Change]], Dump, Load], Work[Change]] | None = None,
    ) -> FilesystemRecord:
        """Change what is not None.

        Args:
            context: The id of its context.
            file_id: Its id.
            content: What it is made of from now on.
            file_type: One of `FileType`.
            content_type: MIME type.
            metadata: In place of all that it has.
            new_name: Name in its context.
            status: One of `FileStatus`.
            max_size: Bytes that its content may have.
            once: `Once` for a key, a method and a request: what has come before is told as it was then.

        Raises:
            StoredFileNotFoundError: No such file in this context.
            FileExistsInContextError: Another file has the name, or took it while this one was deleted.
            InvalidFileError: A value is not allowed.
        """
        changes: dict[str, Any] = {}
        if file_type is not None:
            changes["file_type"] = check_type(file_type)
        if content_type is not None:
            changes["content_type"] = check_content_type(content_type)
        if metadata is not None:
            changes["metadata"] = check_metadata(metadata)
        if new_name is not None:
            changes["name"] = check_name(new_name, "new_name")
        if status is not None:
            changes["status"] = check_status(status)

        def changed() -> Work[tuple[index.Row, index.Row]]:
            old = yield from index.row_of(context, file_id)
            row = old._replace(**changes)
            other = (yield from index.row_named(context, row.name)) if row.status != "DELETED" else None
            if other is not None and other.id != row.id:
                raise index.name_taken(context, row.name, "new_name", "Another name is needed.")
            return old, row._replace(updated=index.microseconds(self._now()))

        def work(new: StoredContent | None) -> Work[Change]:
            old, row = yield from changed()
            if new is not None:
                row = row._replace(content=new.name, digest=new.digest, size=new.size)
            yield from index.change(row)
            return row, (yield from index.drop_unused([old.content]))

        if content is None:
            change = partial(work, None)
            row, _ = await self._write(change if once is None else partial(once, change, _dump, _load))
            return row.record(self._contents.uri)
        if once is None:  # what has come before may find another state of the file, or none
            await self._read(changed)
        return await self._stored(content, work, max_size=max_size, field="content", once=once)

    # --- many files --------------------------------------------------------------------------------------------------

    async def find(
        self,
        context: str,
        filters: FileFilter,
        *,
        list_size: int,
        offset: int,
        order: str | None,
        include_content: bool = False,
    ) -> tuple[list[FilesystemRecord], int]:
        """A page of the files that match, and how many match. One that is removed while contents are read is left out.

        Raises:
            InvalidFileError: A value of the filter, the page or the order is not allowed.
            FilesystemServiceError: Contents were asked for, and are larger than `INLINE_MAX` together.
        """
        if not 1 <= list_size <= LIST_MAX:
            raise refused("list_size", f"{list_size} is not from 1 to {LIST_MAX}")
        if not 0 <= offset < 2**63:
            raise refused("offset", f"{offset} is negative or beyond 64 bits")
        condition = index.condition_of(context, filters)
        by = index.order_of(order)
        rows, total = await self._read(partial(index.page, condition, by, list_size, offset), thread=True)
        if not include_content:
            return [row.record(self._contents.uri) for row in rows], total
        records = []
        room = INLINE_MAX
        for row in rows:
            with suppress(StoredFileNotFoundError):
                record = await self.get_with_content(context, row.id, room=room)
                records.append(record)
                room -= record.size_bytes
        return records, total

    async def delete(self, context: str, filters: FileFilter, *, permanent: bool, force: bool) -> DeleteResult:
        """Delete the files that match; see `Filesystem.delete_files`.

        Raises:
            InvalidFileError: A value of the filter is not allowed.
        """
        work = partial(self.delete_work, context, filters, permanent=permanent, force=force)
        result, unused = await self._write(work)
        await self.remove_contents(unused)
        return result

    def delete_work(
        self, context: str, filters: FileFilter, *, permanent: bool, force: bool
    ) -> Work[tuple[DeleteResult, list[str]]]:
        """`delete`, as a part of a larger work. Returns also what to `remove_contents` of when it is committed."""
        condition = index.condition_of(context, filters, with_deleted=permanent)
        wanted = [index.full_id(file_id) for file_id in filters.file_ids or ()]
        rows = yield from index.matching(condition)
        failures: dict[str, Exception] = {
            row.id: FilesystemServiceError(
                f"The file {row.id} is in use: its status is {row.status}.", hint="force=True deletes it."
            )
            for row in rows
            if row.status in index.IN_USE and not force
        }
        going = [row for row in rows if row.id not in failures]
        unused: list[str] = []
        if permanent:
            yield from index.delete(going)
            unused = yield from index.drop_unused([row.content for row in going])
        else:
            now = index.microseconds(self._now())
            for row in going:
                yield from index.change(row._replace(status="DELETED", updated=now))
        for file_id in set(wanted).difference(row.id for row in rows):
            failures[file_id] = index.not_found(context, file_id, ", or the filter does not match it")
        return DeleteResult([row.id for row in going], failures), unused

    async def remove_contents(self, names: Iterable[str]) -> None:
        """Remove contents that no file has any more. Never raises for a disk: what stays is swept later.

        Args:
            names: What a work has returned, when it is committed.

        Cancellation:
            They are removed all the same, for as long as `CLEANUP_GRACE`.
        """
        with trio.move_on_after(CLEANUP_GRACE, shield=True):
            try:
                await self._contents.remove(names)
            except FilesystemServiceError as error:  # the index does not know them: the work is done without this
                _log.warning("contents of files are left for the next sweep: %s", error)

    async def check_health(self) -> None:
        """Raise when no file can be stored now. Writes a content and removes it."""
        await self._database.check_health()
        await self._ready()
        async with aclosing(pieces_of(b"healthy", self._contents)) as pieces:
            content = await self._contents.write(pieces)
        await self.remove_contents([content.name])

    # --- contents and index together ----------------------------------------------------------------------------------

    async def _stored(
        self,
        content: Content,
        work: Callable[[StoredContent], Work[Change]],
        *,
        max_size: int,
        field: str,
        once: Callable[[Callable[[], Work[Change]], Dump, Load], Work[Change]] | None = None,
    ) -> FilesystemRecord:
        """Write a content, then let `work` refer to it; it returns its row and contents that no file has any more."""
        await self._ready()

        def adopting() -> Work[Change]:
            adopted = yield from index.adopt(new)
            row, unused = yield from work(adopted)
            if row.content != adopted.name:  # of an upload that came before
                unused += yield from index.drop_unused([adopted.name])
            return row, unused

        pieces = pieces_of(content, self._contents)
        async with aclosing(_limited(pieces, max_size, field)) as limited:
            new = await self._contents.write(limited)
        try:
            row, unused = await self._write(adopting if once is None else partial(once, adopting, _dump, _load))
        except BaseException as error:
            # An error and a cancel both mean that nothing was committed, but for the one that says it does not know:
            # then a row may name the content, and if none does, it is swept later.
            if getattr(error, "status", None) is not Status.UNKNOWN:
                await self.remove_contents([new.name])
            raise
        if row.content != new.name:  # the same bytes were there
            unused.append(new.name)
        await self.remove_contents(unused)
        return row.record(self._contents.uri)

    async def open(self) -> None:
        """The directory is that of this database; all others do this themselves.

        Raises:
            ConfigurationError: It has contents of another database, or see `Database.open`.
            FilesystemServiceError: It cannot be read, or the database cannot.
        """
        async with self._sweeping:
            await self._open()

    async def _open(self) -> None:
        if not self._claimed:
            owner = await self._guarded(self._database.read(index.owner))
            if not owner:
                owner = await self._guarded(self._database.write(partial(index.own, chance.new_uuid().hex)))
            await self._contents.claim(owner, self._known)
            self._claimed = True

    async def _ready(self) -> None:
        if self._swept:
            return
        async with self._sweeping:
            if not self._swept:
                await self._open()
                swept = await self._contents.sweep(self._known)
                if swept:
                    _log.info("swept %d contents of files that an earlier process left unfinished", swept)
                self._swept = True

    async def _known(self, names: list[str]) -> set[str]:
        return await self._database.read(partial(index.known, names), thread=True)

    async def _read(self, work: Callable[[], Work[T]], *, thread: bool = False) -> T:
        await self._ready()
        return await self._guarded(self._database.read(work, thread=thread))

    async def _write(self, work: Callable[[], Work[T]]) -> T:
        return await self._guarded(self._database.write(work))

    async def _guarded(self, call: Awaitable[T]) -> T:
        try:
            return await call
        except StorageServiceError as error:
            raise FilesystemServiceError(error.message, hint=error.hint, status=error.status) from error


def _dump(change: Change) -> bytes:
    return json.dumps(change[0]).encode()


def _load(data: bytes) -> Change:
    return index.Row(*json.loads(data)), []  # what became unused was removed then


async def _limited(pieces: AsyncGenerator[bytes], limit: int, field: str) -> AsyncGenerator[bytes]:
    rest = limit
    async with aclosing(pieces):
        async for piece in pieces:
            rest -= len(piece)
            if rest < 0:
                raise refused(field, f"the content has more than {limit} bytes")
            yield piece
