"""kill -9 for a provider, again and again, while many clients write; then everything it has acknowledged must be there.

    python -m bench.durability --kills 30
    python -m bench.durability --kills 30 --postgres [--kill-database]
    python -m bench.durability --kills 30 --db postgresql://user@host/empty_database

Each writer sends one request after the other, records, updates, costs, signals and files, and sends a call that failed
again with the same idempotency key until it is acknowledged. The provider is killed at random moments, also while it
starts, and started again on the same data. At last the provider must hold what the ledger of the writers says: nothing
is lost, nothing is there twice, signals of a task are in order, files have their bytes, and SQLite's integrity check
is clean. Exit code 1 when it is not so. See bench/README.md.
"""

from __future__ import annotations

import argparse
import random
import socket
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import trio
from tests.cli.processes import providing, started
from tests.cli.provider_load import Load, loaded

KINDS = ("records", "updates", "costs", "signals", "files")
AT_START = 0.2  # share of the kills that hit a provider before it is ready
START = 0.6  # seconds that a start may take; a kill at a start comes within them
FILE = "dk-trio.sqlite3"


class Killable(Protocol):
    """A database server."""

    def kill(self) -> None: ...

    def start(self) -> None: ...


@dataclass
class Kill:
    """One kill: `after` seconds of load (or of the start), with what was acknowledged until then."""

    after: float
    ready: bool
    acknowledged: Counter[str]
    restart: float = 0.0  # seconds from the next start to its READY line


@dataclass
class Outcome:
    """What a trial found. `differences` is empty when nothing is lost and nothing is there twice."""

    kills: list[Kill] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    differences: list[str] = field(default_factory=list)
    integrity: str = "not looked at"
    seconds: float = 0.0


async def trial(
    options: list[str],
    *,
    kills: int,
    clients: int,
    writers: int,
    seed: int,
    longest: float = 1.5,
    database: Killable | None = None,
    told: Callable[[Kill], object] = lambda _: None,
) -> Outcome:
    """Kill a provider so many times under load, and compare at the end.

    Args:
        options: Of `dk-trio provider`: where it keeps its data.
        kills: How many.
        clients: Channels, each with so many
        writers: that write one after the other.
        seed: Of what is written and of when it is killed, not of how the machine runs it.
        longest: Seconds of load before a kill; the shortest is none.
        database: Killed under load, just before the provider is, and started again after it.
        told: Called with each kill when the next start is ready.
    """
    rng = random.Random(seed)
    outcome = Outcome()
    began = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    async with loaded(f"127.0.0.1:{port}", clients=clients, writers=writers, seed=seed) as load:
        while len(outcome.kills) < kills:
            outcome.kills.append(await _killed(options, port, load, rng, longest, database))
            if database is not None:
                await trio.to_thread.run_sync(database.start)
            told(outcome.kills[-1])
        async with providing(*options, port=port) as provider:
            await load.at_least(**dict.fromkeys(KINDS, 1))  # a slow machine may have got nowhere between two kills
            await load.stop()
            outcome.differences = await load.check()
            provider.process.terminate()
            if code := await provider.wait():
                outcome.differences.append(f"the provider ended with exit code {code}: {provider.lines['stderr'][-3:]}")
    outcome.counts = load.counts()
    outcome.seconds = time.monotonic() - began
    return outcome


async def _killed(
    options: list[str], port: int, load: Load, rng: random.Random, longest: float, database: Killable | None
) -> Kill:
    began = time.monotonic()
    if rng.random() < AT_START:
        after = rng.uniform(0, START)
        async with started("provider", *options, "--port", str(port)) as provider:
            await trio.sleep(after)
            await _kill(database, rng)
            provider.process.kill()
            await provider.wait()
        return Kill(after, bool(provider.lines["stdout"]), load.counts())
    async with providing(*options, port=port) as provider:
        restart = time.monotonic() - began
        after = rng.uniform(0, longest)
        await trio.sleep(after)
        await _kill(database, rng)
        provider.process.kill()
        await provider.wait()
    return Kill(after, True, load.counts(), restart)


