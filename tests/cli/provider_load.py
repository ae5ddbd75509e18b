"""Many writers of one provider, and a ledger of what it has acknowledged to each; see also bench/durability.py.

A writer does one thing after the other and never gives one up: a call that fails because the provider is away is sent
again, the same request with the same idempotency key, until it is acknowledged. So when the writers have stopped, the
ledger is what the provider must hold: nothing less, since it said so, and nothing more, since it was asked once.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import trio
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from dk_trio import extensions, rpc
from dk_trio.pb.agentic_mesh_protocol.cost.v1 import AddCostRequest, CostServiceStub, CostType, GetCostsRequest
from dk_trio.pb.agentic_mesh_protocol.filesystem.v1 import (
    FileFilter,
    FileStatus,
    FilesystemServiceStub,
    FileType,
    GetFileRequest,
    GetFilesRequest,
    UploadFileData,
    UploadFilesRequest,
)
from dk_trio.pb.agentic_mesh_protocol.storage.v1 import (
    DataType,
    ListRecordsRequest,
    StorageServiceStub,
    StoreRecordRequest,
    UpdateRecordRequest,
)
from dk_trio.pb.agentic_mesh_protocol.task_manager.v1 import (
    GetSignalsRequest,
    SendSignalsRequest,
    Task,
    TaskManagerServiceStub,
)
from dk_trio.pb.google.protobuf import Struct

PATIENCE = 60.0  # seconds for what needs less than one on a machine that has nothing else to do

# What a call ends with whose provider was killed, or is not there yet.
AWAY = frozenset({Status.UNAVAILABLE, Status.DEADLINE_EXCEEDED})

PAUSE = 0.02  # seconds before a failed call is sent again
CALL_TIMEOUT = 10.0  # seconds: more than a provider needs for its start
SIGNALS_EACH = 20  # of one task: fewer than a provider keeps
PAGE = 500
OPTIONS = rpc.ChannelOptions(
    reconnect=rpc.BackoffPolicy(initial=0.05, minimum=0.05, maximum=0.1),
    connect_timeout=2.0,
    wait_for_ready=True,  # or a provider that starts would compete with its callers for the processor
    retry=None,
)


@dataclass
class Ledger:
    """What was acknowledged to one writer, and how often it had to ask again."""

    records: dict[str, int] = field(default_factory=dict)  # id -> number in its data
    costs: list[int] = field(default_factory=list)  # quantities, each its own
    signals: dict[str, list[int]] = field(default_factory=dict)  # task -> numbers in order
    files: dict[str, str] = field(default_factory=dict)  # name -> sha256
    updates: int = 0
    repeated: int = 0

    def counts(self) -> Counter[str]:
        return Counter(
            records=len(self.records),
            updates=self.updates,
            costs=len(self.costs),
            signals=sum(map(len, self.signals.values())),
            files=len(self.files),
            repeated=self.repeated,
        )


class Writer:
    """One of many. `name` makes its ids its own.

    Args:
        name: Letters and digits.
        channel: To the provider.
        seed: What it does, in what order.
    """

    def __init__(self, name: str, channel: rpc.Channel, seed: int) -> None:
        self.mission = f"missions:{name}"
        self.name = name
        self.ledger = Ledger()
        self._random = random.Random(f"{name} {seed}")
        self._number = 0
        self._storage = StorageServiceStub(channel, timeout=CALL_TIMEOUT)
        self._costs = CostServiceStub(channel, timeout=CALL_TIMEOUT)
        self._tasks = TaskManagerServiceStub(channel, timeout=CALL_TIMEOUT)
        self._files = FilesystemServiceStub(channel, timeout=CALL_TIMEOUT)

    async def run(self, stop: trio.Event) -> None:
        """Write until `stop` is set; what was begun then is brought to its end."""
        kinds = (self.store, self.update, self.add_cost, self.signal, self.upload)
        while not stop.is_set():
            self._number += 1
            (kind,) = self._random.choices(kinds, weights=(8, 4, 4, 4, 1))
            await kind(self._number)

    async def _sent(self, method: Callable[..., Awaitable[Any]], request: Any) -> Any:
        """The reply; the request comes with one key, however often it is sent."""
        key = str(UUID(int=self._random.getrandbits(128), version=4))
        while True:
            try:
                return await method(request, metadata={extensions.IDEMPOTENCY_KEY: key})
            except GRPCError as error:
                if error.status not in AWAY:
                    raise
            self.ledger.repeated += 1
            await trio.sleep(PAUSE)

    def _data(self, number: int) -> Struct:
        return Struct.from_dict({"number": number, "text": "x" * self._random.randrange(500)})

    async def store(self, number: int) -> None:
        names = {"context": self.mission, "collection": "load", "record_id": f"r{number}"}
        await self._sent(
            self._storage.store_record,
            StoreRecordRequest(**names, data=self._data(number), data_type=DataType.OUTPUT),
        )
        self.ledger.records[f"r{number}"] = number

    async def update(self, number: int) -> None:
        if not self.ledger.records:
            return
        record_id = self._random.choice(list(self.ledger.records))
        names = {"context": self.mission, "collection": "load", "record_id": record_id}
        await self._sent(self._storage.update_record, UpdateRecordRequest(**names, data=self._data(number)))
        self.ledger.records[record_id] = number
        self.ledger.updates += 1

    async def add_cost(self, number: int) -> None:
        cost = AddCostRequest(
            cost=float(number),
            mission_id=self.mission,
            name="load",
            cost_type=CostType.OTHER,
            unit="unit",
            rate=1.0,
            setup_version_id="setup_versions:load",
            quantity=float(number),
        )
        await self._sent(self._costs.add_cost, cost)
        self.ledger.costs.append(number)

    async def signal(self, number: int) -> None:
        task = f"{self.name}-{len(self.ledger.signals)}"
        if len(self.ledger.signals.get(self._last_task(), ())) < SIGNALS_EACH:
            task = self._last_task()
        message = Task(
            task_id=task,
            mission_id=self.mission,
            setup_id="setups:load",
            setup_version_id="setup_versions:load",
            action="cancel",
            cancellation_reason="none",
            created_at=datetime.now(UTC),
            payload=Struct.from_dict({"number": number}),
        )
        await self._sent(self._tasks.send_signals, SendSignalsRequest(tasks=[message]))
        self.ledger.signals.setdefault(task, []).append(number)

    def _last_task(self) -> str:
        return f"{self.name}-{max(len(self.ledger.signals) - 1, 0)}"

    async def upload(self, number: int) -> None:
        content = self._random.randbytes(self._random.randrange(1, 100_000))
        name = f"{number}.bin"
        file = UploadFileData(
            context=self.mission,
            name=name,
            file_type=FileType.OTHER,
            content_type="application/octet-stream",
            content=content,
            status=FileStatus.ACTIVE,
        )
        reply = await self._sent(self._files.upload_files, UploadFilesRequest(files=[file]))
        if reply.total_uploaded != 1:
            raise AssertionError(f"{self.name}: {name} was not stored: {reply.results[0].error}")
        self.ledger.files[name] = hashlib.sha256(content).hexdigest()

    # --- what the provider holds -----------------------------------------------------------------------------------

    async def check(self) -> list[str]:
        """Where the provider and the ledger differ; empty when they do not."""
        found = {
            "records": await self._stored_records(),
            "costs": await self._stored_costs(),
            "signals": await self._stored_signals(),
            "files": await self._stored_files(),
        }
        expected = {
            "records": sorted(self.ledger.records.items()),
            "costs": sorted(self.ledger.costs),
            "signals": [(task, number) for task, numbers in sorted(self.ledger.signals.items()) for number in numbers],
            "files": sorted(self.ledger.files.items()),
        }
        return [row for kind in found for row in _differences(f"{self.name} {kind}", found[kind], expected[kind])]

    async def _stored_records(self) -> list[Any]:
        reply = await self._storage.list_records(ListRecordsRequest(context=self.mission, collection="load"))
        return sorted((row.record_id, int(row.data.to_dict()["number"])) for row in reply.records)

    async def _stored_costs(self) -> list[Any]:
        found: list[int] = []
        while True:
            request = GetCostsRequest(mission_id=self.mission, limit=PAGE, offset=len(found))
            reply = await self._costs.get_costs(request)
            found += [int(row.quantity) for row in reply.costs]
            if not reply.costs or len(found) >= reply.total_count:
                return sorted(found)

    async def _stored_signals(self) -> list[Any]:
        found = []
        for task in sorted(self.ledger.signals):  # each by itself: their order is promised within a task
            reply = await self._tasks.get_signals(GetSignalsRequest(task_ids=[task]))
            found += [(row.task_id, int(row.payload.to_dict()["number"])) for row in reply.tasks]
        return found

    async def _stored_files(self) -> list[Any]:
        files: list[Any] = []
        while True:
            request = GetFilesRequest(
                context=self.mission,
                filters=FileFilter(context=self.mission),
                list_size=PAGE,
                offset=len(files),
            )
            reply = await self._files.get_files(request)
            files += reply.files
            if not reply.files or len(files) >= reply.total_count:
                break
        found = []
        for file in files:
            request = GetFileRequest(context=self.mission, file_id=file.file_id, include_content=True)
            got = await self._files.get_file(request)
            found.append((file.name, hashlib.sha256(got.content or got.file.content).hexdigest()))
        return sorted(found)


def _differences(what: str, found: list[Any], expected: list[Any]) -> list[str]:
    have, want = Counter(found), Counter(expected)
    rows = [f"{what}: lost {sorted(lost.elements())[:3]}, {lost.total()} in all" for lost in [want - have] if lost]
    rows += [f"{what}: {sorted(more.elements())[:3]} twice or never asked for" for more in [have - want] if more]
    if not rows and found != expected:
        rows.append(f"{what}: in another order")
    return rows


class Load:
    """The writers of one run, from `loaded`."""

    def __init__(self, writers: list[Writer]) -> None:
        self.writers = writers
        self._stop = trio.Event()
        self._running = len(writers)
        self._stopped = trio.Event()

    async def _run(self, writer: Writer) -> None:
        await writer.run(self._stop)
        self._running -= 1
        if not self._running:
            self._stopped.set()

    async def stop(self) -> None:
        """Bring to its end what was begun. The provider has to be there."""
        self._stop.set()
        with trio.fail_after(PATIENCE):
            await self._stopped.wait()

    def counts(self) -> Counter[str]:
        """What was acknowledged to all of them so far, and how many calls were `repeated`."""
        return sum((writer.ledger.counts() for writer in self.writers), Counter())

    async def at_least(self, **counts: int) -> None:
        """Until so much was acknowledged to all of them together."""
        with trio.fail_after(PATIENCE):
            while any(self.counts()[kind] < count for kind, count in counts.items()):  # noqa: ASYNC110  a ledger is mute
                await trio.sleep(0.01)

    async def check(self) -> list[str]:
        """See `Writer.check`; of all writers, one after the other."""
        return [row for writer in self.writers for row in await writer.check()]


@asynccontextmanager
async def loaded(address: str, *, clients: int, writers: int, seed: int) -> AsyncIterator[Load]:
    """Load for the length of the block, by so many clients with so many writers each; its end cancels them."""
    async with AsyncExitStack() as stack:
        channels = [await stack.enter_async_context(rpc.open_channel(address, options=OPTIONS)) for _ in range(clients)]
        load = Load([Writer(f"c{c}w{w}", channel, seed) for c, channel in enumerate(channels) for w in range(writers)])
        async with trio.open_nursery() as nursery:
            for writer in load.writers:
                nursery.start_soon(load._run, writer)
            yield load
            nursery.cancel_scope.cancel()
