"""The module of a soak: each job does what its caller asks for, in one of the ways that authors have."""

from typing import Any, ClassVar, Literal

import trio
from pydantic import BaseModel

from dk_trio import DataModel, DataTrigger, ModuleContext, SetupModel, TrioModule
from dk_trio.services.filesystem import UploadFileData


class Visit(DataTrigger):
    """What a job does, in this order."""

    protocol: Literal["visit"] = "visit"
    keep: bool = False  # a record, a cost and a file
    n: int = 1  # outputs
    size: int = 0  # characters of each
    then: Literal["end", "wait", "raise", "raise group", "swallow", "raise in cleanup"] = "end"


class Said(DataTrigger):
    protocol: Literal["said"] = "said"
    i: int
    text: str = ""


class Note(BaseModel):
    text: str


class Visited(TrioModule[DataModel[Visit], DataModel[Said], SetupModel]):
    name = "visited"
    metadata: ClassVar[dict[str, Any]] = {"module_id": "modules:visited"}
    services_config_params: ClassVar[dict[str, Any]] = {
        "storage": {"config": {"notes": Note}},
        "cost": {"config": {"call": {"cost_name": "call", "cost_type": "API_CALL", "unit": "calls", "rate": 0.1}}},
        "filesystem": {},
    }
    then = ""

    async def run(self, input_data: DataModel[Visit], setup_data: SetupModel, context: ModuleContext) -> None:
        visit = input_data.root
        self.then = visit.then
        if visit.keep:
            await keep(context)
        for number in range(visit.n):
            await context.send(Said(i=number, text="x" * visit.size))
        if visit.then in {"wait", "swallow"}:
            try:
                await trio.sleep_forever()
            except trio.Cancelled:
                if visit.then == "wait":
                    raise
        elif visit.then == "raise":
            raise ValueError("as told")
        elif visit.then == "raise group":
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(fail)

    async def cleanup(self) -> None:
        if self.then == "raise in cleanup":
            raise ValueError("as told")


async def fail() -> None:
    raise ValueError("as told")


async def keep(context: ModuleContext) -> None:
    job_id = context.session.job_id
    await context.storage.store("notes", job_id, Note(text=job_id))
    await context.cost.add(job_id, "call", 1.0)
    file = UploadFileData(content=job_id.encode() * 20, name=f"{job_id}.txt", file_type="DOCUMENT")
    await context.filesystem.upload_files([file])