async def _kill(database: Killable | None, rng: random.Random) -> None:
    """The database, and some time for the provider to find that out."""
    if database is not None:
        await trio.to_thread.run_sync(database.kill)
        await trio.sleep(rng.uniform(0, 0.2))


def integrity(directory: Path) -> str:
    """What SQLite says of the file after the last stop."""
    with closing(sqlite3.connect(directory / FILE)) as database:
        return "; ".join(row[0] for row in database.execute("PRAGMA integrity_check"))


def heading() -> str:
    return f"{'kill':>4}  {'start s':>7}  {'load s':>6}" + "".join(f"  {kind:>8}" for kind in (*KINDS, "repeated"))


def row(number: int, kill: Kill) -> str:
    start = f"{kill.restart:7.2f}" if kill.restart else f"{'killed':>7}"
    return f"{number:>4}  {start}  {kill.after:6.2f}" + "".join(
        f"  {kill.acknowledged[kind]:>8,}" for kind in (*KINDS, "repeated")
    )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.durability", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--clients", type=int, default=4, help="connections (default: 4)")
    parser.add_argument("--writers", type=int, default=8, help="of each client (default: 8)")
    parser.add_argument("--seed", type=int, default=1, help="of moments and of what is written (default: 1)")
    parser.add_argument("--longest", type=float, default=1.5, help="seconds of load before a kill (default: 1.5)")
    parser.add_argument("--db", help="an empty PostgreSQL database; SQLite in a temporary directory without it")
    parser.add_argument("--postgres", action="store_true", help="start a PostgreSQL server for this trial")
    parser.add_argument("--kill-database", action="store_true", help="kill that server each time, too")
    return parser.parse_args()


def main() -> int:
    args = parse()
    with tempfile.TemporaryDirectory(prefix="dk-durability-") as temporary:
        directory = Path(temporary)
        options = ["--data-dir", temporary, "--log-level", "warning"]
        if not args.postgres:
            return report(args, options + (["--db", args.db] if args.db else []), directory)
        from tests.postgres import PostgresServer, programs

        place = programs()
        if place is None:
            sys.exit("There is no `postgres` in PATH or /usr/lib/postgresql/*/bin.")
        server = PostgresServer(place)

        try:
            options += ["--db", server.new_schema()]
            return report(args, options, directory, server if args.kill_database else None)
        finally:
            server.remove()


def report(args: argparse.Namespace, options: list[str], directory: Path, database: Killable | None = None) -> int:
    engine = "PostgreSQL" if "--db" in options else "SQLite"
    killed = "the provider and the database" if database else "the provider"
    print(
        f"{engine}, {args.clients} clients x {args.writers} writers, kill -9 of {killed}, seed {args.seed}\n{heading()}"
    )
    numbers = iter(range(1, args.kills + 1))
    outcome = trio.run(
        lambda: trial(
            options,
            kills=args.kills,
            clients=args.clients,
            writers=args.writers,
            seed=args.seed,
            longest=args.longest,
            database=database,
            told=lambda kill: print(row(next(numbers), kill), flush=True),
        )
    )
    if engine == "SQLite":
        outcome.integrity = integrity(directory)
    counts = outcome.counts
    print(
        f"\nacknowledged: {', '.join(f'{counts[kind]:,} {kind}' for kind in KINDS)}; {counts['repeated']:,} calls were"
        f" sent again\ndifferences: {'; '.join(outcome.differences) or 'none'}\n"
        f"integrity check: {outcome.integrity}\n{outcome.seconds:.0f} s"
    )
    return 1 if outcome.differences or outcome.integrity not in {"ok", "not looked at"} else 0


if __name__ == "__main__":
    sys.exit(main())
