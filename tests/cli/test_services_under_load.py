"""Many jobs that keep things: what was acknowledged is there, whatever becomes of their callers and of the server."""

import random
import signal
import sqlite3
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from pathlib import Path
from uuid import uuid4

import trio
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from dk_trio import ModuleClient
from dk_trio.services.filesystem import FileFilter
from dk_trio.services.local.cost import DefaultCost
from dk_trio.services.local.filesystem import DefaultFilesystem
from dk_trio.services.local.platform import LocalPlatform
from dk_trio.services.local.storage import DefaultStorage

from .crowd import ROOMY, connected
from .keeper_module import QUANTITIES, RATE, Keeper, content_of
from .processes import PATIENCE, Running, serving

KEEPER = str(Path(__file__).with_name("keeper_module.py"))

MISSIONS = 20
AT_ONCE = 50
PLACES = range(3)
EVERYTHING = [
    *(f"note {place}" for place in PLACES),
    *(f"cost {price}" for price in QUANTITIES),
    "file",
    *(f"message {place}" for place in PLACES),
]


def mission_of(number: int) -> str:
    return f"missions:{number % MISSIONS}"


@dataclass
class Crowd:
    """Callers, and what they were told: by the number of the job all that it has acknowledged."""

    kept: dict[int, list[str]] = field(default_factory=dict)
    completed: set[int] = field(default_factory=set)
    seeded: random.Random = field(default_factory=lambda: random.Random(1))

    async def call(self, client: ModuleClient, number: int, *, leave_after: int | None = None) -> None:
        """Run one job; leave it after so many acknowledgements."""
        kept = self.kept[number] = []
        try:
            root = {"protocol": "keep", "number": number}
            async with client.start({"root": root}, mission_id=mission_of(number)) as outputs:
                async for output in outputs:
                    if output["root"]["protocol"] == "kept":
                        kept.append(output["root"]["what"])
                    if leave_after is not None and len(kept) >= leave_after:
                        return
        except GRPCError as error:  # the server was killed
            assert error.status is Status.UNAVAILABLE, error
        else:
            self.completed.add(number)

    async def calls(self, client: ModuleClient, numbers: range, *, leaving: float) -> None:
        """All these jobs, `AT_ONCE` at a time; a share `leaving` of them is left somewhere on the way."""
        limiter = trio.CapacityLimiter(AT_ONCE)

        async def one(number: int) -> None:
            leave = self.seeded.random() < leaving
            async with limiter:
                await self.call(client, number, leave_after=self.seeded.randrange(len(EVERYTHING)) if leave else None)

        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                for number in numbers:
                    nursery.start_soon(one, number)

    async def check(self, data_dir: Path, *, killed: bool = False) -> None:
        """Everything that was acknowledged is there, and nothing is there in part or twice.

        A history is written when its job ends. So of jobs that were killed it need not be there.
        """
        (directory,) = data_dir.iterdir()
        with trio.fail_after(PATIENCE):
            async with LocalPlatform(directory).opened() as platform:
                for mission in {mission_of(number) for number in self.kept}:
                    there = await stored(platform, mission)
                    for number, kept in self.kept.items():
                        if mission_of(number) == mission:
                            assert kept == EVERYTHING[: len(kept)]
                            lost = [what for what in kept if there[number, what] != 1]
                            if killed and number not in self.completed:
                                lost = [what for what in lost if not what.startswith("message")]
                            assert not lost, (number, kept)
                            assert number not in self.completed or kept == EVERYTHING
        assert_tidy(directory)


