"""A module whose jobs do what their caller has written down, step by step. Served by tests in a process of its own.

The steps: `say`; `say N BYTES` (so often, so large); `wait FILE` (until it is there); `sleep SECONDS`; `keep` (a
record); `upload NAME` (a file of 100 kB); `spin` (a thread that never ends); `exit CODE`; `os-exit CODE`; `recurse`;
`hog BYTES`.
"""

import os
import sys
import threading
from pathlib import Path
from typing import Any, ClassVar, Literal

import trio
from pydantic import BaseModel

from dk_trio import DataModel, DataTrigger, ModuleContext, SetupModel, TrioModule
from dk_trio.services.filesystem import UploadFileData

POLL = 0.05
UPLOAD = 100_000


class Script(DataTrigger):
    protocol: Literal["script"] = "script"
    steps: list[str]


class Said(DataTrigger):
    protocol: Literal["said"] = "said"
    i: int
    text: str = ""


class Note(BaseModel):
    text: str


class Bare(TrioModule[DataModel[Script], DataModel[Said], SetupModel]):
    """Without services, as several workers without a provider want it."""

    name = "bare"

    async def run(self, input_data: DataModel[Script], setup_data: SetupModel, context: ModuleContext) -> None:
        said = 0
        for step in input_data.root.steps:
            name, *arguments = step.split()
            if name == "say":
                count, size = map(int, arguments or (1, 0))
                for _ in range(count):
                    await context.send(Said(i=said, text="x" * size))
                    said += 1
            else:
                await STEPS[name](context, *arguments)


class Scripted(Bare):
    name = "scripted"
    metadata: ClassVar[dict[str, Any]] = {"module_id": "modules:scripted"}
    services_config_params: ClassVar[dict[str, Any]] = {"storage": {"config": {"notes": Note}}, "filesystem": {}}


async def wait(context: ModuleContext, path: str) -> None:
    while not Path(path).exists():  # noqa: ASYNC110 - an event would need a caller
        await trio.sleep(POLL)


async def sleep(context: ModuleContext, seconds: str) -> None:
    await trio.sleep(float(seconds))


async def keep(context: ModuleContext) -> None:
    await context.storage.store("notes", context.session.job_id, Note(text="x" * 100))


async def upload(context: ModuleContext, name: str) -> None:
    file = UploadFileData(content=name.encode().ljust(UPLOAD), name=name, file_type="DOCUMENT")
    await context.filesystem.upload_files([file])


async def spin(context: ModuleContext) -> None:
    threading.Thread(target=threading.Event().wait).start()


async def exit_(context: ModuleContext, code: str) -> None:
    sys.exit(int(code))


async def os_exit(context: ModuleContext, code: str) -> None:
    os._exit(int(code))


async def recurse(context: ModuleContext) -> None:
    def deeper(depth: int) -> int:
        return deeper(depth + 1) + 1

    deeper(0)


async def hog(context: ModuleContext, size: str) -> None:
    bytearray(int(size))


STEPS: dict[str, Any] = {
    "wait": wait,
    "sleep": sleep,
    "keep": keep,
    "upload": upload,
    "spin": spin,
    "exit": exit_,
    "os-exit": os_exit,
    "recurse": recurse,
    "hog": hog,
}
