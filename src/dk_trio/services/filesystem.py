"""Files of a mission or of a setup: the protocol of the service, its records, and the rules of names.

Types and statuses are written without the prefix of the wire (`IMAGE`, not `FILE_TYPE_IMAGE`), and that form is always
returned: it is what an author writes into an upload, so what is read compares equal to what was written. Both forms
are accepted. (The existing SDK returns one or the other, by mode: reference, 6.2.)
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import AsyncIterable, AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal, NamedTuple, Protocol, Self, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator

from dk_trio.errors import InvalidFileError, Violation

TYPE_PREFIX: Final = "FILE_TYPE_"
STATUS_PREFIX: Final = "FILE_STATUS_"
ID_PREFIX: Final = "files:"
DEFAULT_CONTENT_TYPE: Final = "application/octet-stream"

NAME_MAX: Final = 1024  # bytes of UTF-8: a quarter of PATH_MAX on Linux, so that a name can stand below a directory
SEGMENT_MAX: Final = 255  # bytes of UTF-8: what common file systems allow
CONTENT_TYPE_MAX: Final = 255  # characters: RFC 6838 allows 127 on each side of the slash
METADATA_MAX: Final = 64 * 1024  # bytes of JSON: they are read with every page of a list
LIST_MAX: Final = 1000  # GetFilesRequest.list_size of the contract

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def _without(prefix: str) -> BeforeValidator:
    return BeforeValidator(lambda value: value.removeprefix(prefix) if isinstance(value, str) else value)


def _in_utc(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def _content(value: object) -> object:
    if isinstance(value, bytes | os.PathLike | AsyncIterable):
        return value
    raise ValueError(f"content is bytes, a path object or an async iterable of bytes, not {type(value).__name__}")


FileType = Literal["DOCUMENT", "IMAGE", "VIDEO", "AUDIO", "ARCHIVE", "CODE", "OTHER"]
FileStatus = Literal["UPLOADING", "ACTIVE", "PROCESSING", "ARCHIVED", "DELETED"]
FileContext = Literal["mission", "setup"]
Content = bytes | os.PathLike[str] | AsyncIterable[bytes]
"""What a file is made of: bytes, the path of a file to read, or pieces of any size for what is too large for one."""

_Type = Annotated[FileType, _without(TYPE_PREFIX)]
_Status = Annotated[FileStatus, _without(STATUS_PREFIX)]
_Moment = Annotated[datetime, AfterValidator(_in_utc)]


class UploadFileData(BaseModel):
    """A file to upload.

    Attributes:
        content: Bytes, a path object (`pathlib.Path`, not text: text would be ambiguous) or an async iterable of bytes.
        name: Name in its context, may have segments: `reports/2024.txt`. See `check_name`.
        file_type: One of `FileType`, with or without the prefix `FILE_TYPE_`.
        content_type: MIME type; None: `application/octet-stream`.
        metadata: A dict of JSON values to keep with the file.
        replace_if_exists: A file of this name keeps its id and gets this content; otherwise the upload fails.
        context: Whether the file belongs to the mission or to the setup of the job.
    """

    model_config = ConfigDict(extra="forbid")

    content: Annotated[Content, PlainValidator(_content)] = Field(repr=False)
    name: str
    file_type: _Type
    content_type: str | None = None
    metadata: dict[str, Any] | None = None
    replace_if_exists: bool = False
    context: FileContext = "mission"


class FileFilter(BaseModel):
    """Which files: those that meet every condition that is given.

    A list names what is wanted, so an empty one matches nothing: a list of ids that was computed and came out empty
    must not delete everything. None is no condition. Deleted files match only when `status` is `DELETED`.

    Attributes:
        context: Files of the mission or of the setup.
        names: Whole names.
        file_ids: With or without the prefix `files:`.
        file_types: With or without the prefix `FILE_TYPE_`.
        created_after: Later than this; a datetime without a zone is UTC, as in a protobuf Timestamp.
        created_before: Earlier than this.
        updated_after: Later than this.
        updated_before: Earlier than this.
        status: With or without the prefix `FILE_STATUS_`.
        content_type_prefix: What the content type begins with, such as `image/`.
        min_size_bytes: At least so many bytes.
        max_size_bytes: At most so many bytes.
        prefix: What the name begins with.
        content_type: The whole content type.
    """

    model_config = ConfigDict(extra="forbid")

    context: FileContext = "mission"
    names: list[str] | None = None
    file_ids: list[str] | None = None
    file_types: list[_Type] | None = None
    created_after: _Moment | None = None
    created_before: _Moment | None = None
    updated_after: _Moment | None = None
    updated_before: _Moment | None = None
    status: _Status | None = None
    content_type_prefix: str | None = None
    min_size_bytes: int | None = Field(default=None, ge=0, lt=2**63)
    max_size_bytes: int | None = Field(default=None, ge=0, lt=2**63)
    prefix: str | None = None
    content_type: str | None = None


class FilesystemRecord(BaseModel):
    """A file as it is stored.

    Attributes:
        id: `files:` and a uuid4.
        context: `missions:...` or `setups:...`.
        name: Name in its context.
        file_type: One of `FileType`, without prefix.
        content_type: MIME type.
        size_bytes: Length of the content.
        checksum: SHA-256 of the content, in hex.
        metadata: What was uploaded with it.
        storage_uri: Where the content is; not to be written to, and it goes with the content.
        file_url: The same, for who wants a URL.
        status: One of `FileStatus`, without prefix.
        content: The content, when it was asked for.
        creation_date: When the file was uploaded first; None when the service does not tell.
        update_date: When it was last changed; None when the service does not tell.
    """

    id: str
    context: str
    name: str
    file_type: _Type
    content_type: str
    size_bytes: int
    checksum: str
    metadata: dict[str, Any] | None = None
    storage_uri: str
    file_url: str
    status: _Status
    content: bytes | None = Field(default=None, repr=False)
    creation_date: datetime | None = None
    update_date: datetime | None = None


@dataclass(frozen=True, slots=True)
class UploadFailure:
    """A file of an upload that was not stored.

    Attributes:
        index: Its place in what was uploaded.
        name: Its name.
        error: Why; an exception of the content's own iterable is here as it was raised.
    """

    index: int
    name: str
    error: Exception


class _Uploads(NamedTuple):
    records: list[FilesystemRecord]
    n_ok: int
    n_failed: int


class UploadResult(_Uploads):
    """What became of an upload: unpacks as `records, n_ok, n_failed`, and says why in `failures`."""

    failures: tuple[UploadFailure, ...]

    def __new__(cls, records: list[FilesystemRecord], failures: Sequence[UploadFailure] = ()) -> Self:
        self = super().__new__(cls, records, len(records), len(failures))
        self.failures = tuple(failures)
        return self


class _Deletions(NamedTuple):
    deleted: dict[str, bool]
    n_ok: int
    n_failed: int


class DeleteResult(_Deletions):
    """What became of a deletion: unpacks as `deleted by id, n_ok, n_failed`, and says why in `failures`, by id."""

    failures: Mapping[str, Exception]

    def __new__(cls, deleted: Sequence[str], failures: Mapping[str, Exception]) -> Self:
        by_id = dict.fromkeys(deleted, True) | dict.fromkeys(failures, False)
        self = super().__new__(cls, by_id, len(deleted), len(failures))
        self.failures = failures
        return self


class Filesystem(Protocol):
    """Files of the job's mission and of its setup, shared by all jobs of that mission and of that setup.

    Every method raises `InvalidFileError` for what is refused, with the field as a violation, and
    `FilesystemServiceError` when the service fails. A method that is cancelled has done its work whole or not at all,
    except for uploads of several files, of which the first may be there.
    """

    async def upload_files(self, files: Sequence[UploadFileData]) -> UploadResult:
        """Store files, one after the other.

        A single file that fails raises. Of several, those that can be stored are; the result counts and names the
        others.

        Raises:
            InvalidFileError: A name, type or size is not allowed.
            FileExistsInContextError: The name is taken, and `replace_if_exists` is false.
        """
        ...

    async def get_file(
        self, file_id: str, context: FileContext = "mission", include_content: bool = False
    ) -> FilesystemRecord:
        """One file by its id, whatever its status.

        Raises:
            StoredFileNotFoundError: No such file in this context.
            FilesystemServiceError: The content is too large to be in memory; `open_file` streams it.
        """
        ...

    async def get_files(
        self,
        filters: FileFilter,
        list_size: int = 100,
        offset: int = 0,
        order: str | None = None,
        include_content: bool = False,
    ) -> tuple[list[FilesystemRecord], int]:
        """A page of the files that match, and how many match in all.

        Args:
            filters: Which files.
            list_size: At most so many, 1 to 1000.
            offset: So many are skipped.
            order: A field of the record, and `desc` if descending: `name`, `size_bytes desc`. Ties, and None: in the
                order of upload.
            include_content: With contents, if they are small enough together.
        """
        ...

    async def update_file(
        self,
        file_id: str,
        content: Content | None = None,
        file_type: str | None = None,
        content_type: str | None = None,
        metadata: dict[str, Any] | None = None,
        new_name: str | None = None,
        status: str | None = None,
        *,
        context: FileContext = "mission",
    ) -> FilesystemRecord:
        """Change what is given; metadata are replaced as a whole.

        Raises:
            StoredFileNotFoundError: No such file in this context.
            FileExistsInContextError: Another file has the new name.
        """
        ...

    async def delete_files(self, filters: FileFilter, permanent: bool = False, force: bool = False) -> DeleteResult:
        """Delete the files that match.

        Args:
            filters: Which files. An id in `file_ids` that is not deleted counts as failed.
            permanent: Remove them with their contents. Otherwise they become `DELETED`, give their names free, and can
                be read by id and restored with `update_file`. Files that are `DELETED` already match too.
            force: Also files that are in use, `UPLOADING` or `PROCESSING`; without it they count as failed.
        """
        ...

    def open_file(
        self, file_id: str, context: FileContext = "mission"
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """The content as a stream: `async with filesystem.open_file(id) as pieces: async for piece in pieces: ...`.

        What was opened is read to its end, even when the file is changed or deleted meanwhile.

        Raises:
            StoredFileNotFoundError: No such file in this context.
        """
        ...


def refused(field: str, rule: str, *, hint: str = "") -> InvalidFileError:
    """The error for a field of a call: `rule` names the value and what is wrong with it."""
    return InvalidFileError(f"{field}: {rule}.", hint=hint, violations=[Violation(field, rule)])


def shown(value: object) -> str:
    """A value for an error: not longer than a line."""
    text = ascii(value) if isinstance(value, str) and not value.isprintable() else repr(value)
    return text if len(text) <= 100 else f"{text[:80]}... ({len(text)} characters)"


def check_text(value: str, field: str) -> str:
    """Refuse what is not Unicode text: names of files may hold lone surrogates (PEP 383), no protobuf string does."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise refused(field, f"{shown(value)} is not Unicode text") from None
    return value


