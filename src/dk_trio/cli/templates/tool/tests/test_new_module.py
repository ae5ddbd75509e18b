"""What the tool answers, over memory and in no time."""

import pytest
from grpclib import GRPCError, Status
from trio.testing import MockClock

from new_module import NewModule

from .served import answers, served

TEXT = "Attack at dawn.\nWait.\nThe attack is over."


async def test_words_and_lines_are_counted(autojump_clock: MockClock) -> None:
    async with served(NewModule) as client:
        (counted,) = await answers(client, {"text": TEXT}, protocol="count")
    assert (counted["words"], counted["lines"]) == (8, 3)


async def test_every_line_with_the_word_is_found(autojump_clock: MockClock) -> None:
    async with served(NewModule) as client:
        found = await answers(client, {"text": TEXT, "word": "attack"}, protocol="find")
    assert [line["number"] for line in found] == [1, 3]


async def test_a_setup_decides_whether_case_matters(autojump_clock: MockClock) -> None:
    async with served(NewModule) as client:
        await client.config_setup({"ignore_case": False}, setup_id="setups:exact")
        found = await answers(client, {"text": TEXT, "word": "attack"}, protocol="find", setup_id="setups:exact")
    assert [line["number"] for line in found] == [3]


async def test_an_empty_word_is_refused(autojump_clock: MockClock) -> None:
    async with served(NewModule) as client:
        with pytest.raises(GRPCError, match="word") as caught:
            await answers(client, {"text": TEXT, "word": ""}, protocol="find")
    assert caught.value.status is Status.INVALID_ARGUMENT
