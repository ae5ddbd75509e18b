"""Queries meet the provider that they were made for: it says what it honours, and a write is applied once."""

from __future__ import annotations

import trio
import trio.testing
from tests.provider.kit import provided

from dk_trio.extensions import ALL
from dk_trio.services.query import ProviderQuery


async def test_a_health_check_tells_what_is_honoured(autojump_clock: trio.abc.Clock) -> None:
    async with provided() as here:
        query = ProviderQuery(here.channel)
        assert query.honours == frozenset()
        assert await query.ask() == ALL
        assert query.honours == ALL
        await here.cut()
        await trio.testing.wait_all_tasks_blocked()
        assert query.honours == frozenset()
        assert await query.ask() == ALL
        assert query.extensions.asked == 2
