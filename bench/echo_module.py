"""The module that benchmarks and outside drivers use. Its contract is fixed; change the examples instead.

Input root `{"protocol": "message", "text": str = "", "n": int = 1, "size": int = 0, "sleep_s": float = 0,
"gap_s": float = 0, "tail_s": float = 0, "fail": str = ""}`: wait `sleep_s`, send `n` outputs
`{"protocol": "message", "text": ..., "i": 0..n-1}` whose text is the input's or `size` characters, wait `gap_s` after
each and `tail_s` after the last; `fail="raise"` raises ValueError after the outputs. Setup content `{"prefix": ""}`;
the prefix goes before the text. When `BENCH_EVENT_LOG` names a file, a cancelled handler appends
`<CLOCK_MONOTONIC> cancelled <job_id>` to it.
"""

import functools
import os
import time
from typing import Literal

import trio
from pydantic import BaseModel

from dk_trio import DataModel, ModuleContext, SetupModel, TriggerHandler, TrioModule


class Message(BaseModel):
    protocol: Literal["message"] = "message"
    text: str = ""
    n: int = 1
    size: int = 0
    sleep_s: float = 0
    gap_s: float = 0
    tail_s: float = 0
    fail: str = ""


class Reply(BaseModel):
    protocol: Literal["message"] = "message"
    text: str
    i: int


class EchoSetup(SetupModel):
    prefix: str = ""


class EchoModule(TrioModule[DataModel[Message], DataModel[Reply], EchoSetup]):
    name = "echo"


@EchoModule.register
class OnMessage(TriggerHandler[Message, EchoSetup, Reply]):
    protocol = "message"

    async def handle(self, input_data: Message, setup_data: EchoSetup, context: ModuleContext) -> None:
        try:
            await self.answer(input_data, setup_data.prefix, context)
        except trio.Cancelled:
            record("cancelled", context.session.job_id)
            raise

    async def answer(self, message: Message, prefix: str, context: ModuleContext) -> None:
        if message.sleep_s:
            await trio.sleep(message.sleep_s)
        text = prefix + ("x" * message.size if message.size else message.text)
        for i in range(message.n):
            await context.send({"protocol": "message", "text": text, "i": i})
            if message.gap_s:
                await trio.sleep(message.gap_s)
        if message.tail_s:
            await trio.sleep(message.tail_s)
        if message.fail == "raise":
            raise ValueError("asked to fail")


def record(event: str, job_id: str) -> None:
    path = os.environ.get("BENCH_EVENT_LOG")
    if path:
        # One write in append mode: lines of several processes stay whole.
        os.write(log(path), f"{time.clock_gettime(time.CLOCK_MONOTONIC)} {event} {job_id}\n".encode())


@functools.cache
def log(path: str) -> int:
    """A descriptor that stays open: opening a file for each of a thousand cancels would be most of their time."""
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
