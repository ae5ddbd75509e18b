"""A module that finds another one in the registry, calls it, and passes on what it answers.

    dk-trio provider
    dk-trio serve examples/text_transform.py --provider 127.0.0.1:50051 --port 50056
    dk-trio serve examples/courier.py --provider 127.0.0.1:50051

Each module runs with a setup that the provider keeps; `dk-trio provider put-setup` stores one. `dk-trio demo` does all
of this, and cancels a courier by a signal: the module that it has called is cancelled with it.
"""

import logging
from typing import Literal

import trio

from dk_trio import ArchetypeModule, DataModel, DataTrigger, ModuleContext, SetupModel, TriggerHandler

log = logging.getLogger("courier")


class Letter(DataTrigger):
    """A text to be enciphered and delivered."""

    protocol: Literal["letter"] = "letter"
    text: str
    pause_s: float = 0.05


class Page(DataTrigger):
    """A word of the letter, as it is delivered."""

    protocol: Literal["page"] = "page"
    text: str


class CourierSetup(SetupModel):
    """Who enciphers the letters, and with which setup."""

    module_id: str
    setup_id: str


class Courier(ArchetypeModule[DataModel[Letter], DataModel[Page], CourierSetup]):
    """Has letters enciphered, and delivers them word by word."""

    name = "courier"
    description = "Has a letter enciphered by another module, and delivers it."
    metadata = {"module_id": "modules:courier", "version": "1.0"}

    async def cleanup(self) -> None:
        """Called last, once, however the job ended."""
        log.info("cleanup ran")


@Courier.register
class OnLetter(TriggerHandler[Letter, CourierSetup, Page]):
    """Leaving the block cancels the other module's job, so a courier that is cancelled leaves nothing running."""

    protocol = "letter"

    async def handle(self, input_data: Letter, setup_data: CourierSetup, context: ModuleContext) -> None:
        """Find the other module, call it, pass on its words."""
        cipher = await context.registry.discover_by_id(setup_data.module_id)
        log.info("%s is at %s:%d", setup_data.module_id, cipher.address, cipher.port)
        request = {"protocol": "transform", "text": input_data.text, "pause_s": input_data.pause_s}
        ids = context.session
        try:
            async with context.communication.start_module(
                cipher.address, cipher.port, request, setup_data.setup_id, ids.mission_id
            ) as answers:
                async for answer in answers:
                    root = answer["output"]["root"]
                    if root["protocol"] == "word":
                        await context.send(Page(text=root["text"]))
        except trio.Cancelled:
            log.info("handler cancelled")
            raise
