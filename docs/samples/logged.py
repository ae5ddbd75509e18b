"""A module that logs, served by a program of its own with the log of `dk-trio serve`."""

import logging
from typing import Literal

import trio

from dk_trio import (
    DataModel,
    DataTrigger,
    ModuleContext,
    ModuleServer,
    Settings,
    SetupModel,
    TriggerHandler,
    TrioModule,
)
from dk_trio.observe import Observation, Observed
from dk_trio.observe.logs import logging_to

log = logging.getLogger(__name__)


class Pages(DataTrigger):
    protocol: Literal["pages"] = "pages"
    text: str


class Counter(TrioModule[DataModel[Pages], DataModel[Pages], SetupModel]):
    name = "counter"


@Counter.register
class Count(TriggerHandler[Pages, SetupModel, Pages]):
    protocol = "pages"

    async def handle(self, input_data: Pages, setup_data: SetupModel, context: ModuleContext) -> None:
        pages = input_data.text.split("\f")
        log.info("%d pages", len(pages), extra={"longest": max(map(len, pages))})
        await context.send(Pages(text=str(len(pages))))


async def serve(settings: Settings, port: int | None = None) -> None:
    observation = Observation(settings)
    server = ModuleServer(Counter, settings=settings, interceptors=observation.interceptors, hooks=observation.hooks)
    async with observation.opened(Observed(modules=lambda: [server])):
        await server.serve(port=port)


if __name__ == "__main__":
    settings = Settings.from_environment()
    with logging_to(settings):
        trio.run(serve, settings)
