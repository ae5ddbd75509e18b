"""What the inspector shows, as JSON values: one dict for the page, for `dk-trio top`, and for whoever asks.

Ids, error texts and names come from callers: whoever shows them has to escape them.
"""

from __future__ import annotations

import dataclasses
import enum
import os
import platform
import time
from collections import deque
from collections.abc import Iterable, Mapping
from math import isfinite
from typing import TYPE_CHECKING, Any, Final

import trio

from dk_trio import __version__
from dk_trio.hooks import Job, JobHook

if TYPE_CHECKING:
    from dk_trio.observe._part import Observed
    from dk_trio.server import ModuleServer
    from dk_trio.session import Session
    from dk_trio.stalls import LoopStatistics

SESSIONS_MAX: Final = 200
"""Sessions of a server that are told, the oldest; of the others there is the number."""

ENDED_KEPT: Final = 50
"""Jobs that have ended, which are told of."""

_ERROR_MAX: Final = 300  # characters
_ID_MAX: Final = 100  # characters; an id may hold whatever a caller likes


class Ended(JobHook):
    """The last jobs that have ended. Nothing of a job is kept but words and numbers."""

    def __init__(self) -> None:
        self._last: deque[tuple[float, dict[str, Any]]] = deque(maxlen=ENDED_KEPT)

    def ended(self, job: Job) -> None:
        outcome = job.outcome
        if outcome is None:
            return
        told = {
            "job": job.ids.job_id,
            "module": job.module_name,
            "protocol": job.protocol[:_ID_MAX],
            "mission": job.ids.mission_id[:_ID_MAX],
            "setup": job.ids.setup_id[:_ID_MAX],
            "reason": outcome.reason.value,
            "error": "" if outcome.error is None else outcome.error.text[:_ERROR_MAX],
            "waited": outcome.waited,
            "ran": outcome.ran,
            "outputs": job.outputs,
        }
        self._last.append((trio.current_time(), told))

    def told(self) -> list[dict[str, Any]]:
        """Newest first."""
        now = trio.current_time()
        return [{**told, "ago": now - at} for at, told in reversed(self._last)]


def snapshot(observed: Observed, *, ended: Iterable[Mapping[str, Any]], actions: bool) -> dict[str, Any]:
    """All but the tasks. Times are in seconds, and lengths of time but `at`, which is the Unix time.

    Args:
        observed: What is looked at.
        ended: Jobs that have ended.
        actions: Whether jobs may be stopped.
    """
    servers = [_server(server) for server in observed.modules()]
    return {
        "at": time.time(),
        "process": {
            "pid": os.getpid(),
            "worker": observed.worker,
            "version": __version__,
            "python": platform.python_version(),
            "trio": trio.__version__,
        },
        "actions": actions,
        "loop": plain(_loop(observed)),
        "servers": servers,
        "provider": _provider(observed),
        "ended": list(ended),
    }


def _loop(observed: Observed) -> LoopStatistics | None:
    """There is one loop: whoever watches it tells the same."""
    for server in observed.modules():
        return server.stalls.statistics()
    return None if observed.provider is None else observed.provider.statistics().loop


def _provider(observed: Observed) -> dict[str, Any] | None:
    if observed.provider is None:
        return None
    statistics: dict[str, Any] = plain(observed.provider.statistics())
    del statistics["loop"]
    return statistics


def _server(server: ModuleServer) -> dict[str, Any]:
    statistics = plain(server.statistics())
    del statistics["loop"]
    sessions = sorted(server.jobs, key=lambda session: session.created_at)
    now = trio.current_time()
    return {
        "modules": {key: module.name for key, module in server.modules.items()},
        **statistics,
        "sessions": [_session(session, now) for session in sessions[:SESSIONS_MAX]],
    }


def _session(session: Session, now: float) -> dict[str, Any]:
    ids = session.ids
    admitted = isfinite(session.admitted_at)
    return {
        "job": ids.job_id,
        "module": session.module_name,
        "protocol": session.protocol[:_ID_MAX],
        "state": session.state.value,
        "age": now - session.created_at,
        "waited": (session.admitted_at if admitted else now) - session.created_at,
        "ran": now - session.admitted_at if admitted else 0.0,
        "mission": ids.mission_id[:_ID_MAX],
        "setup": ids.setup_id[:_ID_MAX],
        "outputs": session.outputs,
    }


def plain(value: Any) -> Any:
    """Frozen statistics as JSON values: dataclasses as dicts, enumerations by value, inf as None."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(plain(key)): plain(each) for key, each in value.items()}
    if isinstance(value, enum.Enum):
        return plain(value.value)
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(each) for each in value]
    if isinstance(value, float):
        return value if isfinite(value) else None
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)
