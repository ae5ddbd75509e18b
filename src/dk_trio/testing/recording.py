"""The provider that a `FakeProvider` serves: the real one, which remembers what a test asks of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dk_trio.provider import Provider
from dk_trio.provider.task_manager import TaskManagerServicer

if TYPE_CHECKING:
    from dk_trio.pb.agentic_mesh_protocol.task_manager.v1 import SendSignalsRequest, SendSignalsResponse, Task
    from dk_trio.provider import Database


class _Recorder(TaskManagerServicer):
    """Remembers what it took for as long as it lives; the store forgets a job an hour after its end."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.taken: dict[tuple[str, bytes], Task] = {}

    async def send_signals(self, message: SendSignalsRequest) -> SendSignalsResponse:
        # As they came: dates are given to what has none, and then two that are the same differ.
        came = [(bytes(task), task) for task in message.tasks]
        reply = await super().send_signals(message)
        for octets, task in came:
            self.taken.setdefault((task.task_id, octets), task)
        return reply


class RecordingProvider(Provider):
    """A provider that remembers.

    Attributes:
        methods: The names of all that can be called.
        taken: Signals in the order in which they came, those that came twice once.
    """

    servicers = tuple(_Recorder if servicer is TaskManagerServicer else servicer for servicer in Provider.servicers)

    def __init__(self, database: Database, **arguments: Any) -> None:
        super().__init__(database, **arguments)
        paths = {path for servicer in self._servicers for path in servicer.__mapping__()}
        self.methods = sorted({path.rpartition("/")[2] for path in paths})
        self.taken = next(servicer.taken for servicer in self._servicers if isinstance(servicer, _Recorder))
