"""Short names for the services of a context, and for its logger. No error is caught."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import logging
    from collections.abc import Sequence

    from dk_trio.module._context import ModuleContext
    from dk_trio.services.cost import CostData, CostType
    from dk_trio.services.filesystem import FilesystemRecord, UploadFileData, UploadResult
    from dk_trio.services.storage import DataTypeName, RecordData, StorageRecord


class CostMixin:
    """Costs of the job, through `context.cost`."""

    async def add_cost(self, context: ModuleContext, name: str, cost_config_name: str, quantity: float) -> None:
        """Add a cost of `quantity` units at the rate of the config.

        Args:
            context: Of the job.
            name: Of the entry, for `get_cost`; calls with one name add up.
            cost_config_name: Key of `services_config_params["cost"]["config"]`.
            quantity: Units, not negative.

        Raises:
            CostServiceError: No such config, or the quantity is no number of units.
            CostLimitError: A limit would be exceeded; nothing was added.
        """
        await context.cost.add(name, cost_config_name, quantity)

    async def get_cost(self, context: ModuleContext, name: str) -> list[CostData]:
        """The mission's costs of this name, oldest first; empty when there are none.

        Raises:
            ServiceError: The service failed.
        """
        return await context.cost.get(name)

    async def get_costs(
        self,
        context: ModuleContext,
        names: Sequence[str] | None = None,
        cost_types: Sequence[CostType | str] | None = None,
    ) -> list[CostData]:
        """The mission's costs with one of these names and one of these types, oldest first; None: any.

        Raises:
            CostServiceError: There is no such type.
        """
        return await context.cost.get_filtered(names, cost_types)


class StorageMixin:
    """Records of the mission, through `context.storage`, which also lists and removes them."""

    async def store_storage(
        self,
        context: ModuleContext,
        collection: str,
        record_id: str | None,
        data: RecordData,
        data_type: DataTypeName = "OUTPUT",
    ) -> StorageRecord:
        """Store a new record; without an id it gets one.

        Raises:
            InvalidRecordError: The data do not fit the collection's model, or there is no such collection.
            RecordExistsError: The id is taken.
            StorageServiceError: The service failed.
        """
        return await context.storage.store(collection, record_id, data, data_type)

    async def read_storage(self, context: ModuleContext, collection: str, record_id: str) -> StorageRecord | None:
        """The record; None when there is none.

        Raises:
            StorageServiceError: The service failed, so nobody knows.
        """
        return await context.storage.read(collection, record_id)

    async def update_storage(
        self, context: ModuleContext, collection: str, record_id: str, data: RecordData
    ) -> StorageRecord | None:
        """Replace the data of a record; None when there is none.

        Raises:
            InvalidRecordError: The data do not fit the collection's model.
            StorageServiceError: The service failed.
        """
        return await context.storage.update(collection, record_id, data)

    async def upsert_storage(
        self,
        context: ModuleContext,
        collection: str,
        record_id: str,
        data: RecordData,
        data_type: DataTypeName = "OUTPUT",
    ) -> StorageRecord:
        """Replace the data of a record, or store it when there is none.

        Raises:
            InvalidRecordError: The data do not fit the collection's model.
            StorageServiceError: The service failed.
        """
        return await context.storage.upsert(collection, record_id, data, data_type)


class FilesystemMixin:
    """Files of the mission, through `context.filesystem`."""

    async def upload_files(self, context: ModuleContext, files: Sequence[UploadFileData]) -> UploadResult:
        """Store files: the records, how many were stored, and how many were not.

        Raises:
            FilesystemServiceError: The only file was refused, or the service failed.
        """
        return await context.filesystem.upload_files(files)

    async def get_file(self, context: ModuleContext, file_id: str) -> FilesystemRecord:
        """A file with its content.

        Raises:
            StoredFileNotFoundError: There is none in the mission.
            FilesystemServiceError: The content is too large for memory, or the service failed.
        """
        return await context.filesystem.get_file(file_id, include_content=True)


class LoggerMixin:
    """Logs with the ids of the session as `extra`, through `context.callbacks.logger`."""

    def log_debug(self, context: ModuleContext, message: str, *args: Any) -> None:
        """Log for whoever looks into this module. `args` are formatted into the message when it is written."""
        _logger(context).debug(message, *args, extra=context.session.current_ids(), stacklevel=2)

    def log_info(self, context: ModuleContext, message: str, *args: Any) -> None:
        """Log what happens."""
        _logger(context).info(message, *args, extra=context.session.current_ids(), stacklevel=2)

    def log_warning(self, context: ModuleContext, message: str, *args: Any) -> None:
        """Log what should not have happened, but has harmed nothing."""
        _logger(context).warning(message, *args, extra=context.session.current_ids(), stacklevel=2)

    def log_error(self, context: ModuleContext, message: str, *args: Any) -> None:
        """Log what has gone wrong; inside an `except`, log the exception yourself with `exc_info`."""
        _logger(context).error(message, *args, extra=context.session.current_ids(), stacklevel=2)


def _logger(context: ModuleContext) -> logging.Logger:
    logger: logging.Logger = context.callbacks.logger
    return logger
