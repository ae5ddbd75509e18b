"""A page in a headless Chromium that runs on while a test looks at it, by the DevTools protocol over a pipe."""

import base64
import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from tests.forms.browser import BROWSERS, OPTIONS

PATIENCE = 60  # seconds; a start takes one or two


class Tab:
    """One page."""

    def __init__(self, commands: trio.lowlevel.FdStream, events: trio.lowlevel.FdStream) -> None:
        self._commands = commands
        self._events = events
        self._number = 0
        self._rest = b""
        self.session = ""

    async def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command and its answer."""
        self._number += 1
        request: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self.session:
            request["sessionId"] = self.session
        await self._commands.send_all(json.dumps(request).encode() + b"\0")
        while True:
            message = await self._message()
            if message.get("id") == self._number:
                assert "error" not in message, message
                return message["result"]

    async def _message(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            received = await self._events.receive_some()
            assert received, "the browser has ended"
            self._rest += received
        text, _, self._rest = self._rest.partition(b"\0")
        return json.loads(text)

    async def evaluate(self, expression: str) -> Any:
        """The value of an expression in the page; a promise is waited for."""
        told = await self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    async def until(self, expression: str) -> Any:
        """The value of an expression as soon as it is true, looked at whenever the page is drawn."""
        return await self.evaluate(
            f"new Promise(done => {{ const look = () => {{ const found = ({expression});"
            f" found ? done(found) : setTimeout(look, 20); }}; look(); }})"
        )

    async def picture(self, path: Path) -> None:
        """Write a PNG of what is seen."""
        told = await self.ask("Page.captureScreenshot", format="png")
        await trio.Path(path).write_bytes(base64.b64decode(told["data"]))


@asynccontextmanager
async def page(url: str, profile: Path, *, size: tuple[int, int], dark: bool = False) -> AsyncIterator[Tab]:
    """A page for the length of the block; skips the test where there is no browser."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip("chromium is not installed (Debian: chromium)")
    options = [option for option in OPTIONS.split() if "virtual-time" not in option]
    reads, commands = os.pipe()
    events, writes = os.pipe()
    command = [found, *options, f"--user-data-dir={profile}", "--remote-debugging-pipe", "about:blank"]

    def as_expected() -> None:  # it reads from 3 and writes to 4
        high = os.dup(writes) if writes == 3 else writes
        os.dup2(reads, 3)
        os.dup2(high, 4)

    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            await nursery.start(
                partial(
                    trio.run_process,
                    command,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    check=False,
                    close_fds=False,
                    preexec_fn=as_expected,
                    deliver_cancel=_kill,
                )
            )
            os.close(reads)
            os.close(writes)
            async with trio.lowlevel.FdStream(commands) as ours, trio.lowlevel.FdStream(events) as theirs:
                tab = Tab(ours, theirs)
                (target,) = [
                    each for each in (await tab.ask("Target.getTargets"))["targetInfos"] if each["type"] == "page"
                ]
                attached = await tab.ask("Target.attachToTarget", targetId=target["targetId"], flatten=True)
                tab.session = attached["sessionId"]
                width, height = size
                await tab.ask(
                    "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
                )
                if dark:
                    scheme = [{"name": "prefers-color-scheme", "value": "dark"}]
                    await tab.ask("Emulation.setEmulatedMedia", features=scheme)
                await tab.ask("Page.navigate", url=url)
                yield tab
                nursery.cancel_scope.cancel()


async def _kill(process: trio.Process) -> None:
    process.kill()
