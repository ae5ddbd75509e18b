"""What signals mean to a parent of workers."""

import os
import signal
from collections.abc import AsyncIterator

import pytest

from dk_trio.workers._spawn import _Orders


async def numbers(*given: int) -> AsyncIterator[int]:
    for number in given:
        yield number


@pytest.mark.parametrize(
    ("before", "after", "meant"),
    [
        (True, False, [signal.SIGTERM, signal.SIGINT]),  # the terminal is gone
        (True, True, [signal.SIGHUP, signal.SIGINT]),  # somebody has sent it
        (False, False, [signal.SIGHUP, signal.SIGINT]),  # there never was one
    ],
)
async def test_a_terminal_that_goes_away_is_the_end_and_not_an_order_to_replace(
    monkeypatch: pytest.MonkeyPatch, before: bool, after: bool, meant: list[int]
) -> None:
    monkeypatch.setattr(os, "isatty", lambda _: before)
    orders = _Orders(numbers(signal.SIGHUP, signal.SIGINT))
    monkeypatch.setattr(os, "isatty", lambda _: after)
    assert [number async for number in orders] == meant
