"""Histories: what is written when, and that nothing is lost or doubled, whatever fails and whoever else writes."""

import random
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from dk_trio.errors import InvalidRecordError, StorageServiceError
from dk_trio.module.mixins import BaseMessage, BaseRole, ChatHistory, ChatHistoryMixin, FileHistoryMixin, FileModel
from dk_trio.module.mixins._histories import chat_history

from .kit import DAY, MISSION, Context, PlainStorage, Records

CHAT = ("chat_history", f"full_chat_history_{MISSION}")
FILES = ("file_history", f"full_file_history_{MISSION}")


class Author(ChatHistoryMixin, FileHistoryMixin):
    """A handler with both histories."""


author = Author()


async def say(context: Any, *words: str) -> None:
    for word in words:
        await author.append_chat_history_message(context, "user", word)


def stored(records: Records) -> list[str]:
    return [row["content"] for row in records.rows.get(CHAT, {}).get("messages", [])]


async def test_messages_are_written_every_few_appends_and_the_rest_at_the_end() -> None:
    context = Context(threshold=3)
    await say(context, "a", "b")
    assert stored(context.records) == []
    await say(context, "c", "d")
    assert stored(context.records) == ["a", "b", "c"]
    await context.end()
    assert stored(context.records) == ["a", "b", "c", "d"]
    assert context.records.calls == ["amend", "amend"]


async def test_end_of_a_job_without_appends_does_nothing() -> None:
    context = Context()
    await author.load_chat_history(context)
    await author.flush_chat_history(context)
    await context.end()
    assert context.records.calls == ["read"]
    assert context.records.rows == {}


async def test_nothing_is_written_twice_by_the_end() -> None:
    context = Context(threshold=1)
    await say(context, "a")
    await context.end()
    assert context.records.calls == ["amend"]


async def test_load_has_what_is_stored_and_what_is_not_yet() -> None:
    records = Records()
    records.rows[CHAT] = {"messages": [{"role": "assistant", "content": {"x": 1}}]}
    context = Context(records)
    await say(context, "a")
    history = await author.load_chat_history(context)
    assert isinstance(history, ChatHistory)
    assert [(row.role, row.content) for row in history.messages] == [("assistant", {"x": 1}), ("user", "a")]
    assert history.messages[1].role == BaseRole.USER
    await author.load_chat_history(context)
    assert records.calls == ["read"]


async def test_loaded_history_is_a_copy() -> None:
    context = Context()
    await author.append_chat_history_message(context, "user", {"words": ["a"]})
    (await author.load_chat_history(context)).messages[0].content["words"].append("b")
    assert (await author.load_chat_history(context)).messages[0].content == {"words": ["a"]}


async def test_cleared_cache_is_read_anew_and_loses_nothing() -> None:
    context, other = (Context(records := Records(), threshold=5), Context(records, threshold=1))
    await say(context, "mine")
    await author.load_chat_history(context)
    await say(other, "theirs")
    author.clear_ch_mission_cache(context)
    history = await author.load_chat_history(context)
    assert [row.content for row in history.messages] == ["theirs", "mine"]


async def test_fields_of_other_versions_stay() -> None:
    records = Records()
    records.rows[CHAT] = {"messages": [{"role": "user", "content": "old", "mood": "good"}], "language": "fr"}
    context = Context(records, threshold=1)
    await say(context, "new")
    assert records.rows[CHAT]["language"] == "fr"
    assert records.rows[CHAT]["messages"][0]["mood"] == "good"
    assert (await author.load_chat_history(context)).messages[0].model_extra == {"mood": "good"}


async def test_models_are_kept_as_json() -> None:
    class Reply(BaseModel):
        text: str

    context = Context(threshold=1)
    await author.append_chat_history_message(context, BaseRole.ASSISTANT, Reply(text="hi"))
    row = context.records.rows[CHAT]["messages"][0]
    assert (row["role"], row["content"]) == ("assistant", {"text": "hi"})
    assert type(row["role"]) is str


@pytest.mark.parametrize("lost", [False, True])
async def test_failed_write_raises_and_is_made_up_for(lost: bool) -> None:
    context = Context(threshold=2)
    context.records.failures, context.records.lost = 1, lost
    await say(context, "a")
    with pytest.raises(StorageServiceError, match="disk is full"):
        await say(context, "b")
    assert chat_history(context).dirty
    await say(context, "c")
    assert not chat_history(context).dirty
    assert stored(context.records) == ["a", "b", "c"]


async def test_failure_at_the_end_is_raised() -> None:
    context = Context()
    await say(context, "a")
    context.records.failures = 1
    with pytest.raises(StorageServiceError):
        await context.end()


@pytest.mark.parametrize("one_step", [False, True])
@pytest.mark.parametrize("patience", [0.5, 1.5, 2.5, 3.5])
async def test_cancelled_write_loses_and_doubles_nothing(patience: float, one_step: bool, autojump_clock: Any) -> None:
    context = Context(threshold=2, one_step=one_step)
    context.records.delay = 1
    with trio.fail_after(DAY):
        with trio.move_on_after(patience):
            await say(context, "a", "b")
        await context.end()
    assert stored(context.records) == ["a", "b"]


async def test_appends_while_a_write_is_under_way_are_written_once(autojump_clock: Any) -> None:
    context = Context(threshold=2)
    context.records.delay = 1
    with trio.fail_after(DAY):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(say, context, "a", "b")
            await trio.sleep(1.5)
            nursery.start_soon(say, context, "c")
        await context.end()
    assert stored(context.records) == ["a", "b", "c"]


