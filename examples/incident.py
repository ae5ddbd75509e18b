"""A burst of long jobs, and what becomes of it with an admission queue and without: hours of a server in seconds.

    python examples/incident.py

Replays the incident behind the admission queue: 3,704 StartModule calls at once, each of 229 s, on a server with 200
slots. With a queue of 3,600 every job completes, in 19 rounds of 200 jobs. Without one (legacy mode) a job waits 30 s
for a slot, and all but the first 200 are rejected.

Client, server and module are the real ones; only the network is memory and the clock is virtual.
"""

import argparse
import math
import time
from collections import Counter
from collections.abc import Callable
from typing import Literal

import trio
import trio.testing
from grpclib.exceptions import GRPCError

from dk_trio import DataModel, DataTrigger, ModuleClient, ModuleContext, ModuleServer, SetupModel, TrioModule, rpc
from dk_trio.settings import ServerSettings, Settings, TaskSettings

REPORT_EVERY = 500  # virtual seconds
MOST_JOBS = 10_000  # calls that one connection may have at once
DAY = 86_400  # seconds


class Work(DataTrigger):
    """Input and output: so many seconds of waiting, as a job has that asks a language model."""

    protocol: Literal["work"] = "work"
    seconds: float


class LongJob(TrioModule[DataModel[Work], DataModel[Work], SetupModel]):
    """Waits, then answers."""

    name = "long-job"

    async def run(self, input_data: DataModel[Work], setup_data: SetupModel, context: ModuleContext) -> None:
        await trio.sleep(input_data.root.seconds)
        await context.send(Work(seconds=input_data.root.seconds))


class Burst:
    """Every job at once, over one connection."""

    def __init__(self, *, jobs: int, seconds: float, slots: int, queue: int) -> None:
        self.jobs = jobs
        self.seconds = seconds
        self.server = ModuleServer(
            LongJob,
            settings=Settings(
                server=ServerSettings(max_concurrent_rpcs=jobs + 100),
                tasks=TaskSettings(max_concurrent_tasks=slots, max_queued_tasks=queue),
            ),
        )
        self.ends: Counter[str] = Counter()
        self.last_rejection = ""

    async def run(self) -> float:
        """Returns the virtual seconds from the first call to the last end."""
        started = trio.current_time()
        async with self.server.opened(), trio.open_nursery() as nursery:

            async def connect() -> trio.abc.Stream:
                ours, theirs = trio.testing.memory_stream_pair()
                nursery.start_soon(self.server.serve_stream, theirs)
                return ours

            async with rpc.open_channel("memory", connect=connect) as channel:
                nursery.start_soon(self.report)
                async with trio.open_nursery() as callers:
                    for _ in range(self.jobs):
                        callers.start_soon(self.call, ModuleClient(channel))
                took = trio.current_time() - started
            nursery.cancel_scope.cancel()
        return took

    async def call(self, client: ModuleClient) -> None:
        try:
            async with client.start({"seconds": self.seconds}, protocol="work") as outputs:
                received = [output["root"]["protocol"] async for output in outputs]
        except GRPCError as error:
            self.ends[error.status.name] += 1
            self.last_rejection = error.message or ""
        else:
            assert received == ["module_start_info", "work", "end_of_stream"], received
            self.ends["completed"] += 1

    async def report(self) -> None:
        while True:
            admission = self.server.statistics().admission
            print(
                f"  {trio.current_time():6.0f} s  {admission.running:4} running  {admission.queued:5} queued"
                f"  {self.ends['completed']:5} completed  {self.ends['RESOURCE_EXHAUSTED']:5} rejected"
            )
            await trio.sleep(REPORT_EVERY)


def replay(*, jobs: int, seconds: float, slots: int, queue: int) -> tuple[Burst, float]:
    """Run one burst in virtual time and print what happens; the burst and its makespan in virtual seconds."""
    print(f"{jobs} jobs of {seconds:g} s, {slots} slots, " + (f"a queue of {queue}" if queue else "no queue"))
    started = time.perf_counter()
    made: list[Burst] = []

    async def main() -> float:
        made.append(Burst(jobs=jobs, seconds=seconds, slots=slots, queue=queue))
        return await made[0].run()

    took = trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    burst = made[0]
    ends = ", ".join(f"{count} {end}" for end, count in burst.ends.most_common())
    print(f"  {ends}; {took:,.0f} virtual seconds in {time.perf_counter() - started:.1f} s")
    if burst.last_rejection:
        print(f"  the last rejection: {burst.last_rejection}")
    return burst, took


def main() -> None:
    """With a queue, then without."""
    parser = argparse.ArgumentParser(
        description="A burst of long jobs, with an admission queue and without.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--jobs", type=between(1, MOST_JOBS), default=3704, help="calls at once")
    parser.add_argument("--seconds", type=between(0, DAY, float), default=229.0, help="of each job")
    parser.add_argument("--slots", type=between(1, MOST_JOBS), default=200, help="jobs that run at once")
    parser.add_argument("--queue", type=between(0, MOST_JOBS), default=3600, help="jobs that may wait")
    given = parser.parse_args()
    for queue in dict.fromkeys([given.queue, 0]):
        replay(jobs=given.jobs, seconds=given.seconds, slots=given.slots, queue=queue)


def between(least: int, most: int, kind: type[int] | type[float] = int) -> Callable[[str], float]:
    """The type of an argument that is a number of this kind."""

    def parse(text: str) -> float:
        try:
            number = kind(text)
        except ValueError:
            number = math.nan
        if not least <= number <= most:
            whole = "whole " if kind is int else ""
            raise argparse.ArgumentTypeError(f"{text!r} is not a {whole}number from {least} to {most}")
        return number

    return parse


if __name__ == "__main__":
    main()
