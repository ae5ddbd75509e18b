"""Replies to polls of which a part cannot be read."""

from typing import Any

import pytest
import trio

from dk_trio.pb import DecodeError
from dk_trio.pb._primitives import encode_varint
from dk_trio.pb.agentic_mesh_protocol.task_manager.v1 import GetSignalsResponse, Task
from dk_trio.signals import Signal
from dk_trio.signals._tasks import readable_tasks

from .fake import FakeProvider, exchange_with


def sized(number: int, data: bytes) -> bytes:
    return bytes([number << 3 | 2]) + encode_varint(len(data)) + data


CREATED_AT = 7
BROKEN = {
    "the year 10000": sized(CREATED_AT, b"\x08" + encode_varint(253_402_300_800)),
    "a clock before all years": sized(CREATED_AT, b"\x08" + encode_varint(2**64 - 2**62)),
    "no date": sized(CREATED_AT, b"\xff"),
    "a reason that is no text": sized(6, b"\xff\xfe"),
    "an unknown field": sized(15, b"\xff\xfe"),
    "a number for a text": bytes([2 << 3]) + encode_varint(7),
}


class Reply(GetSignalsResponse):
    """A reply of these bytes."""

    data = b""

    def SerializeToString(self) -> bytes:
        return self.data


def task(task_id: str) -> bytes:
    return bytes(Task(task_id=task_id, action="cancel"))


@pytest.mark.parametrize("what", BROKEN)
async def test_what_cannot_be_read_hides_no_cancel(
    autojump_clock: Any, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Neither that of its own job, nor that of another."""

    async def get_signals(_: FakeProvider, stream: Any) -> None:
        await stream.recv_message()
        reply = Reply()
        reply.data = sized(1, task("a") + BROKEN[what]) + sized(1, task("b"))
        await stream.send_message(reply)

    monkeypatch.setattr(FakeProvider, "_get_signals", get_signals)
    async with exchange_with() as (exchange, _):
        heard: list[Signal] = []
        with exchange.listen("a", heard.append), exchange.listen("b", heard.append):
            await trio.sleep(20)
        assert [(signal.task_id, signal.action.value) for signal in heard] == [("a", "cancel"), ("b", "cancel")]
        assert exchange.health().inbound.ok


@pytest.mark.parametrize("data", [b"\x0a", b"\x0a\x05\x0a\x01", b"\xff" * 20, sized(1, b"\x0a\x09abc"), b"\x0c"])
def test_what_is_no_reply_is_none(data: bytes) -> None:
    with pytest.raises(DecodeError):
        readable_tasks(sized(1, task("a")) + data)
