"""A module that streams: it enciphers a text and sends it word by word, with a pause after each.

    dk-trio serve examples/text_transform.py --port 50055
    dk-trio call 127.0.0.1:50055 --protocol transform --input '{"text": "attack at dawn"}'

Stop the call with Ctrl-C: the handler is cancelled where it waits, and the module's cleanup still runs. The server's
log says both.
"""

import logging
from collections.abc import AsyncIterator
from typing import Literal

import trio
from pydantic import Field

from dk_trio import DataModel, DataTrigger, ModuleContext, SetupModel, TriggerHandler, TrioModule

log = logging.getLogger("text_transform")

LETTERS = 26


class Transform(DataTrigger):
    """A text to encipher."""

    protocol: Literal["transform"] = "transform"
    text: str = Field(min_length=1)
    pause_s: float = Field(default=0.05, ge=0, description="Seconds to wait after each word.")


class Word(DataTrigger):
    """One enciphered word."""

    protocol: Literal["word"] = "word"
    index: int
    text: str


class CaesarSetup(SetupModel):
    """How far each letter moves."""

    shift: int = 3


class TextTransform(TrioModule[DataModel[Transform], DataModel[Word], CaesarSetup]):
    """Caesar's cipher as a stream of words."""

    name = "text-transform"
    description = "Enciphers a text, word by word."
    metadata = {"module_id": "modules:text-transform", "version": "1.0"}

    async def initialize(self, context: ModuleContext, setup_data: CaesarSetup) -> None:
        """Called first. What is taken here is given back in `cleanup`."""
        log.info("initialize: shift %d", setup_data.shift)

    async def cleanup(self) -> None:
        """Called last, once, however the job ended."""
        log.info("cleanup ran")


@TextTransform.register
class OnTransform(TriggerHandler[Transform, CaesarSetup, Word]):
    """What is yielded is sent; the next word waits until the caller has room for it."""

    protocol = "transform"

    async def handle(
        self, input_data: Transform, setup_data: CaesarSetup, context: ModuleContext
    ) -> AsyncIterator[Word]:
        """Send the words one by one."""
        try:
            for index, word in enumerate(input_data.text.split()):
                yield Word(index=index, text=caesar(word, setup_data.shift))
                await trio.sleep(input_data.pause_s)
        except trio.Cancelled:
            log.info("handler cancelled")
            raise


def caesar(text: str, shift: int) -> str:
    """Move each ASCII letter by `shift` places in the alphabet; leave the rest."""

    def move(letter: str) -> str:
        if not (letter.isascii() and letter.isalpha()):
            return letter
        first = ord("a") if letter.islower() else ord("A")
        return chr((ord(letter) - first + shift) % LETTERS + first)

    return "".join(map(move, text))
