"""The line between parent and worker: nobody is held up by the other side, and nothing is misread."""

import random
from typing import Any

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair

from dk_trio.workers._control import LINE_BYTES, QUEUED_BYTES, Control, ControlError, line_of


async def test_messages_arrive_in_order_both_ways(autojump_clock: MockClock) -> None:
    ours, theirs = map(Control, memory_stream_pair())
    heard: dict[str, list[dict[str, Any]]] = {"ours": [], "theirs": []}
    with trio.fail_after(86400):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ours.run, heard["ours"].append)
            nursery.start_soon(theirs.run, heard["theirs"].append)
            for number in range(100):
                assert ours.offer({"number": number, "text": "é\n"})
                assert theirs.offer({"number": -number})
            await trio.sleep(1)
            nursery.cancel_scope.cancel()
    assert heard["theirs"] == [{"number": number, "text": "é\n"} for number in range(100)]
    assert [message["number"] for message in heard["ours"]] == [-number for number in range(100)]


async def test_lines_may_be_cut_anywhere(autojump_clock: MockClock) -> None:
    messages = [{"n": n, "text": "x" * (n % 70)} for n in range(200)]
    data = b"".join(map(line_of, messages))
    stream, other = memory_stream_pair()
    heard: list[dict[str, Any]] = []
    cuts = random.Random(1)
    with trio.fail_after(86400):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Control(stream).run, heard.append)
            while data:
                size = cuts.randrange(1, 200)
                await other.send_all(data[:size])
                await trio.lowlevel.checkpoint()
                data = data[size:]
            await other.aclose()  # and `run` ends
    assert heard == messages


async def test_what_nobody_reads_is_bounded(autojump_clock: MockClock) -> None:
    control = Control(memory_stream_pair()[0])
    offered = 0
    while control.offer({"text": "x" * 100_000}):
        offered += 1
    assert offered == QUEUED_BYTES // len(line_of({"text": "x" * 100_000}))
    assert control.offer({"small": 1})  # there is a little room left


async def test_a_line_that_would_be_an_error_for_its_reader_is_not_sent(autojump_clock: MockClock) -> None:
    control = Control(memory_stream_pair()[0])
    room = LINE_BYTES - len(line_of({"text": ""}))
    assert not control.offer({"text": "x" * (room + 1)})
    assert control.offer({"text": "x" * room})


@pytest.mark.parametrize("line", [b"no json\n", b"[]\n", b"\xff\n", b"x" * (LINE_BYTES + 1)])
async def test_what_is_no_message_is_an_error(autojump_clock: MockClock, line: bytes) -> None:
    stream, other = memory_stream_pair()
    with trio.fail_after(86400), pytest.RaisesGroup(ControlError, flatten_subgroups=True):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Control(stream).run, lambda _: None)
            await other.send_all(line)


async def test_what_was_offered_last_is_sent_before_it_is_flushed(autojump_clock: MockClock) -> None:
    stream, other = memory_stream_pair()
    control = Control(stream)
    with trio.fail_after(86400):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(control.run, lambda _: None)
            control.offer({"last": "words"})
            await control.flushed()
            nursery.cancel_scope.cancel()
    assert await other.receive_some() == line_of({"last": "words"})
