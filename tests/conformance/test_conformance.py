"""Every behaviour with every backend, see `tests.conformance`."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
import trio.testing
from tests.postgres import postgres_url  # noqa: F401  a fixture

from .backends import BACKENDS, Backend
from .kit import Check, checks

CHECKS = [*checks()]
RUNS = [
    pytest.param(backend, check, id=f"{name}-{check.service}-{check.name}")
    for name, backend in BACKENDS.items()
    for check in CHECKS
    if check.holds_for(remote=backend.remote, virtual=backend.virtual)
]

# Seconds: nothing in virtual time takes longer than a day, nothing in real time than this.
DAY, REAL = 86400, 60


@pytest.mark.parametrize(("backend", "check"), RUNS)
def test_behaviour(backend: Backend, check: Check, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    url = request.getfixturevalue("postgres_url") if backend.postgres else ""

    async def run() -> None:
        with trio.fail_after(DAY if backend.virtual else REAL):
            async with backend.opened(tmp_path / "data", url) as jobs:
                try:
                    await check.behaviour(jobs, *check.arguments)
                except BaseException as error:  # noqa: BLE001  told below
                    failures.append(error)

    failures: list[BaseException] = []
    trio.run(run, clock=trio.testing.MockClock(autojump_threshold=0) if backend.virtual else None)
    if failures:
        raise failures[0]  # as it was, and not in the groups of the nurseries around it


def test_the_suite_is_whole() -> None:
    assert len({(check.service, check.name) for check in CHECKS}) == len(CHECKS) >= 150
    for backend in BACKENDS.values():
        held = [check for check in CHECKS if check.holds_for(remote=backend.remote, virtual=backend.virtual)]
        assert len(held) >= 140, backend.title
