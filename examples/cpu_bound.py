"""Work that keeps a CPU busy, off the event loop: in a thread, and in a process of its own.

    dk-trio serve examples/cpu_bound.py --port 50055
    dk-trio call 127.0.0.1:50055 --protocol thread --input '{"below": 2000000}'
    dk-trio call 127.0.0.1:50055 --protocol process --input '{"below": 2000000}'

Stop either with Ctrl-C. A thread cannot be killed, so it asks from time to time whether its job was cancelled. A
process can; it also shares no interpreter lock with the server, so pure Python does not slow the event loop down.
"""

import os
import sys
from typing import Literal

import trio
from pydantic import Field

from dk_trio import DataModel, DataTrigger, ModuleContext, SetupModel, TriggerHandler, TrioModule

CPUS = trio.CapacityLimiter(os.cpu_count() or 1)  # more of this at once would only make each slower
ASK_EVERY = 1000  # numbers; a millisecond or two of work


class CountInThread(DataTrigger):
    """Count the primes below a number, in a thread."""

    protocol: Literal["thread"] = "thread"
    below: int = Field(ge=2, le=10**9)


class CountInProcess(DataTrigger):
    """Count the primes below a number, in a process."""

    protocol: Literal["process"] = "process"
    below: int = Field(ge=2, le=10**9)


class Primes(DataTrigger):
    """How many there are."""

    protocol: Literal["primes"] = "primes"
    count: int


class Counter(TrioModule[DataModel[CountInThread | CountInProcess], DataModel[Primes], SetupModel]):
    """Counts primes."""

    name = "counter"


@Counter.register
class OnThread(TriggerHandler[CountInThread, SetupModel, Primes]):
    """The thread is asked to end, and waited for: nothing outlives its job."""

    protocol = "thread"

    async def handle(self, input_data: CountInThread, setup_data: SetupModel, context: ModuleContext) -> None:
        """Count in a thread."""
        count = await trio.to_thread.run_sync(count_in_thread, input_data.below, limiter=CPUS)
        await context.send(Primes(count=count))


@Counter.register
class OnProcess(TriggerHandler[CountInProcess, SetupModel, Primes]):
    """A cancelled job ends its process: SIGTERM, and SIGKILL after five seconds."""

    protocol = "process"

    async def handle(self, input_data: CountInProcess, setup_data: SetupModel, context: ModuleContext) -> None:
        """Count in a process: this file, run as a program."""
        async with CPUS:
            done = await trio.run_process([sys.executable, __file__, str(input_data.below)], capture_stdout=True)
        await context.send(Primes(count=int(done.stdout)))


def count_in_thread(below: int) -> int:
    """Count, and leave with `trio.Cancelled` when the job was cancelled."""
    count = 0
    for first in range(2, below, ASK_EVERY):
        trio.from_thread.check_cancelled()
        count += count_primes(first, min(first + ASK_EVERY, below))
    return count


def count_primes(first: int, last: int) -> int:
    """The slow way: this is the work."""
    return sum(all(number % d for d in range(2, int(number**0.5) + 1)) for number in range(first, last))


if __name__ == "__main__":
    print(count_primes(2, int(sys.argv[1])))
