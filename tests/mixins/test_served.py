"""Histories of served modules, with the local storage: what a job has said, the next one reads."""

from typing import Any

import pytest
import trio
from tests.module.sample import Message, Output, module_class
from tests.module.served import outputs_of, served

from dk_trio.module import TriggerHandler
from dk_trio.module.mixins import (
    ChatHistory,
    ChatHistoryMixin,
    FileHistory,
    FileModel,
)
from dk_trio.services.local.storage import DefaultStorage
from dk_trio.services.strategy import ServicesStrategy

STORAGE = {"storage": {"config": {"chat_history": ChatHistory, "file_history": FileHistory}}}


class Author(ChatHistoryMixin, TriggerHandler[Any]):
    """A handler has the file history already."""


class StorageInTwoSteps(DefaultStorage):
    """What any strategy of an author's own may be."""

    amend = None


def module_that(handle: Any, **attributes: Any) -> Any:
    module = module_class(services_config_params=STORAGE, **attributes)
    module.register(type("Handler", (Author,), {"protocol": "message", "handle": handle}))
    return module


async def remember(self: Any, input_data: Message, setup_data: Any, context: Any) -> None:
    """Append a message, and tell how many there were; wait for good when the text says so."""
    history = await self.load_chat_history(context)
    await self.append_chat_history_message(context, "user", input_data.text)
    await self.append_files_history(context, [FileModel(file_id=f"files:{input_data.text}")])
    await context.send(Output(root=Message(text="|".join(str(row.content) for row in history.messages))))
    if input_data.text == "wait":
        await trio.sleep_forever()


def said(outputs: list[dict[str, Any]]) -> str:
    return next(row["root"]["text"] for row in outputs if row["root"]["protocol"] == "message")


def message(text: str) -> dict[str, Any]:
    return {"root": {"protocol": "message", "text": text}}


@pytest.mark.parametrize("storage", [DefaultStorage, StorageInTwoSteps])
async def test_next_job_of_a_mission_reads_what_one_has_said(storage: Any, autojump_clock: Any) -> None:
    module = module_that(remember, services_config_strategies={"storage": ServicesStrategy(local=storage)})
    async with served(module) as (_, client):
        for text, before in [("a", ""), ("b", "a"), ("c", "a|b")]:
            assert said(await outputs_of(client, message(text), mission_id="missions:m")) == before
        assert said(await outputs_of(client, message("x"), mission_id="missions:other")) == ""


async def test_job_that_was_cancelled_has_written_its_history(autojump_clock: Any) -> None:
    async with served(module_that(remember)) as (_, client):
        async with client.start(message("wait"), mission_id="missions:m") as outputs:
            async for output in outputs:
                if output["root"]["protocol"] == "message":
                    break
        await trio.sleep(60)
        assert said(await outputs_of(client, message("b"), mission_id="missions:m")) == "wait"


async def test_caller_is_told_that_a_history_was_not_written(autojump_clock: Any) -> None:
    module = module_that(remember)
    module.services_config_params = {"storage": {"config": {"chat_history": ChatHistory}}}
    async with served(module) as (_, client):
        with pytest.raises(Exception, match="file_history"):
            await outputs_of(client, message("a"))


async def test_jobs_of_one_mission_that_run_at_once_lose_nothing(autojump_clock: Any) -> None:
    async with served(module_that(remember)) as (_, client):
        async with trio.open_nursery() as nursery:
            for each in range(20):
                nursery.start_soon(outputs_of, client, message(f"m{each}"))
        there = said(await outputs_of(client, message("last")))
    assert sorted(there.split("|")) == sorted(f"m{each}" for each in range(20))
