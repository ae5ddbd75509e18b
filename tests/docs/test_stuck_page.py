"""What the page `When it is stuck` says of logs, trees and times."""

import logging
import re
from pathlib import Path

import pytest
import stuck
import trio
import trio.testing
from grpclib.exceptions import GRPCError
from tests.module.served import outputs_of, served

from dk_trio.boundary import SWALLOWS
from dk_trio.lifecycle import SessionOptions
from dk_trio.observe.task_tree import Surveyor, lines
from dk_trio.session import ABANDON_AFTER
from dk_trio.settings import ChannelSettings, ServerSettings

PAGE = (Path(__file__).parents[2] / "docs" / "stuck.md").read_text()


def shown(line: str) -> str:
    """A line of the page, as the test sees it: without folders, and with all ids alike."""
    line = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "...", re.sub(r"\b[0-9a-f]{8}-\.\.\.", "...", line))
    return re.sub(r"[/\w.-]*/stuck\.py", "stuck.py", re.sub(r"session\.py:\d+", "session.py", line)).strip()


async def test_the_tree_names_the_line_that_waits(autojump_clock: trio.testing.MockClock) -> None:
    async with served(stuck.Oracle) as (_, client), client.start({"protocol": "wait"}) as outputs:
        await anext(outputs)
        await trio.testing.wait_all_tasks_blocked()
        surveyor = Surveyor()
        tree = [shown(line) for line in lines(await surveyor.survey())]
        on_the_page = [shown(line) for line in PAGE.splitlines() if "ask_the_oracle" in line and " - " in line]
        assert len(on_the_page) == 1
        assert set(on_the_page) < set(tree)
        await trio.sleep(17)
        assert any("ask_the_oracle (for at least 17 s)" in line for line in lines(await surveyor.survey()))


async def test_code_that_goes_on_after_its_cancel_is_named(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR, "dk_trio.session")
    times = SessionOptions(cleanup_grace=10, execution_timeout=1)
    async with served(stuck.Oracle, session_options=times) as (server, client):
        with pytest.raises(GRPCError):
            await outputs_of(client, {"protocol": "wait", "how": "shield"})
        (said,) = [shown(line) for line in PAGE.splitlines() if "its code goes on 15 s" in line]
        assert [shown(f"ERROR {record.name}: {record.getMessage()}") for record in caplog.records] == [said]
        assert SWALLOWS in said
        assert len(server.jobs) == 1  # it keeps its slot
        await trio.sleep(3600)
        assert len(server.jobs) == 0


def test_the_times_of_the_page() -> None:
    grace = SessionOptions().cleanup_grace + ABANDON_AFTER
    assert f"After {grace:g} s the\nlog has the line of code" in PAGE
    assert f"after {ChannelSettings().keepalive_time:g} s without traffic" in PAGE
    assert f"a server asks after {ServerSettings().keepalive_time:g} s" in PAGE
    assert f"{ChannelSettings().keepalive_timeout:g} s later" in PAGE


def test_every_symptom_has_its_part() -> None:
    links = re.findall(r"\[(.*?)\]\(#([\w-]+)\)", PAGE)
    headings = re.findall(r"^## (.*)$", PAGE, re.MULTILINE)
    assert [text for text, _ in links] == headings[1:]