async def stored(platform: LocalPlatform, mission: str) -> Counter[tuple[int, str]]:
    """What a mission has, by the number of the job and the words in which it was acknowledged."""
    ids = (mission, "setups:default", "setup_versions:default")
    params = Keeper.services_config_params
    storage = DefaultStorage(*ids, config=params["storage"]["config"], platform=platform)
    cost = DefaultCost(*ids, config=params["cost"]["config"], platform=platform)
    files = DefaultFilesystem(*ids, platform=platform)
    there: Counter[tuple[int, str]] = Counter()
    for record in await storage.list("notes"):
        number, _, place = record.record_id.partition("-")
        there[int(number), f"note {place}"] += 1
    history = await storage.read("chat_history", f"full_chat_history_{mission}")
    for message in history.data.messages if history is not None else ():
        number, _, place = message.content.partition("-")
        there[int(number), f"message {place}"] += 1
    records, total = await files.get_files(FileFilter(), list_size=1000)
    assert len(records) == total
    for record in records:
        number = int(Path(record.name).stem)
        there[number, "file"] += 1
        assert (await files.get_file(record.id, include_content=True)).content == content_of(number)
    used = Counter[str]()
    for entry in await cost.get_filtered():
        there[int(entry.name), f"cost {entry.unit}"] += 1
        used[entry.unit] += 1
    sums = await platform.costs.sums(mission)
    assert {name: (row.quantity, row.amount) for (name, _), row in sums.items()} == {
        name: (count * Decimal(QUANTITIES[name]), count * Decimal(QUANTITIES[name]) * Decimal(RATE))
        for name, count in used.items()
    }
    return there


def assert_tidy(directory: Path) -> None:
    """The database is whole, and was closed; every file on the disk is one that it names."""
    assert {path.name for path in directory.iterdir()} == {"dk-trio.sqlite3", "dk-trio.lock", "files", "files.owner"}
    with closing(sqlite3.connect(directory / "dk-trio.sqlite3")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        known = {name for (name,) in connection.execute("SELECT name FROM file_contents")}
    assert {path.name for path in (directory / "files").iterdir()} == known


@dataclass(frozen=True)
class Resources:
    """What a process has of the system."""

    bytes: int
    threads: int
    files: int

    @classmethod
    def of(cls, server: Running) -> "Resources":
        process = Path(f"/proc/{server.process.pid}")
        rows = dict(line.split(":", 1) for line in (process / "status").read_text(encoding="ascii").splitlines())
        return cls(int(rows["VmRSS"].split()[0]) * 1024, int(rows["Threads"]), len(list((process / "fd").iterdir())))


async def stop(server: Running) -> None:
    """It ends within its grace, and has nothing to complain of."""
    server.process.send_signal(signal.SIGTERM)
    assert await server.wait() == 0
    assert "Traceback" not in "".join(server.lines["stderr"])


async def test_what_was_acknowledged_is_there_whatever_becomes_of_the_callers(tmp_path: Path) -> None:
    crowd = Crowd()
    env = {**ROOMY, "DIGITALKIN_DATA_DIR": str(tmp_path)}
    async with serving(KEEPER, **env) as server, connected(server.address) as client:
        await crowd.calls(client, range(150), leaving=1 / 3)
        before = Resources.of(server)
        await crowd.calls(client, range(150, 300), leaving=1 / 3)
        after = Resources.of(server)
        async with trio.open_nursery() as nursery:  # a drain lets them end
            nursery.start_soon(partial(crowd.calls, client, range(300, 320), leaving=0))
            while not all(crowd.kept.get(number) for number in range(300, 320)):  # noqa: ASYNC110 - of many tasks
                await trio.sleep(0.01)
            await stop(server)
    assert 100 < len(crowd.completed) < 320
    assert crowd.completed >= set(range(300, 320))
    # Trio keeps threads that are idle for ten seconds, and who has left last may still be on the way out.
    assert after.threads <= before.threads + 2
    assert after.files <= before.files + 2
    assert after.bytes - before.bytes < 32 * 1024 * 1024
    await crowd.check(tmp_path)


async def test_what_was_acknowledged_survives_a_kill(tmp_path: Path) -> None:
    crowd = Crowd()
    env = {**ROOMY, "DIGITALKIN_DATA_DIR": str(tmp_path)}
    async with serving(KEEPER, **env) as server, connected(server.address) as client, trio.open_nursery() as nursery:
        nursery.start_soon(partial(crowd.calls, client, range(200), leaving=0))
        while len(crowd.completed) < 20:  # noqa: ASYNC110 - a condition of many tasks
            await trio.sleep(0.01)
        server.process.kill()
    assert len(crowd.completed) < 200
    # A kill may hit no upload between its content and its name.
    (directory,) = tmp_path.iterdir()
    (directory / "files" / uuid4().hex).write_bytes(b"of an upload that was not finished")
    async with serving(KEEPER, **env) as server:
        async with connected(server.address) as client:
            await crowd.call(client, 200)
        await stop(server)
    assert 200 in crowd.completed
    await crowd.check(tmp_path, killed=True)