def check_name(name: str, field: str) -> str:
    """Return the name if it is allowed: one that is safe as a relative path on every system, should somebody use it so.

    It has segments that are divided by `/`; it is not absolute and has no empty or `.` segment, no backslash, no
    control character, at most 1024 bytes and 255 in a segment. Two dots in a row are refused everywhere, not only as a
    segment: that is the contract's pattern, and a name that works with local services should work with remote ones.

    Raises:
        InvalidFileError: With `field` as the violation.
    """
    check_text(name, field)
    segments = name.split("/")
    if not name:
        rule = "a name is not empty"
    elif len(name.encode()) > NAME_MAX:
        rule = f"a name has at most {NAME_MAX} bytes"
    elif name.startswith("/") or name[1:2] == ":":
        rule = "a name is not an absolute path"
    elif ".." in name:
        rule = "a name has no two dots in a row"
    elif "\\" in name:
        rule = "a name has no backslash"
    elif _CONTROL.search(name):
        rule = "a name has no control characters"
    elif "" in segments or "." in segments:
        rule = "a name has no empty segment and no segment `.`"
    elif any(len(segment.encode()) > SEGMENT_MAX for segment in segments):
        rule = f"a segment of a name has at most {SEGMENT_MAX} bytes"
    else:
        return name
    raise refused(field, f"{shown(name)} is refused, {rule}")


