"""Tasks that ask for admission, and what became of them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from dk_trio.admission import Admission
from dk_trio.errors import AdmissionError
from dk_trio.settings import TaskSettings


@dataclass
class Crowd:
    """Starts tasks one after the other and notes, by their names, in which order they began and how they ended."""

    admission: Admission
    nursery: trio.Nursery
    began: list[object] = field(default_factory=list)
    refused: dict[object, AdmissionError] = field(default_factory=dict)
    scopes: dict[object, trio.CancelScope] = field(default_factory=dict)

    async def arrive(self, *names: object, hold: float = 1) -> None:
        """Each task asks before the next one is started."""
        for name in names:
            self.nursery.start_soon(self._task, name, hold)
            await trio.testing.wait_all_tasks_blocked()

    def burst(self, size: int, hold: float) -> None:
        """That many tasks in one scheduler pass."""
        for name in range(size):
            self.nursery.start_soon(self._task, name, hold)

    def leave(self, *names: object) -> None:
        for name in names:
            self.scopes[name].cancel()

    async def _task(self, name: object, hold: float) -> None:
        with trio.CancelScope() as self.scopes[name]:
            try:
                async with self.admission.admit():
                    self.began.append(name)
                    await trio.sleep(hold)
            except AdmissionError as error:
                self.refused[name] = error


@asynccontextmanager
async def crowd(**settings: object) -> AsyncIterator[Crowd]:
    """A crowd at a fresh admission; at the end of the block all of it has gone, and so it must look."""
    admission = Admission(TaskSettings(**settings))
    with trio.fail_after(86_400):
        async with trio.open_nursery() as nursery:
            yield Crowd(admission, nursery)
    assert_empty(admission)


def assert_empty(admission: Admission) -> None:
    now = admission.statistics()
    assert (now.running, now.queued, now.at_gate, now.admitted) == (0, 0, 0, 0)
    assert not admission._door.locked()
