"""The store alone: what a provider writes, in one process, without gRPC, by so many tasks at the same time.

The same stores on the same `SqliteDatabase`, so the same group commit, WAL and synchronous=FULL. Prints what
`bench.tasks.durable` prints, and the CPU time of this process.
"""

import argparse
import json
import time
from collections.abc import Awaitable, Callable
from hashlib import blake2b
from itertools import count
from pathlib import Path

import trio

from bench.tasks.durable import DATA_TEXT, NUMBER, WARM_UP_S, report, template
from dk_trio.services.stores.database import Database
from dk_trio.services.stores.records import RecordStore
from dk_trio.services.stores.signals import NewSignal, SignalStore
from dk_trio.services.stores.sqlite import SqliteDatabase

Write = Callable[[str], Awaitable[object]]


def store(database: Database) -> Write:
    records, data = RecordStore(database), json.dumps({"text": DATA_TEXT, "final": True})

    async def write(number: str) -> object:
        return await records.insert("missions:bench", "bench", number, "OUTPUT", data)

    return write


def signals(database: Database) -> Write:
    kept, message = SignalStore(database), template("signals")

    async def write(number: str) -> object:
        told = message.replace(NUMBER, number.encode())
        signal = NewSignal(number, "start", "none", blake2b(told, digest_size=16).digest(), told)
        return await database.write(lambda: kept.add_work([signal], now=time.time_ns() // 1000))

    return write


WRITES = {"store": store, "store-keyed": store, "signals": signals}


async def load(
    write: Write, numbers: Callable[[], str], *, in_flight: int, seconds: float
) -> tuple[list[float], float]:
    took: list[float] = []
    start = time.perf_counter()

    async def one() -> None:
        while (began := time.perf_counter()) - start < seconds:
            await write(numbers())
            took.append(time.perf_counter() - began)

    async with trio.open_nursery() as nursery:
        for _ in range(in_flight):
            nursery.start_soon(one)
    return took, time.perf_counter() - start


async def run(args: argparse.Namespace) -> None:
    database = SqliteDatabase(args.directory)
    write = WRITES[args.kind](database)
    counter = count(time.time_ns() // 1000)

    def numbers() -> str:
        return f"{next(counter):016}"

    async with database.opened():
        await load(write, numbers, in_flight=args.in_flight, seconds=WARM_UP_S)
        before = time.process_time()
        took, seconds = await load(write, numbers, in_flight=args.in_flight, seconds=args.seconds)
        report(took, seconds, time.process_time() - before)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--kind", choices=WRITES, required=True)
    parser.add_argument("--in-flight", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    trio.run(run, parser.parse_args())


if __name__ == "__main__":
    main()
