"""`dk-trio top`: the inspector of a server, in a terminal."""

from __future__ import annotations

import json
import select
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlsplit

import click

from dk_trio.errors import InspectorRefusedError, InspectorUnavailableError, MissingPackageError

from ._exits import CODES
from ._output import is_terminal, write_line
from ._seconds import Seconds
from ._settings import load_settings

if TYPE_CHECKING:
    from rich.live import Live

_TIMEOUT: Final = 10.0  # seconds; a busy server answers late
_LONGEST: Final = 64 * 2**20  # bytes of a snapshot
_FILE_WIDTH: Final = 200  # characters of a line that goes to no terminal
_ESCAPE_WITHIN: Final = 0.05  # seconds; the rest of an arrow key comes at once
_HOW_TO: Final = (
    "Start the server with DIGITALKIN_INSPECTOR=true, or name the URL of its inspector: dk-trio top http://HOST:PORT. "
    "With --workers, each worker has the next port."
)


@click.command(
    epilog=f"""\b
Examples:
  DIGITALKIN_INSPECTOR=true dk-trio serve mymodule.py
  dk-trio top
  dk-trio top http://127.0.0.1:8766
  dk-trio top --json | jq .servers[].admission

Keys: up and down choose a job, s stops it where the server was started with DIGITALKIN_INSPECTOR_ACTIONS=true, space
pauses, q ends. Elsewhere than on a terminal, what would be shown is printed once.

\b
{CODES}"""
)
@click.argument("url", required=False)
@click.option("--once", is_flag=True, help="Print it once and end.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as one line of JSON and end.")
@click.option(
    "--every",
    metavar="SECONDS",
    type=Seconds(0.2, 3600),
    default=1.0,
    show_default=True,
    help="Time between two looks.",
)
@click.option("--token", help="Token of the inspector, seen by who may list processes.  [default: of the settings]")
def command(*, url: str | None, once: bool, as_json: bool, every: float, token: str | None) -> None:
    """Watch a server: its jobs, tasks, gauges and stalls, from its inspector.

    URL is http://HOST:PORT of the inspector; where the settings have it when it is left out.
    """
    settings = load_settings(serving=False).observe
    host = settings.inspector_host if settings.inspector_host not in {"0.0.0.0", "::"} else "127.0.0.1"
    default = f"http://[{host}]" if ":" in host else f"http://{host}"
    source = _Source(url or f"{default}:{settings.inspector_port}", token or settings.inspector_token)
    if as_json:
        write_line(source.snapshot())
        return
    try:
        from rich.console import Console
        from rich.live import Live
    except ImportError as error:
        raise MissingPackageError(
            f"`dk-trio top` needs the package rich, which cannot be imported: {error}.",
            hint="Install the extra: pip install 'dk-trio[cli]'. `dk-trio top --json` needs nothing.",
        ) from error

    from ._top_screen import screen

    snapshot = source.snapshot()
    if not is_terminal():
        Console(highlight=False, width=_FILE_WIDTH).print(screen(snapshot))
        return
    console = Console(highlight=False)
    if once:
        console.print(screen(snapshot, width=console.width))
        return
    with _keys() as pressed, Live(console=console, screen=True, auto_refresh=False) as live:
        _watch(source, snapshot, live, pressed, every)


def _watch(source: _Source, snapshot: dict[str, Any], live: Live, pressed: _Keys, every: float) -> None:
    from ._top_screen import screen

    chosen, note, paused = 0, "", False
    due = time.monotonic() + every
    while True:
        jobs = [session["job"] for server in snapshot["servers"] for session in server["sessions"]]
        chosen = max(0, min(chosen, len(jobs) - 1))
        size = live.console.size
        live.update(
            screen(snapshot, width=size.width, height=size.height, chosen=chosen, note=note, paused=paused),
            refresh=True,
        )
        key = pressed.within(due - time.monotonic())
        if key == "q":
            return
        if key in {"up", "k"}:
            chosen -= 1
        elif key in {"down", "j"}:
            chosen += 1
        elif key == " ":
            paused = not paused
        elif key == "s" and jobs:
            note = source.stop(jobs[chosen])
        if not key:
            due = time.monotonic() + every
            if not paused:
                try:
                    snapshot, note = source.snapshot(), "" if "is not answered" in note else note
                except InspectorUnavailableError as error:  # it may come back: a server that is started anew
                    note = f"{source.url} is not answered: {error.message}"


