"""How much batteries do: enough for a commit, or for a night (`make soak`)."""

import json
import os
from pathlib import Path
from typing import Any, Final, TypeVar

T = TypeVar("T")

SOAK: Final = os.environ.get("DK_TRIO_SOAK") == "1"
"""Whether this is a night. Read once, at import: the parameters of tests depend on it."""


def size(commit: T, night: T) -> T:
    """The first in `make test`, the second in `make soak`."""
    return night if SOAK else commit


def record(battery: str, **figures: Any) -> None:
    """Note what a battery has done, for `docs/reliability.md`.

    Each call replaces the figures of its battery. Written only where `DK_TRIO_FIGURES` names a directory, as
    `make soak` does.
    """
    directory = os.environ.get("DK_TRIO_FIGURES")
    if directory:
        Path(directory).mkdir(parents=True, exist_ok=True)
        Path(directory, f"{battery}.json").write_text(json.dumps(figures, indent=1, sort_keys=True) + "\n")
