"""The tools of one job: those that can be called, and why the others cannot."""

from __future__ import annotations

import re
from typing import TypeVar

from dk_trio.errors import ToolUnavailableError
from dk_trio.services.registry import bare_setup_id

from .models import ToolModuleInfo

ItemT = TypeVar("ItemT")

_RUNS = re.compile(r"[^a-z0-9]+")


class ToolCache:
    """Tools by the id of their setup, with or without its prefix.

    Attributes:
        entries: Tools that can be called, each with the functions that were selected of it.
        failures: Why the other selected tools cannot be called.
    """

    def __init__(self) -> None:
        self.entries: dict[str, ToolModuleInfo] = {}
        self.failures: dict[str, ToolUnavailableError] = {}

    def __repr__(self) -> str:
        return f"<ToolCache {len(self.entries)} tools, {len(self.failures)} unavailable>"

    def add(self, tool: ToolModuleInfo) -> None:
        """From now on `tool` is the tool of its setup."""
        self.clear(tool.setup_id)
        self.entries[tool.setup_id] = tool

    def get(self, setup_id: str) -> ToolModuleInfo | None:
        """The tool of a setup; None when no such tool was selected.

        Raises:
            ToolUnavailableError: It was selected, but cannot be called.
        """
        failure = _find(self.failures, setup_id)
        if failure is not None:
            # An exception of its own, since raising one writes to it, and many may ask.
            again = ToolUnavailableError(failure.message, hint=failure.hint, violations=failure.violations)
            raise again from failure.__cause__
        return _find(self.entries, setup_id)

    def clear(self, setup_id: str | None = None) -> None:
        """Forget the tool of one setup, or all."""
        for known in (self.entries, self.failures):
            for key in list(known):
                if setup_id is None or bare_setup_id(key) == bare_setup_id(setup_id):
                    del known[key]

    def list_tools(self) -> list[str]:
        """The ids of the setups whose tools can be called."""
        return list(self.entries)


def slug(name: str) -> str:
    """A name as a part of an identifier: lower case, each run of anything else than letters and digits a `_`."""
    return _RUNS.sub("_", name.lower())


def _find(known: dict[str, ItemT], setup_id: str) -> ItemT | None:
    wanted = bare_setup_id(setup_id)
    return next((item for key, item in known.items() if bare_setup_id(key) == wanted), None)