class _Source:
    """An inspector.

    Args:
        url: `http://HOST:PORT`.
        token: Its token, if it has one.
    """

    def __init__(self, url: str, token: str | None) -> None:
        try:
            parts = urlsplit(url if "://" in url else f"http://{url}")
            known = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
        except ValueError:  # its port is none, or a bracket is missing
            known = False
        if not known:
            raise click.BadParameter(f"{url!r} is not http://HOST:PORT", param_hint="URL")
        self.url = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
        self._token = token

    def snapshot(self) -> dict[str, Any]:
        """How things are.

        Raises:
            InspectorUnavailableError: Nothing answers there, or something else.
            InspectorRefusedError: The token is missing or wrong.
        """
        text = self._ask("/snapshot.json")
        try:
            found = json.loads(text)
            found["tasks"], found["servers"]
        except (ValueError, TypeError, KeyError):
            raise InspectorUnavailableError(f"What answers at {self.url} is no inspector.", hint=_HOW_TO) from None
        snapshot: dict[str, Any] = found
        return snapshot

    def stop(self, job_id: str) -> str:
        """Stop a job; what came of it, in words."""
        try:
            self._ask(f"/jobs/{quote(job_id, safe='')}/stop", method="POST")
        except (InspectorRefusedError, InspectorUnavailableError) as error:
            return error.message
        return f"job {job_id} was told to stop"

    def _ask(self, path: str, method: str = "GET") -> bytes:
        import http.client
        import urllib.error
        import urllib.request

        headers = {"x-dk-trio": "top"}
        request = urllib.request.Request(self.url + path, method=method, headers=headers)  # noqa: S310  checked above
        if self._token is not None:
            request.add_unredirected_header("authorization", f"Bearer {self._token}")  # for nobody but whom it is for
        # The proxies of the environment lead out of this machine.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=_TIMEOUT) as answer:
                body: bytes = answer.read(_LONGEST)
                return body
        except urllib.error.HTTPError as error:
            text = error.read(1000).decode(errors="replace").strip()
            if error.code in {401, 403}:
                raise InspectorRefusedError(text) from None
            raise InspectorUnavailableError(text or f"{self.url} answers {error.code}.") from None
        except (OSError, UnicodeError, http.client.HTTPException) as error:  # Unicode: a host that can be no name
            why = getattr(error, "reason", None) or error
            why = getattr(why, "strerror", None) or why
            raise InspectorUnavailableError(f"No inspector answers at {self.url}: {why}.", hint=_HOW_TO) from None


class _Keys:
    """What is typed, key by key."""

    def within(self, timeout: float) -> str:
        """The next key, `up` and `down` by name; empty when none came in time."""
        if not select.select([sys.stdin], [], [], max(0.0, timeout))[0]:
            return ""
        key = self._read()
        if key != "\x1b":
            return key
        rest = ""
        while len(rest) < 2 and select.select([sys.stdin], [], [], _ESCAPE_WITHIN)[0]:
            rest += self._read()
        return {"[A": "up", "OA": "up", "[B": "down", "OB": "down"}.get(rest, "escape")

    def _read(self) -> str:
        import os

        return os.read(sys.stdin.fileno(), 1).decode(errors="replace") or "q"  # nothing: the terminal is gone


@contextmanager
def _keys() -> Iterator[_Keys]:
    """Keys at once and unseen, for the length of the block."""
    import termios
    import tty

    if not sys.stdin.isatty():
        raise click.UsageError("Keys are read from stdin, which is no terminal. Use --once.")
    before = termios.tcgetattr(sys.stdin)
    tty.setcbreak(sys.stdin)
    try:
        yield _Keys()
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