def check_type(file_type: str, field: str = "file_type") -> FileType:
    """The type without its prefix.

    Raises:
        InvalidFileError: There is no such type.
    """
    bare = file_type.removeprefix(TYPE_PREFIX)
    if bare not in get_args(FileType):
        raise refused(field, f"{shown(file_type)} is none of {', '.join(get_args(FileType))}")
    return bare  # type: ignore[return-value]  # one of its literals


def check_status(status: str, field: str = "status") -> FileStatus:
    """The status without its prefix.

    Raises:
        InvalidFileError: There is no such status.
    """
    bare = status.removeprefix(STATUS_PREFIX)
    if bare not in get_args(FileStatus):
        raise refused(field, f"{shown(status)} is none of {', '.join(get_args(FileStatus))}")
    return bare  # type: ignore[return-value]  # one of its literals


def check_content_type(content_type: str, field: str = "content_type") -> str:
    """Return the content type if it can be the value of a header.

    Raises:
        InvalidFileError: It is empty, too long, or not printable ASCII.
    """
    if not 0 < len(content_type) <= CONTENT_TYPE_MAX or not (content_type.isascii() and content_type.isprintable()):
        raise refused(field, f"{shown(content_type)} is no content type: 1 to {CONTENT_TYPE_MAX} printable characters")
    return content_type


def check_metadata(metadata: Mapping[str, Any], field: str = "metadata") -> str:
    """Metadata as JSON text.

    Raises:
        InvalidFileError: They are not JSON, or too large.
    """
    try:
        text = json.dumps(metadata, allow_nan=False, ensure_ascii=False)
        size = len(text.encode())
    except (TypeError, ValueError, RecursionError) as error:
        raise refused(field, f"metadata are JSON values: {error}") from None
    if size > METADATA_MAX:
        raise refused(field, f"metadata have at most {METADATA_MAX} bytes of JSON, not {size}")
    return text
