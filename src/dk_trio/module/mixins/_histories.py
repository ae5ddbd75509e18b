"""The chat and the file history of a mission, by the names of the existing SDK."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from pydantic_core import to_jsonable_python

from ._kept import kept
from ._services import LoggerMixin, StorageMixin
from .history import BaseMessage, ChatHistory, FileHistory, FileModel, History, Role

if TYPE_CHECKING:
    from dk_trio.module._context import ModuleContext, Output

CHAT_COLLECTION: Final = "chat_history"
FILE_COLLECTION: Final = "file_history"


def chat_history(context: ModuleContext) -> History[ChatHistory]:
    """The chat history of the job's mission; the same object for the whole job."""
    return kept(
        context,
        CHAT_COLLECTION,
        lambda: History(
            context,
            model=ChatHistory,
            entries="messages",
            collection=CHAT_COLLECTION,
            record_id=f"full_chat_history_{context.session.mission_id}",
            threshold=context.settings.chat_history_flush_threshold,
        ),
    )


def file_history(context: ModuleContext) -> History[FileHistory]:
    """The file history of the job's mission; the same object for the whole job."""
    return kept(
        context,
        FILE_COLLECTION,
        lambda: History(
            context,
            model=FileHistory,
            entries="files",
            collection=FILE_COLLECTION,
            record_id=f"full_file_history_{context.session.mission_id}",
            threshold=context.settings.file_history_flush_threshold,
        ),
    )


class FileHistoryMixin(StorageMixin, LoggerMixin):
    """The files that a mission has seen. See `History` for what is written when, and for cancellation.

    Written every `DIGITALKIN_FILE_HISTORY_FLUSH_THRESHOLD` appends and at the end of the job. Needs the collection
    `file_history` with the model `FileHistory` in the storage's config.
    """

    async def load_file_history(self, context: ModuleContext) -> FileHistory:
        """The files of the mission, those that are not written yet included.

        Raises:
            StorageServiceError: The service failed.
        """
        return await file_history(context).load()

    async def append_files_history(self, context: ModuleContext, files: Sequence[FileModel]) -> None:
        """Add files.

        Raises:
            StorageServiceError: A write was due and failed; the files are kept for the next.
        """
        await file_history(context).append(files)

    async def flush_file_history(self, context: ModuleContext) -> None:
        """Write what is not written yet.

        Raises:
            StorageServiceError: The service failed; the files are kept for the next write.
        """
        await file_history(context).flush()

    def clear_fh_mission_cache(self, context: ModuleContext) -> None:
        """Read anew at the next load. What is not written yet stays to be written."""
        file_history(context).clear()


class ChatHistoryMixin(StorageMixin, LoggerMixin):
    """What was said in a mission. See `History` for what is written when, and for cancellation.

    Written every `DIGITALKIN_CHAT_HISTORY_FLUSH_THRESHOLD` messages and at the end of the job. Needs the collection
    `chat_history` with the model `ChatHistory` in the storage's config.
    """

    async def load_chat_history(self, context: ModuleContext) -> ChatHistory:
        """The messages of the mission, those that are not written yet included.

        Raises:
            StorageServiceError: The service failed.
        """
        return await chat_history(context).load()

    async def append_chat_history_message(self, context: ModuleContext, role: Role, content: Any) -> None:
        """Add a message; a content that is a model is kept as JSON.

        Raises:
            StorageServiceError: A write was due and failed; the message is kept for the next.
        """
        await chat_history(context).append([BaseMessage(role=role, content=to_jsonable_python(content))])

    async def flush_chat_history(self, context: ModuleContext) -> None:
        """Write what is not written yet.

        Raises:
            StorageServiceError: The service failed; the messages are kept for the next write.
        """
        await chat_history(context).flush()

    def clear_ch_mission_cache(self, context: ModuleContext) -> None:
        """Read anew at the next load. What is not written yet stays to be written."""
        chat_history(context).clear()

    async def save_send_message(self, context: ModuleContext, output: Output, role: Role) -> None:
        """Add an output's root to the history, then send the output.

        Raises:
            StorageServiceError: A write was due and failed; nothing was sent.
            DkTrioError: What `context.send` raises.
        """
        root = output.get("root", output) if isinstance(output, dict) else getattr(output, "root", output)
        await self.append_chat_history_message(context, role, root)
        await context.send(output)
