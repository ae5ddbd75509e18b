"""What a job held is free as soon as it has ended, and not with the next collection of cycles."""

import gc
import weakref
from typing import Any

import pytest
import trio
import trio.testing

from .sample import Message, module_with
from .served import served


class Held:
    """Stands for a large thing in an author's hands."""


@pytest.fixture
def no_collection() -> Any:
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collection")
async def test_of_a_job_whose_caller_has_left(autojump_clock: object) -> None:
    held: list[weakref.ref[Held]] = []

    async def waits(self: Any, input_data: Any, setup_data: Any, context: Any) -> None:
        mine = Held()
        held.append(weakref.ref(mine))
        await context.send(Message(text="begun"))
        await trio.sleep_forever()

    async with served(module_with(waits)) as (_, client):
        async with client.start({"protocol": "message", "text": ""}) as outputs:
            await anext(outputs)
            assert held[0]() is not None
        await trio.testing.wait_all_tasks_blocked()
        assert held[0]() is None