async def test_writes_of_one_history_follow_each_other(autojump_clock: Any) -> None:
    context = Context(threshold=1)
    context.records.delay = 1
    most = 0

    async def watch(task_status: Any) -> None:
        nonlocal most
        task_status.started()
        while True:
            most = max(most, context.records.writing)
            await trio.sleep(0.25)

    with trio.fail_after(DAY):
        async with trio.open_nursery() as nursery:
            await nursery.start(watch)
            async with trio.open_nursery() as tasks:
                for word in "abcd":
                    tasks.start_soon(say, context, word)
            nursery.cancel_scope.cancel()
    assert most == 1
    assert sorted(stored(context.records)) == ["a", "b", "c", "d"]


@pytest.mark.parametrize("seed", range(10))
async def test_jobs_of_one_mission_do_not_overwrite_each_other(seed: int, autojump_clock: Any) -> None:
    chance, records = random.Random(seed), Records()
    records.delay = 0.3

    async def job(name: str) -> None:
        context = Context(records, threshold=chance.randint(1, 4))
        for each in range(5):
            await trio.sleep(chance.random())
            with trio.move_on_after(chance.random()):
                await say(context, f"{name}{each}")
        await context.end()

    with trio.fail_after(DAY):
        async with trio.open_nursery() as nursery:
            for name in "abc":
                nursery.start_soon(job, name)
    said = stored(records)
    assert sorted(said) == [f"{name}{each}" for name in "abc" for each in range(5)]
    for name in "abc":
        assert [word for word in said if word[0] == name] == [f"{name}{each}" for each in range(5)]


async def test_storage_without_a_single_step_is_read_right_before_it_is_written() -> None:
    records = Records()
    first, second = Context(records, threshold=1, one_step=False), Context(records, threshold=1, one_step=False)
    await author.load_chat_history(first)
    await say(second, "theirs")
    await say(first, "mine")
    assert stored(records) == ["theirs", "mine"]
    assert records.calls[-2:] == ["read", "upsert"]


async def test_what_another_has_overwritten_is_put_back_with_the_next_write() -> None:
    records = Records()
    context = Context(records, threshold=1, one_step=False)
    await say(context, "a")
    records.rows[CHAT] = {"messages": [{"role": "user", "content": "theirs"}]}
    await say(context, "b")
    assert stored(records) == ["theirs", "a", "b"]


async def test_model_that_drops_the_ids_of_entries_is_refused() -> None:
    class Forgetful(PlainStorage):
        async def upsert(self, collection: str, record_id: str, data: Any, data_type: str = "OUTPUT") -> Any:
            for row in data["messages"]:
                del row["entry_id"]
            return await super().upsert(collection, record_id, data, data_type)

    context = Context(threshold=1)
    context.storage = Forgetful(context.records)
    with pytest.raises(InvalidRecordError, match=r"'chat_history'.*'entry_id'") as caught:
        await say(context, "a")
    assert "ChatHistory" in caught.value.hint


async def test_files_are_counted_by_appends_and_have_a_record_of_their_own() -> None:
    context = Context(threshold=2)
    await author.append_files_history(context, [FileModel(file_id=f"files:{each}") for each in range(5)])
    assert context.records.rows == {}
    await author.append_files_history(context, [])
    await author.append_files_history(context, [FileModel(file_id="files:5", name="x.txt", metadata={"a": [1]})])
    assert [row["file_id"] for row in context.records.rows[FILES]["files"]] == [f"files:{each}" for each in range(6)]
    history = await author.load_file_history(context)
    assert history.files[5].metadata == {"a": [1]}
    author.clear_fh_mission_cache(context)
    await author.flush_file_history(context)
    assert context.records.calls == ["amend"]


async def test_message_is_in_the_history_before_it_is_sent() -> None:
    context = Context(threshold=1)
    await author.save_send_message(context, {"root": {"protocol": "message", "text": "hi"}}, "assistant")
    assert context.outputs == [{"root": {"protocol": "message", "text": "hi"}}]
    assert context.records.rows[CHAT]["messages"][0]["content"] == {"protocol": "message", "text": "hi"}
    context.records.failures = 1
    with pytest.raises(StorageServiceError):
        await author.save_send_message(context, BaseMessage(role="x", content="y"), "assistant")
    assert len(context.outputs) == 1


async def test_histories_of_two_jobs_are_two_objects() -> None:
    context = Context()
    assert chat_history(context) is chat_history(context)
    assert chat_history(context) is not chat_history(Context())


async def test_state_can_be_seen() -> None:
    context = Context()
    await say(context, "a")
    assert "1 entries to write" in repr(chat_history(context))


STEPS = st.lists(
    st.tuples(st.sampled_from(["append", "flush", "load", "clear", "fail", "lose"]), st.integers(0, 1)),
    max_size=25,
)


@given(STEPS, st.integers(1, 4), st.booleans())
def test_any_order_of_steps_stores_each_message_once_and_in_order(
    steps: list[tuple[str, int]], threshold: int, one_step: bool
) -> None:
    async def play() -> None:
        records = Records()
        jobs = [Context(records, threshold=threshold, one_step=one_step) for _ in range(2)]
        said: list[list[str]] = [[], []]
        for number, (step, who) in enumerate(steps):
            try:
                if step == "append":
                    said[who].append(f"{who}:{number}")
                    await say(jobs[who], said[who][-1])
                elif step == "flush":
                    await author.flush_chat_history(jobs[who])
                elif step == "load":
                    assert {row.content for row in (await author.load_chat_history(jobs[who])).messages} >= set(
                        said[who]
                    )
                elif step == "clear":
                    author.clear_ch_mission_cache(jobs[who])
                elif step in {"fail", "lose"}:
                    records.failures, records.lost = 1, step == "lose"
            except StorageServiceError:
                pass
        records.failures = 0
        for job in jobs:
            await job.end()
        for who in range(2):
            assert [word for word in stored(records) if word[0] == str(who)] == said[who]

    trio.run(play)
