"""A context with a storage that can be slow, fail, and be shared with other jobs."""

import logging
from collections.abc import Awaitable, Callable
from copy import deepcopy
from types import SimpleNamespace
from typing import Any

import trio

from dk_trio.errors import StorageServiceError
from dk_trio.module import SessionIds
from dk_trio.settings import ServicesSettings

DAY = 86400
MISSION = "missions:m"


class Records:
    """Records in a dict, as jobs share them. `failures` writes fail; `lost` of them have been done all the same."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], dict[str, Any]] = {}
        self.calls: list[str] = []
        self.failures = 0
        self.lost = False
        self.delay = 0.0
        self.writing = 0

    async def wait(self) -> None:
        await trio.sleep(self.delay)


class PlainStorage:
    """The methods of the protocol that histories use; validates nothing."""

    def __init__(self, records: Records) -> None:
        self.records = records

    async def read(self, collection: str, record_id: str) -> Any:
        self.records.calls.append("read")
        await self.records.wait()
        row = self.records.rows.get((collection, record_id))
        return None if row is None else SimpleNamespace(data=deepcopy(row))

    async def upsert(self, collection: str, record_id: str, data: Any, data_type: str = "OUTPUT") -> Any:
        return await self._write("upsert", collection, record_id, lambda _: data)

    async def _write(self, call: str, collection: str, record_id: str, change: Callable[[Any], Any]) -> Any:
        records = self.records
        records.calls.append(call)
        records.writing += 1
        try:
            await records.wait()
            failing = records.failures > 0
            if not failing or records.lost:
                key = (collection, record_id)
                records.rows[key] = deepcopy(change(deepcopy(records.rows.get(key))))
            if failing:
                records.failures -= 1
                raise StorageServiceError("The disk is full.")
            await records.wait()
            return SimpleNamespace(data=deepcopy(records.rows[(collection, record_id)]))
        finally:
            records.writing -= 1


class OneStepStorage(PlainStorage):
    """With `amend`."""

    async def amend(self, collection: str, record_id: str, change: Callable[[Any], Any]) -> Any:
        return await self._write("amend", collection, record_id, change)


class Context:
    """As much of a module's context as mixins use."""

    def __init__(self, records: Records | None = None, *, threshold: int = 10, one_step: bool = True) -> None:
        self.records = records or Records()
        self.storage = (OneStepStorage if one_step else PlainStorage)(self.records)
        self.session = SessionIds(job_id="j1", mission_id=MISSION, setup_id="setups:s", setup_version_id="v")
        self.settings = ServicesSettings(chat_history_flush_threshold=threshold, file_history_flush_threshold=threshold)
        self.callbacks = SimpleNamespace(logger=logging.getLogger("dk_trio.module"))
        self.helpers = SimpleNamespace()
        self.outputs: list[Any] = []
        self.flushes: dict[object, Callable[[], Awaitable[None]]] = {}

    async def send(self, output: Any) -> None:
        await trio.lowlevel.checkpoint()
        self.outputs.append(output)

    def at_end(self, key: object, flush: Callable[[], Awaitable[None]]) -> None:
        self.flushes.setdefault(key, flush)

    async def end(self) -> None:
        """The job is over."""
        while self.flushes:
            await self.flushes.pop(next(iter(self.flushes)))()
