"""Jobs of a server that is not ours: grpcio on asyncio, with signals as the existing SDK sends and polls them.

    python grpcio_jobs.py HOST:PORT DESCRIPTORS JOBS

One buffer sends batches of 50, or what there is after 0.1 s. One poller asks for all jobs with a deadline of 1 s, rests
for 0.2 s to 1 s after an empty answer, and passes over a signal that is not younger than the last one of its job. Each
job tells START, waits for a signal that ends it, acknowledges, and tells STOP. The first one asks for its own end, as
StopModule does there. Prints the ids, then what each job was told, and in the end counts of calls, as JSON lines.
"""

import asyncio
import json
import random
import sys
import uuid
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from tests.provider.grpcio_client import OPTIONS

SERVICE = "agentic_mesh_protocol.task_manager.v1.TaskManagerService"
BATCH, FLUSH = 50, 0.1
INITIAL, CAP, JITTER = 0.1, 1.0, 0.5
POLL_TIMEOUT, SEND_TIMEOUT = 1.0, 30.0
REASONS = {"cancel": "signal_service_cancel", "stop": "signal_service_stop"}


class Methods:
    def __init__(self, channel: grpc.aio.Channel, descriptors: bytes) -> None:
        pool = descriptor_pool.DescriptorPool()
        for file in descriptor_pb2.FileDescriptorSet.FromString(descriptors).file:
            pool.Add(file)
        found = pool.FindServiceByName(SERVICE).methods_by_name
        types = {
            name: [message_factory.GetMessageClass(t) for t in (m.input_type, m.output_type)]
            for name, m in found.items()
        }
        self.send_request, self.poll_request = types["SendSignals"][0], types["GetSignals"][0]
        self.send, self.poll = (
            channel.unary_unary(
                f"/{SERVICE}/{name}",
                request_serializer=types[name][0].SerializeToString,
                response_deserializer=types[name][1].FromString,
            )
            for name in ("SendSignals", "GetSignals")
        )


class Buffer:
    def __init__(self, methods: Methods) -> None:
        self.methods = methods
        self.waiting: list[tuple[dict[str, Any], asyncio.Future[None]]] = []
        self.flusher: asyncio.Task[None] | None = None
        self.sizes: list[int] = []

    async def tell(self, job_id: str, action: str, reason: str = "none") -> None:
        now = datetime.now(UTC)
        ids = {"mission_id": "missions:m", "setup_id": "setups:s", "setup_version_id": "setup_versions:v"}
        task = {"task_id": job_id, "action": action, "cancellation_reason": reason, "created_at": now, "payload": {}}
        settled = asyncio.get_running_loop().create_future()
        self.waiting.append((task | ids, settled))
        if len(self.waiting) >= BATCH:
            await self.flush()
        elif self.flusher is None:
            self.flusher = asyncio.create_task(self.flush_later())
        await settled

    async def flush_later(self) -> None:
        await asyncio.sleep(FLUSH)
        self.flusher = None
        await self.flush()

    async def flush(self) -> None:
        batch, self.waiting = self.waiting, []
        if batch:
            request = self.methods.send_request(tasks=[task for task, _ in batch])
            reply = await self.methods.send(request, timeout=SEND_TIMEOUT)
            assert reply.success
            self.sizes.append(len(batch))
            for _, settled in batch:
                settled.set_result(None)


class Poller:
    def __init__(self, methods: Methods) -> None:
        self.methods = methods
        self.queues: dict[str, asyncio.Queue[Any]] = {}
        self.seen: dict[str, tuple[int, int]] = {}
        self.counts: Counter[str] = Counter()

    async def run(self) -> None:
        interval = INITIAL
        while True:
            dispatched = await self.poll() if self.queues else False
            interval = INITIAL if dispatched else min(interval * 2, CAP)
            await asyncio.sleep(interval * (1 + JITTER * random.random()))

    async def poll(self) -> bool:
        try:
            reply = await self.methods.poll(self.methods.poll_request(task_ids=list(self.queues)), timeout=POLL_TIMEOUT)
        except grpc.aio.AioRpcError as error:
            self.counts[error.code().name] += 1
            return False
        self.counts["answered" if reply.tasks else "empty"] += 1
        dispatched = False
        for task in reply.tasks:
            created = (task.created_at.seconds, task.created_at.nanos)
            if task.task_id in self.queues and created > self.seen.get(task.task_id, (0, 0)):
                self.seen[task.task_id] = created
                self.queues[task.task_id].put_nowait(task)
                dispatched = True
        return dispatched


async def job(job_id: str, buffer: Buffer, poller: Poller, *, ends_itself: bool) -> None:
    queue = poller.queues[job_id] = asyncio.Queue(512)
    await buffer.tell(job_id, "start")
    if ends_itself:
        await buffer.tell(job_id, "cancel")
    told = []
    while not told or told[-1] not in REASONS:
        told.append((await queue.get()).action)
    action = told[-1]
    await buffer.tell(job_id, f"ack_{action}", REASONS[action])
    await buffer.tell(job_id, "stop", REASONS[action])
    del poller.queues[job_id]
    print(json.dumps({"job": job_id, "told": told}), flush=True)


async def main(address: str, descriptors: str, jobs: str) -> None:
    async with grpc.aio.insecure_channel(
        address, options=list(OPTIONS.items()), compression=grpc.Compression.Gzip
    ) as channel:
        methods = Methods(channel, Path(descriptors).read_bytes())
        buffer, poller = Buffer(methods), Poller(methods)
        polling = asyncio.create_task(poller.run())
        ids = [str(uuid.uuid4()) for _ in range(int(jobs))]
        print(json.dumps({"ids": ids}), flush=True)
        await asyncio.gather(*(job(one, buffer, poller, ends_itself=one == ids[0]) for one in ids))
        polling.cancel()
    print(json.dumps({"polls": poller.counts, "batches": buffer.sizes}), flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
