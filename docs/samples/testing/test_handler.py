import pytest
import trio
from reminder import OnRemind, Remind, Reminders

from dk_trio.errors import InvalidInputError
from dk_trio.testing import context_in_memory, run_handler


async def test_what_it_sends(virtual_clock):
    (reminder,) = await run_handler(OnRemind, {"text": "tea", "after": 3600}, module=Reminders)
    assert reminder["text"] == "tea!"
    assert trio.current_time() == 3600


async def test_what_it_keeps(virtual_clock):
    async with context_in_memory(Reminders) as context:
        await run_handler(OnRemind, Remind(text="tea", after=0), setup={"sign": "?"}, context=context, module=Reminders)
        (note,) = await context.storage.list("notes")
    assert note.data.text == "tea"


async def test_what_it_refuses(virtual_clock):
    with pytest.raises(InvalidInputError, match="after"):
        await run_handler(OnRemind, {"text": "tea", "after": "soon"}, module=Reminders)
