"""A module that keeps something in each service and tells its caller of each thing that it has kept."""

from typing import Any, ClassVar, Literal

from pydantic import BaseModel

from dk_trio import DataModel, DataTrigger, ModuleContext, SetupModel, TrioModule
from dk_trio.module.mixins import ChatHistory, ChatHistoryMixin
from dk_trio.services.filesystem import UploadFileData

FILE_SIZE = 100_000
RATE = "0.1"
QUANTITIES = {"tokens": "3", "calls": "0.1"}  # costs of 0.3 and 0.01, whose sums floats miss


class Keep(DataTrigger):
    """What tells the things of this job from those of others."""

    protocol: Literal["keep"] = "keep"
    number: int


class Kept(DataTrigger):
    """`what` is stored: the caller may rely on it from now on."""

    protocol: Literal["kept"] = "kept"
    what: str


class Note(BaseModel):
    number: int
    text: str


def content_of(number: int) -> bytes:
    return number.to_bytes(4, "big") * (FILE_SIZE // 4)


class Keeper(TrioModule[DataModel[Keep], DataModel[Kept], SetupModel], ChatHistoryMixin):
    name = "keeper"
    services_config_params: ClassVar[dict[str, Any]] = {
        "storage": {"config": {"notes": Note, "chat_history": ChatHistory}},
        "cost": {
            "config": {
                "tokens": {"cost_name": "tokens", "cost_type": "TOKEN_INPUT", "unit": "tokens", "rate": float(RATE)},
                "calls": {"cost_name": "calls", "cost_type": "API_CALL", "unit": "calls", "rate": float(RATE)},
            }
        },
        "filesystem": {},
    }

    async def run(self, input_data: DataModel[Keep], setup_data: SetupModel, context: ModuleContext) -> None:
        number = input_data.root.number
        for place in range(3):
            note = Note(number=number, text="x" * 500)
            await context.storage.store("notes", f"{number}-{place}", note)
            await context.send(Kept(what=f"note {place}"))
        for price, quantity in QUANTITIES.items():
            await context.cost.add(str(number), price, float(quantity))
            await context.send(Kept(what=f"cost {price}"))
        file = UploadFileData(content=content_of(number), name=f"{number}.bin", file_type="DOCUMENT")
        await context.filesystem.upload_files([file])
        await context.send(Kept(what="file"))
        for place in range(3):
            await self.append_chat_history_message(context, "user", f"{number}-{place}")
            await context.send(Kept(what=f"message {place}"))
