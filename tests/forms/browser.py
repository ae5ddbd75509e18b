"""What a user sees of a `{json_schema, ui_schema}` document: react-jsonschema-form in a headless Chromium."""

import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import Any

from tests import npm

PAGE = Path(__file__).parent / "page"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# Nothing of it reaches for the network; the time of the page is virtual, so its timers cost nothing.
OPTIONS = (
    "--headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --disable-background-networking "
    "--disable-component-update --disable-sync --no-first-run --no-proxy-server --virtual-time-budget=20000"
)
TIMEOUT = 120  # seconds; a start takes one or two

Step = tuple[str, str] | tuple[str, str, str]
"""`("choose", field, option)`, `("type", field, text)`, `("click", field)`, `("click", "submit")`."""


@dataclass(frozen=True)
class Snapshot:
    """What stands on the page at one moment."""

    fields: dict[str, dict[str, Any]]
    """The visible controls by name (`parent_child` for nested ones): tag, type, label, value, options, min, max."""
    complaints: list[str]
    """Errors that the page shows, also of what it cannot draw."""
    refused: list[str]
    """What the last submit was refused for."""
    submitted: list[dict[str, Any]]
    """The data of the last submit."""


class Browser:
    """Draws forms. Finds its parts when it is made.

    Raises:
        npm.Missing: node, npm, a package or the browser is not here.
    """

    def __init__(self, profile: Path) -> None:
        found = next(filter(None, map(shutil.which, BROWSERS)), None)
        if found is None:
            raise npm.Missing("chromium is not installed (Debian: chromium)")
        self._folder = npm.installed(PAGE, "bundle")
        self._command = [found, *OPTIONS.split(), f"--user-data-dir={profile}"]
        self._profile = profile

    def visit(self, document: dict[str, Any], *steps: Step) -> list[Snapshot]:
        """The form at first, and after each step of a user."""
        dom = self._run("--dump-dom", self._page(document, steps))
        text = re.search(r'<script type="application/json" id="report">(.*?)</script>', dom, re.DOTALL)[1]
        report = json.loads(unescape(text))
        if "error" in report:
            raise AssertionError(report["error"])
        return [Snapshot(**snapshot) for snapshot in report["snapshots"]]

    def picture(self, document: dict[str, Any], *steps: Step, path: Path, size: tuple[int, int]) -> None:
        """Write a PNG of the form as it is after the steps."""
        window = f"--window-size={size[0]},{size[1]}"
        self._run(f"--screenshot={path}", window, "--hide-scrollbars", self._page(document, steps))

    def _page(self, document: dict[str, Any], steps: tuple[Step, ...]) -> str:
        page = json.dumps({"document": document, "steps": steps}).replace("<", "\\u003c")
        path = self._profile / "form.html"
        html = (PAGE / "form.html").read_text().replace('src="form.js"', f'src="{(self._folder / "form.js").as_uri()}"')
        path.write_text(html.replace("/*PAGE*/", page))
        return path.as_uri()

    def _run(self, *arguments: str) -> str:
        command = [*self._command, *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=True).stdout
