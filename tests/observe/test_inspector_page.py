"""The page of the inspector in a browser, and `dk-trio top` in a terminal, beside a server that works.

DK_TRIO_WRITE_IMAGES=1 pytest tests/observe/test_inspector_page.py    writes the pictures of the documentation anew
"""

import io
import os
import re
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from grpclib.exceptions import GRPCError
from tests.cli.processes import ROOT, environment, serving
from tests.observe.chromium import page

from dk_trio import ModuleClient

MODULE = "docs/samples/importer.py"  # sends something each ten seconds
IMAGES = ROOT / "docs" / "images"
WRITE = bool(os.environ.get("DK_TRIO_WRITE_IMAGES"))
SIZE = (1180, 900)  # pixels
TERMINAL = (130, 36)  # characters and lines
PICTURE_MAX = 200_000  # bytes
PATIENCE = 60  # seconds
AUTHORS_LINE = f"{MODULE}:35 in OnImport.handle"
MISSION = "missions:<img src=x onerror='document.title=1'>"


@asynccontextmanager
async def at_work(jobs: int) -> AsyncIterator[tuple[str, ModuleClient]]:
    """URL of the inspector of a server that runs some jobs, which may be stopped."""

    async def call(number: int) -> None:
        mission = MISSION if number == 0 else f"missions:quarterly-report-{number}"
        try:
            async with client.start({"count": 10}, protocol="import", mission_id=mission) as outputs:
                async for _ in outputs:
                    pass
        except GRPCError as error:
            assert "an operator has stopped it" in str(error)

    on = {"DIGITALKIN_INSPECTOR": "true", "DIGITALKIN_INSPECTOR_PORT": "0", "DIGITALKIN_INSPECTOR_ACTIONS": "true"}
    with trio.fail_after(PATIENCE):
        async with serving(str(ROOT / MODULE), **on) as server, ModuleClient.connect(server.address) as client:
            url = re.findall(r"inspector at (http://[0-9.:]+)/", await server.wait_for("inspector at http"))[0]
            async with trio.open_nursery() as nursery:
                for number in range(jobs):
                    nursery.start_soon(call, number)
                yield url, client
                nursery.cancel_scope.cancel()
            server.process.terminate()
            assert await server.wait() == 0


async def test_the_page_shows_jobs_as_they_come_and_stops_one(tmp_path: Path) -> None:
    async with at_work(3) as (url, client), page(f"{url}/", tmp_path, size=SIZE) as tab:
        await tab.until("document.querySelectorAll('#sessions tbody tr').length === 3")
        assert await tab.evaluate("document.querySelector('#state').textContent") == "live"
        text = await tab.evaluate("document.body.innerText")
        assert MISSION in text, "as text"
        assert await tab.evaluate("document.images.length + document.title") == "0importer · dk-trio inspector"
        assert AUTHORS_LINE in await tab.evaluate("document.querySelector('#tasks').innerText")
        assert "3 / 100" in text
        await tab.until("document.querySelector('#tasks').innerText.includes('≥')")  # it has looked twice
        await tab.picture(IMAGES / "inspector.png" if WRITE else tmp_path / "inspector.png")

        await tab.evaluate("document.querySelector('#sessions button').click()")
        await tab.until("document.querySelectorAll('#sessions tbody tr').length === 2")
        ended = await tab.until("document.querySelector('#ended tbody tr')?.innerText")
        assert "stop module" in ended
        assert sorted(status.name for status in (await client.jobs()).values()) == [
            "PROCESSING",
            "PROCESSING",
            "STOPPED",
        ]
        await tab.evaluate("document.querySelector('#filter').value = 'no such thing';drawTasks(latest)")
        assert await tab.evaluate("document.querySelector('#tasks').innerText") == "Nothing of the kind."


async def test_top_shows_the_same_in_a_terminal_and_stops_a_job(tmp_path: Path) -> None:
    if shutil.which("tmux") is None:
        pytest.skip("tmux is not installed (Debian: tmux)")
    width, height = TERMINAL
    socket = str(tmp_path / "tmux")
    env = environment(TERM="xterm-256color", LC_ALL="C.UTF-8")
    for name in ("COLUMNS", "LINES", "TMUX"):  # of our own terminal
        env.pop(name, None)

    async def tmux(*arguments: str) -> str:
        done = await trio.run_process(["tmux", "-S", socket, *arguments], capture_stdout=True, env=env)
        return done.stdout.decode()

    async def screen_with(text: str, *more: str) -> str:
        """What is on the screen once it says this."""
        while True:
            seen = await tmux("capture-pane", "-p", *more)
            if text in seen:
                return seen
            await trio.sleep(0.05)

    async with at_work(3) as (url, client):
        top = f"{sys.executable} -m dk_trio top {url} --every 0.2; echo ended; sleep 600"
        await tmux("-f", "/dev/null", "new-session", "-d", "-x", str(width), "-y", str(height), top)
        try:
            seen = await screen_with("≥")
            assert "running 3/100" in seen
            assert AUTHORS_LINE in seen
            chosen = re.findall(r"^[0-9a-f-]{36}", seen, re.MULTILINE)[0]
            if WRITE:
                write_picture(await tmux("capture-pane", "-p", "-e"), IMAGES / "top.svg")
            await tmux("send-keys", "Down", "Up", "s")
            await screen_with("stop module")
            assert [job_id for job_id, status in (await client.jobs()).items() if status.name == "STOPPED"] == [chosen]
            await tmux("send-keys", "q")
            assert await screen_with("ended\n")
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 10):
                await tmux("kill-server")


def write_picture(screen: str, path: Path) -> None:
    """A terminal's screen as SVG."""
    from rich.console import Console
    from rich.text import Text

    console = Console(width=TERMINAL[0], record=True, file=io.StringIO())
    console.print(Text.from_ansi(screen.rstrip("\n")))
    drawing = console.export_svg(title="dk-trio top")
    drawing = re.sub(r"\s*@font-face \{.*?\}", "", drawing, flags=re.DOTALL)  # fonts of somebody's server
    path.write_text(drawing, encoding="utf-8")


def test_the_pictures_of_the_documentation() -> None:
    header = (IMAGES / "inspector.png").read_bytes()
    assert header.startswith(b"\x89PNG")
    assert (int.from_bytes(header[16:20]), int.from_bytes(header[20:24])) == SIZE
    assert len(header) < PICTURE_MAX
    drawing = (IMAGES / "top.svg").read_text(encoding="utf-8")
    assert "dk-trio&#160;top" in drawing or "dk-trio top" in drawing
    assert "https://" not in re.sub("<!--.*?-->", "", drawing, flags=re.DOTALL)
    assert len(drawing) < PICTURE_MAX
