"""A notebook: notes as records, and all of them as a file. Both outlive the job that wrote them.

    dk-trio serve examples/storage_and_files.py --port 50055
    dk-trio call 127.0.0.1:50055 --protocol note --input '{"text": "buy apples"}'
    dk-trio call 127.0.0.1:50055 --protocol export --input '{}'

Notes belong to the mission of the call (`--mission-id`). They stand in `DIGITALKIN_DATA_DIR`, `.dk-trio` unless it is
set, and are there again when the server is started anew.
"""

from collections.abc import AsyncIterator
from typing import Literal

from pydantic import BaseModel, Field

from dk_trio import DataModel, DataTrigger, ModuleContext, SetupModel, TriggerHandler, TrioModule
from dk_trio.services import UploadFileData

FILE = "notes.txt"


class Note(DataTrigger):
    """A note to keep."""

    protocol: Literal["note"] = "note"
    text: str = Field(min_length=1)


class Export(DataTrigger):
    """Write all notes of the mission into a file, and send it."""

    protocol: Literal["export"] = "export"


class Kept(DataTrigger):
    """A note was kept."""

    protocol: Literal["kept"] = "kept"
    record_id: str
    notes: int


class Piece(DataTrigger):
    """A piece of the file."""

    protocol: Literal["piece"] = "piece"
    file_id: str
    text: str


class NoteRecord(BaseModel):
    """What a record of the collection `notes` is made of; anything else is refused."""

    text: str


class Notebook(TrioModule[DataModel[Note | Export], DataModel[Kept | Piece], SetupModel]):
    """Keeps notes."""

    name = "notebook"
    services_config_params = {"storage": {"config": {"notes": NoteRecord}}}


@Notebook.register
class OnNote(TriggerHandler[Note, SetupModel, Kept]):
    """A record is on disk when `store` returns."""

    protocol = "note"

    async def handle(self, input_data: Note, setup_data: SetupModel, context: ModuleContext) -> None:
        """Keep the note."""
        record = await context.storage.store("notes", None, {"text": input_data.text})
        notes = await context.storage.list("notes")
        await context.send(Kept(record_id=record.record_id, notes=len(notes)))


@Notebook.register
class OnExport(TriggerHandler[Export, SetupModel, Piece]):
    """A file is written and read piece by piece, so it may be larger than memory."""

    protocol = "export"

    async def handle(self, input_data: Export, setup_data: SetupModel, context: ModuleContext) -> AsyncIterator[Piece]:
        """Write the file, then read it."""
        upload = UploadFileData(
            name=FILE, content=lines(context), file_type="DOCUMENT", content_type="text/plain", replace_if_exists=True
        )
        uploaded = await context.filesystem.upload_files([upload])
        file_id = uploaded.records[0].id
        async with context.filesystem.open_file(file_id) as pieces:
            async for piece in pieces:
                yield Piece(file_id=file_id, text=piece.decode())


async def lines(context: ModuleContext) -> AsyncIterator[bytes]:
    """The notes, each on a line."""
    for record in await context.storage.list("notes"):
        yield f"{record.data.text}\n".encode()
