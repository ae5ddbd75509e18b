"""Ids, jitter and the time of day have one source, which a seed can stand for."""

import ast
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import pytest
import trio

from dk_trio import buggify, chance
from dk_trio.module._models import utc_now

PACKAGE = Path(chance.__file__).parent

# What a simulation runs; the rest is for processes, terminals and files alone, or works without chance.
SIMULATED = sorted(
    path
    for path in PACKAGE.rglob("*.py")
    if path.relative_to(PACKAGE).parts[0]
    not in {"cli", "observe", "workers", "security", "pb", "chance.py", "stalls.py"}
)
CHANCE = {"uuid4", "uuid1", "Random", "time", "time_ns", "now", "utcnow", "today", "urandom", "token_hex", "randbits"}
SOURCES = {"datetime", "os", "random", "secrets", "time", "uuid"}
EXPLAINED = {
    ("services/stores/_postgres.py", "randbits"),  # a server over a network, in whose place a simulation has SQLite
}


def drawn() -> dict[str, object]:
    return {
        "uuid": chance.new_uuid(),
        "random": chance.new_random().random(),
        "wall_time": chance.wall_time(),
        "wall_us": chance.wall_us(),
        "utc_now": chance.utc_now(),
    }


def decided(seed: int, now: float) -> dict[str, object]:
    with chance.decided_by(Random(seed), lambda: now):
        return drawn()


def test_a_seed_decides_everything() -> None:
    assert decided(1, 1e9) == decided(1, 1e9)
    first, second = decided(1, 1e9), decided(2, 2e9)
    assert all(first[name] != second[name] for name in first)
    assert decided(1, 1e9)["utc_now"] == datetime.fromtimestamp(1e9, UTC)
    assert decided(1, 1e9)["wall_us"] == 10**15


def test_without_a_source_the_system_decides() -> None:
    with chance.decided_by(Random(1), lambda: 0.0):
        pass
    first, second = drawn(), drawn()
    assert first["uuid"] != second["uuid"]
    assert first["random"] != second["random"]
    assert abs(chance.wall_time() - datetime.now(UTC).timestamp()) < 60
    assert abs(chance.wall_us() / 1e6 - chance.wall_time()) < 60
    assert abs(chance.utc_now().timestamp() - chance.wall_time()) < 60


def test_ids_are_uuids_of_version_4() -> None:
    with chance.decided_by(Random(1), lambda: 0.0):
        assert (chance.new_uuid().version, chance.new_uuid().variant) == (4, "specified in RFC 4122")
    assert chance.new_uuid().version == 4


async def test_tasks_inherit_the_source(autojump_clock: trio.testing.MockClock) -> None:
    found: list[float] = []

    async def look() -> None:
        await trio.lowlevel.checkpoint()
        found.append(chance.wall_time())

    async with trio.open_nursery() as nursery:
        with chance.decided_by(Random(1), lambda: 5.0):
            nursery.start_soon(look)
    assert found == [5.0]
    assert chance.wall_time() != 5.0


@pytest.mark.parametrize("path", SIMULATED, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_asks_elsewhere(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Call):
            match node.func:
                case ast.Name(id=name) if name in CHANCE and not node.args:
                    asked = name
                case ast.Attribute(value=ast.Name(id=owner), attr=name) if owner in SOURCES and name in CHANCE:
                    asked = name
                case _:
                    continue
            assert (str(path.relative_to(PACKAGE)), asked) in EXPLAINED, f"{asked}() in line {node.lineno}"


class Counting:
    def __init__(self) -> None:
        self.struck: list[str] = []

    async def at(self, point: str) -> None:
        self.struck.append(point)

    def fails(self, point: str) -> bool:
        self.struck.append(point)
        return True


async def test_points_are_the_strikers() -> None:
    striker = Counting()
    await buggify.at("signals.poll")
    assert not buggify.fails("database.commit")
    with buggify.struck_by(striker):
        await buggify.at("signals.poll")
        assert buggify.fails("database.commit")
    await buggify.at("signals.poll")
    assert striker.struck == ["signals.poll", "database.commit"]


def test_the_table_has_all_points() -> None:
    named = {
        node.args[0].value
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_bytes()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and getattr(node.func.value, "id", "") == "buggify"
        and isinstance(node.args[0], ast.Constant)
    }
    assert named == set(buggify.POINTS)


def test_the_time_of_an_output_always_has_its_microseconds() -> None:
    with chance.decided_by(Random(1), lambda: 0.0):
        assert utc_now() == "1970-01-01T00:00:00.000000+00:00"
