"""Python, the packages beside us, and the extras: those that are there, and those that a setting needs."""

from __future__ import annotations

import platform
import re
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, requires, version
from typing import TYPE_CHECKING, Final

from ._finding import Finding, fail, ok

if TYPE_CHECKING:
    from dk_trio.settings import Settings

_NAME: Final = re.compile(r"[\w.-]+")
_EXTRA: Final = re.compile(r"""extra\s*==\s*['"]([\w-]+)['"]""")
_OURS: Final = frozenset({"bench", "dev", "docs", "proto", "test"})  # what the repository itself needs


def packages(settings: Settings) -> Iterator[Finding]:
    """Versions, and what is missing."""
    from dk_trio import __version__

    core, extras = _required()
    found = {name: _version(name) for name in core}
    yield ok(
        f"dk-trio {__version__} on Python {platform.python_version()}, trio {found.get('trio') or 'missing'}.",
        python=platform.python_version(),
        dk_trio=__version__,
        packages=found,
    )
    there = {extra: [name for name in names if _version(name) is None] for extra, names in extras.items()}
    whole = [extra for extra, missing in there.items() if not missing]
    yield ok(f"Extras that are installed: {', '.join(whole) or 'none'}.", installed=whole)
    for extra, why in _needed(settings).items():
        if missing := there.get(extra):
            yield fail(f"{why} needs {', '.join(missing)}.", f"`pip install 'dk-trio[{extra}]'`.", extra=extra)


def _needed(settings: Settings) -> Mapping[str, str]:
    """The extras without which a setting has no effect, each with that setting."""
    observe = settings.observe
    needed = {}
    if observe.metrics_port:
        needed["metrics"] = f"DIGITALKIN_METRICS_PORT={observe.metrics_port}"
    if observe.traces_endpoint:
        needed["otel"] = f"DIGITALKIN_TRACES_ENDPOINT={observe.traces_endpoint}"
    if observe.inspector:
        needed["inspector"] = "DIGITALKIN_INSPECTOR=true"
    if observe.profiler != "none":
        needed["profiling"] = f"DIGITALKIN_PROFILER={observe.profiler}"
    return needed


def _required() -> tuple[list[str], dict[str, list[str]]]:
    """Names of the packages that we need, and by extra those that one may have."""
    core: list[str] = []
    extras: dict[str, list[str]] = {}
    try:
        lines = requires("dk-trio") or []
    except PackageNotFoundError:  # run from a folder of sources
        lines = []
    for line in lines:
        match = _NAME.match(line)
        extra = _EXTRA.search(line)
        if match is None or match[0] == "dk-trio":
            continue
        if extra is None:
            core.append(match[0])
        elif extra[1] not in _OURS:
            extras.setdefault(extra[1], []).append(match[0])
    return core, extras


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
