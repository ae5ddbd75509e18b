"""What the tool answers, over memory and in no time."""

from dk_trio.testing import run_handler, run_job
from grpclib import Status
from trio.testing import MockClock

import new_module
from new_module import NewModule

TEXT = "Attack at dawn.\nWait.\nThe attack is over."
ATTACKS = {"text": TEXT, "word": "attack"}


async def test_words_and_lines_are_counted(virtual_clock: MockClock) -> None:
    (counted,) = await run_handler(new_module.OnCount, {"text": TEXT})  # the handler alone
    assert (counted["words"], counted["lines"]) == (8, 3)


async def test_every_line_with_the_word_is_found(virtual_clock: MockClock) -> None:
    result = await run_job(NewModule, ATTACKS, protocol="find")  # a whole job on a server
    assert [line["number"] for line in result.outputs] == [1, 3]


async def test_a_setup_decides_whether_case_matters(virtual_clock: MockClock) -> None:
    exact = {"ignore_case": False}
    result = await run_job(NewModule, ATTACKS, protocol="find", setup=exact)
    assert [line["number"] for line in result.outputs] == [3]


async def test_an_empty_word_is_refused(virtual_clock: MockClock) -> None:
    result = await run_job(NewModule, {"text": TEXT, "word": ""}, protocol="find")
    assert result.status is Status.INVALID_ARGUMENT
    assert "word" in result.error
