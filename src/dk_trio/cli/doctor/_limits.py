"""What the system allows this process, against what the settings promise to callers."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from ._finding import Finding, ok, warn

if TYPE_CHECKING:
    from dk_trio.settings import Settings

_OWN_FILES: Final = 100
"""Descriptors besides those of connections: libraries, logs, databases, listeners, a margin."""

_GIB: Final = 2**30


class _Machine(NamedTuple):
    cpus: float
    memory: int


_MACHINES: Final = {  # what the tuning guide has its presets for; Railway's begin at 1 CPU
    "small": _Machine(4, 8 * _GIB),
    "medium": _Machine(8, 32 * _GIB),
    "large": _Machine(32, 64 * _GIB),
    "railway": _Machine(1, _GIB // 2),
}
_ROUNDED: Final = 0.9  # a machine of 8 GB has somewhat less than 8 GiB


def limits(settings: Settings, root: Path = Path("/")) -> Iterator[Finding]:
    """File descriptors, the backlog, CPUs and memory.

    Args:
        settings: What is promised.
        root: Where `proc` and `sys` are.
    """
    yield _files(settings.server.max_concurrent_rpcs)
    if backlog := _backlog(root):
        yield backlog
    yield from _machine(settings, Path(root))


def _files(rpcs: int) -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    facts = {"soft": soft, "hard": hard, "max_concurrent_rpcs": rpcs}
    if soft == resource.RLIM_INFINITY or soft >= rpcs + _OWN_FILES:
        return ok(f"{soft} file descriptors, for {rpcs} RPCs.", **facts)
    return warn(
        f"{soft} file descriptors are fewer than the {rpcs} RPCs of DIGITALKIN_MAX_CONCURRENT_RPCS, each of which may "
        "come on a connection of its own.",
        f"`ulimit -n {rpcs + _OWN_FILES}` before the start, or LimitNOFILE={rpcs + _OWN_FILES} in a systemd unit"
        + ("." if hard == resource.RLIM_INFINITY or hard > rpcs + _OWN_FILES else f"; the hard limit is {hard}."),
        **facts,
    )


def _backlog(root: Path) -> Finding | None:
    from dk_trio.rpc.listeners import BACKLOG

    somaxconn = _number(root / "proc/sys/net/core/somaxconn")
    if somaxconn is None:  # not Linux
        return None
    if somaxconn >= BACKLOG:
        return ok(f"{BACKLOG} connections may wait to be accepted.", somaxconn=somaxconn)
    return warn(
        f"net.core.somaxconn={somaxconn} cuts the {BACKLOG} connections that may wait to be accepted: a crowd that "
        "connects at once is refused.",
        f"`sysctl -w net.core.somaxconn={BACKLOG}`.",
        somaxconn=somaxconn,
    )


def _machine(settings: Settings, root: Path) -> Iterator[Finding]:
    cpus = _cpus(root)
    memory = _memory(root)
    told = f"{cpus:g} CPUs" + (f" and {memory / _GIB:.1f} GiB of memory." if memory else ".")
    facts = {"cpus": cpus, "memory_bytes": memory}
    preset = settings.server.preset
    machine = _MACHINES.get(preset or "")
    if machine is not None and (
        cpus < machine.cpus * _ROUNDED or (memory or machine.memory) < machine.memory * _ROUNDED
    ):
        yield warn(
            f"{told[:-1]}, but the preset {preset!r} is for {machine.cpus:g} CPUs and {machine.memory / _GIB:g} GiB.",
            "Choose a smaller --preset, or give this process more.",
            **facts,
        )
    else:
        yield ok(told, **facts)
    here = os.cpu_count() or 1
    counted = settings.server.max_concurrent_rpcs
    if cpus < here and not _given(settings, "DIGITALKIN_MAX_CONCURRENT_RPCS"):
        yield warn(
            f"DIGITALKIN_MAX_CONCURRENT_RPCS is {counted} since this machine has {here} CPUs, but this process may use "
            f"{cpus:g} of them.",
            f"Set it, for instance to {max(1, round(cpus * counted / here))}.",
            **facts,
        )


def _holds(machine: _Machine, cpus: float, memory: int | None) -> bool:
    return cpus >= machine.cpus * _ROUNDED and (memory is None or memory >= machine.memory * _ROUNDED)


def _given(settings: Settings, name: str) -> bool:
    return any(row.variable.name == name and row.origin != "default" for row in settings.sources)


def _cpus(root: Path) -> float:
    """Those that this process may use: of the machine, by affinity, by the quota of its control groups."""
    count: float = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        count = min(count, len(os.sched_getaffinity(0)))
    for quota in _quotas(root):
        count = min(count, quota)
    return round(count, 2)


def _quotas(root: Path) -> Iterator[float]:
    for folder in _control_groups(root, "cpu"):
        words = _text(folder / "cpu.max").split()  # version 2: "200000 100000", or "max 100000"
        if len(words) == 2 and words[0] != "max":
            yield int(words[0]) / int(words[1])
        quota, period = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
        if quota is not None and period and quota > 0:
            yield quota / period


def _memory(root: Path) -> int | None:
    """Bytes: of the machine, or fewer when a control group says so; None when nobody says."""
    limits = [
        number
        for folder in _control_groups(root, "memory")
        for name in ("memory.max", "memory.limit_in_bytes")
        if (number := _number(folder / name)) is not None
    ]
    lines = _text(root / "proc/meminfo").splitlines()
    limits += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemTotal:")]
    return min(limits, default=None)


def _control_groups(root: Path, controller: str) -> Iterator[Path]:
    """The folders of this process's groups, from the innermost to the outermost; those that are not there, too."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, names, path = line.split(":", 2)
        if names and controller not in names.split(","):
            continue
        top = root / "sys/fs/cgroup" / (controller if names else "")
        inner = top / path.lstrip("/")
        yield from (folder for folder in (inner, *inner.parents) if folder.is_relative_to(top))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return ""


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.lstrip("-").isdigit() else None
