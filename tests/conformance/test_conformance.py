"""Every behaviour with every backend, see `tests.conformance`.

In memory each one is a test. On a disk a backend is opened once for all behaviours of a service, and emptied between
two of them: a provider and its database take longer to open than most behaviours.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
import trio.testing
from tests.postgres import postgres_url  # noqa: F401  a fixture

from . import SERVICES
from .backends import BACKENDS, Backend
from .kit import Check, Jobs, checks

CHECKS = [*checks()]

# Seconds: nothing in virtual time takes longer than a day, no behaviour in real time than this.
DAY, REAL = 86400, 60


def held_by(backend: Backend, service: str = "") -> list[Check]:
    """The behaviours that a backend must have."""
    return [
        check
        for check in CHECKS
        if service in {"", check.service} and check.holds_for(remote=backend.remote, virtual=backend.virtual)
    ]


IN_MEMORY = [
    pytest.param(backend, check, id=f"{name}-{check.service}-{check.name}")
    for name, backend in BACKENDS.items()
    if backend.virtual
    for check in held_by(backend)
]


@pytest.mark.parametrize(("backend", "check"), IN_MEMORY)
def test_in_memory(backend: Backend, check: Check) -> None:
    failures: list[Exception] = []

    async def run() -> None:
        async with backend.opened(Path(), "") as jobs:
            await attempt(check, jobs, DAY, failures)

    trio.run(run, clock=trio.testing.MockClock(autojump_threshold=0))
    if failures:
        raise failures[0]  # as it was, and not in the groups of the nurseries around it


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("name", [name for name, backend in BACKENDS.items() if not backend.virtual])
def test_on_disk(name: str, service: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    backend = BACKENDS[name]
    url = request.getfixturevalue("postgres_url") if backend.postgres else ""
    failures: list[Exception] = []

    async def run() -> None:
        async with backend.opened(tmp_path, url) as jobs:
            for check in held_by(backend, service):
                await attempt(check, jobs, REAL, failures)
                await jobs.empty()

    trio.run(run)
    if failures:
        raise ExceptionGroup(f"{service} on {backend.title}", failures)


async def attempt(check: Check, jobs: Jobs, seconds: float, failures: list[Exception]) -> None:
    try:
        with trio.fail_after(seconds):
            await check.behaviour(jobs, *check.arguments)
    except Exception as error:  # noqa: BLE001  told by the test
        error.add_note(f"{check.service}: {check.name}")
        failures.append(error)


def test_the_suite_is_whole() -> None:
    assert len({(check.service, check.name) for check in CHECKS}) == len(CHECKS) >= 250
    for backend in BACKENDS.values():
        assert len(held_by(backend)) >= 240, backend.title
        assert {check.service for check in held_by(backend)} == {*SERVICES}
