"""What the filesystems of both modes have in common: whose files they are, how large, and one failure for each file."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Sequence

from dk_trio.errors import DkTrioError, InvalidFileError
from dk_trio.services.filesystem import (
    Filesystem,
    FilesystemRecord,
    UploadFailure,
    UploadFileData,
    UploadResult,
    refused,
    shown,
)
from dk_trio.services.strategy import BaseStrategy

_log = logging.getLogger("dk_trio.filesystem")


class JobFiles(BaseStrategy, Filesystem):
    """Files of the job's mission (`missions:...`) and of its setup (`setups:...`).

    Args:
        mission_id: The mission, with or without prefix.
        setup_id: The setup, with or without prefix.
        setup_version_id: Its version; files are kept for the setup, not for one version.
        max_file_size: Bytes that one file may have.

    Raises:
        InvalidFileError: `max_file_size` is not a number of bytes.
    """

    def __init__(self, mission_id: str, setup_id: str, setup_version_id: str, *, max_file_size: int) -> None:
        super().__init__(mission_id, setup_id, setup_version_id)
        size: object = max_file_size  # from a dict that no type checker looks into
        if not isinstance(size, int) or size < 1:
            raise InvalidFileError(f"max_file_size is {size!r}.", hint="Give the bytes that a file may have.")
        self._max_file_size = max_file_size
        self._contexts = {
            "mission": "missions:" + mission_id.removeprefix("missions:"),
            "setup": "setups:" + setup_id.removeprefix("setups:"),
        }

    @abstractmethod
    async def _upload(self, file: UploadFileData, field: str) -> FilesystemRecord:
        """Store one file; `field` names it in errors."""

    async def upload_files(self, files: Sequence[UploadFileData]) -> UploadResult:
        records: list[FilesystemRecord] = []
        failures: list[UploadFailure] = []
        for i, file in enumerate(files):
            try:
                record = await self._upload(file, f"files[{i}]")
            except Exception as error:  # boundary: contents are the author's iterables, each fails its own file alone
                if len(files) == 1:
                    raise
                trace = None if isinstance(error, DkTrioError) else error
                _log.warning("files[%d] %s was not stored: %s", i, shown(file.name), error, exc_info=trace)
                failures.append(UploadFailure(i, file.name, error))
            else:
                records.append(record)
        return UploadResult(records, failures)

    def _context(self, context: str) -> str:
        try:
            return self._contexts[context]
        except KeyError:
            raise refused("context", f"{shown(context)} is neither mission nor setup") from None
