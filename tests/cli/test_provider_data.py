"""What a provider keeps: through kill -9 under load, and in copies that are taken while it runs."""

import os
import shutil
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import trio
from tests.postgres import PostgresServer, postgres_server, postgres_url  # noqa: F401  fixtures

from bench import durability
from dk_trio import rpc
from dk_trio.cli._exits import Exit
from dk_trio.cli.provider._copy import _without_password

from .processes import PATIENCE, dk_trio, providing, started
from .provider_load import Load, Writer, loaded

SMALL = {"clients": 2, "writers": 3, "seed": 7, "longest": 0.5}


@pytest.fixture(autouse=True)
def in_a_directory_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


# --- kill -9 ---------------------------------------------------------------------------------------------------------


async def test_nothing_that_was_acknowledged_is_lost_or_there_twice() -> None:
    with trio.fail_after(4 * PATIENCE):
        outcome = await durability.trial(["--data-dir", "data"], kills=3, **SMALL)
    assert outcome.differences == []
    assert durability.integrity(Path("data")) == "ok"
    assert all(outcome.counts[kind] for kind in durability.KINDS), outcome.counts


async def test_the_same_with_postgresql(postgres_url: str) -> None:  # noqa: F811
    with trio.fail_after(4 * PATIENCE):
        outcome = await durability.trial(["--data-dir", "data", "--db", postgres_url], kills=2, **SMALL)
    assert outcome.differences == []
    assert outcome.counts["records"]


async def test_the_ledger_finds_what_is_lost_doubled_or_in_another_order() -> None:
    async with (
        providing("--db", ":memory:") as provider,
        loaded(provider.address, clients=1, writers=1, seed=1) as load,
    ):
        await load.at_least(records=2, costs=2, signals=2, files=2)
        await load.stop()
        assert await load.check() == []
        ledger = load.writers[0].ledger
        ledger.records["never"] = 1
        ledger.costs.pop()
        task, numbers = next(item for item in ledger.signals.items() if len(item[1]) > 1)
        ledger.signals[task] = numbers[::-1]
        ledger.files[next(iter(ledger.files))] = "other bytes"
        found = await load.check()
    assert [row.partition(":")[0] for row in found] == [
        "c0w0 records",
        "c0w0 costs",
        "c0w0 signals",
        "c0w0 files",
        "c0w0 files",
    ]
    assert "lost [('never', 1)], 1 in all" in found[0]
    assert "twice or never asked for" in found[1]
    assert "in another order" in found[2]


# --- backup ----------------------------------------------------------------------------------------------------------


async def backed_up(*arguments: str, code: int = Exit.OK) -> str:
    done = await dk_trio("provider", "backup", *arguments)
    assert done.returncode == code, done.stderr.decode()
    assert b"Traceback" not in done.stderr
    return (done.stdout if code == Exit.OK else done.stderr).decode()


async def check_at(address: str, load: Load) -> list[str]:
    """What a provider at another address lacks, or has too much."""
    async with rpc.open_channel(address) as channel:
        for writer in load.writers:
            twin = Writer(writer.name, channel, 0)
            twin.ledger = writer.ledger
            if differences := await twin.check():
                return differences
    return []


async def test_a_copy_holds_everything_and_a_provider_starts_with_it() -> None:
    async with providing("--data-dir", "data") as provider:
        async with loaded(provider.address, clients=1, writers=3, seed=1) as load:
            await load.at_least(records=5, costs=5, signals=5, files=3)
            await load.stop()
        told = await backed_up("--data-dir", "data", "copy")
        assert "dk-trio provider --data-dir copy" in told
        async with providing("--data-dir", "copy") as other:
            assert await check_at(other.address, load) == []


async def test_a_copy_under_load_is_of_one_moment() -> None:
    async with (
        providing("--data-dir", "data") as provider,
        loaded(provider.address, clients=2, writers=3, seed=1) as load,
    ):
        await load.at_least(records=20, files=3)
        before = load.counts()
        await backed_up("--data-dir", "data", "copy")
        after = load.counts()
    assert after["records"] > before["records"]
    with closing(sqlite3.connect(Path("copy", "dk-trio.sqlite3"))) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        ((records,),) = database.execute("SELECT count(*) FROM records").fetchall()
        contents = {name for (name,) in database.execute("SELECT name FROM file_contents")}
    assert before["records"] <= records <= after["records"] + len(load.writers)
    assert {path.name for path in Path("copy", "files").iterdir()} == contents


async def test_a_copy_does_not_overwrite_and_leaves_nothing_when_it_fails() -> None:
    async with providing("--data-dir", "data") as provider:
        async with loaded(provider.address, clients=1, writers=1, seed=1) as load:
            await load.at_least(files=1)
            await load.stop()
        provider.process.send_signal(signal.SIGTERM)
        await provider.wait()
    Path("there").mkdir()
    Path("there", "precious").touch()
    assert "there exists, and is not overwritten" in await backed_up(
        "--data-dir", "data", "there", code=Exit.CONFIGURATION
    )
    assert [path.name for path in Path("there").iterdir()] == ["precious"]
    for here in (".", "..", "/"):
        told = await backed_up("--data-dir", "data", here, code=Exit.CONFIGURATION)
        assert f"{here} exists, and is not overwritten" in told
    assert "no database in nowhere" in await backed_up("--data-dir", "nowhere", "copy", code=Exit.CONFIGURATION)
    assert "nothing to copy" in await backed_up("--db", ":memory:", "copy", code=Exit.CONFIGURATION)
    told = await backed_up("--db", "mysql://someone:s3cret@host/name", "copy", code=Exit.CONFIGURATION)
    assert "There is no database 'mysql://...'" in told
    assert "contents of " in await backed_up("--db", "sqlite", "--data-dir", "data", "copy")
    shutil.rmtree("copy")

    (content, *_) = Path("data", "files").iterdir()
    content.chmod(0o600)
    content.write_bytes(b"other bytes")
    assert "is damaged: it has other bytes" in await backed_up("--data-dir", "data", "copy", code=Exit.CONFIGURATION)
    content.unlink()
    told = await backed_up("--data-dir", "data", "copy", code=Exit.CONFIGURATION)
    assert f"{content} is not there, and the database names it. Name the data directory of the provider" in told
    assert sorted(path.name for path in Path.cwd().iterdir()) == ["data", "there"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
async def test_a_copy_that_is_ended_leaves_nothing_behind(number: signal.Signals) -> None:
    async with providing("--data-dir", "data") as provider:
        async with loaded(provider.address, clients=1, writers=1, seed=1) as load:
            await load.at_least(files=1)
            await load.stop()
        provider.process.send_signal(signal.SIGTERM)
        await provider.wait()
    for content in Path("data", "files").iterdir():
        content.unlink()
        os.mkfifo(content)  # whoever reads it waits
    async with started("provider", "backup", "--data-dir", "data", "copy") as copying:
        with trio.fail_after(PATIENCE):
            while not Path("copy.partial", "files").exists():  # noqa: ASYNC110  of another process
                await trio.sleep(0.01)
        copying.process.send_signal(number)
        assert await copying.wait() == 128 + number
    assert [path.name for path in Path.cwd().iterdir()] == ["data"]
    assert not "".join(copying.lines["stderr"])


async def test_a_copy_of_postgresql_is_a_dump_and_the_contents(postgres_server: PostgresServer) -> None:  # noqa: F811
    if not shutil.which("pg_dump") or not shutil.which("pg_restore"):
        pytest.skip("there is no pg_dump")
    for name in ("copied", "restored"):
        postgres_server.sql(f"DROP DATABASE IF EXISTS {name}")
        postgres_server.sql(f"CREATE DATABASE {name}")
    url, empty = postgres_server.url("copied"), postgres_server.url("restored")
    async with providing("--data-dir", "data", "--db", url) as provider:
        async with loaded(provider.address, clients=1, writers=2, seed=1) as load:
            await load.at_least(records=5, files=2)
            await load.stop()
        await backed_up("--db", url, "--data-dir", "data", "copy")
    with trio.fail_after(PATIENCE):
        await trio.run_process(
            ["pg_restore", "--no-owner", f"--dbname={empty}", "copy/postgresql.dump"], capture_stderr=True
        )
    async with providing("--data-dir", "copy", "--db", empty) as other:
        assert await check_at(other.address, load) == []


async def test_without_pg_dump_it_is_told_what_to_run(tmp_path: Path) -> None:
    told = await dk_trio(
        "provider", "backup", "--db", "postgresql://someone:s3cret@host/name", "copy", PATH=str(tmp_path)
    )
    assert told.returncode == Exit.CONFIGURATION
    assert b"pg_dump --format=custom --file=copy/postgresql.dump --dbname=postgresql://someone@host/name" in told.stderr
    assert b"s3cret" not in told.stderr


async def test_of_postgresql_what_cannot_be_copied_is_told_without_a_password(
    postgres_server: PostgresServer,  # noqa: F811
) -> None:
    if not shutil.which("pg_dump") or not shutil.which("pg_restore"):
        pytest.skip("there is no pg_dump")
    port = postgres_server.port
    for url, words in (
        (postgres_server.url("template1"), "There is nothing of a provider in the schema of"),
        (postgres_server.url(password="s3cret"), "Look at the user and the password of the URL"),
        (f"postgresql://u:%s3@127.0.0.1:{port}/name", "Percent-encode special characters"),
        (f"postgresql://u:s3cret@127.0.0.1:{port}/name?nonsense=1", "After its ? stand what libpq knows"),
        (f"postgresql://u@127.0.0.1:{port}/name?password=s3cret&sslmode=no", "Look at `sslmode`"),
        ("postgresql://u:s3cret@127.0.0.1:1/name", "Connection refused. Look at host and port of the URL"),
    ):
        told = await backed_up("--db", url, "copy", code=Exit.CONFIGURATION)
        assert words in told
        assert "127.0.0.1" in told
        assert "s3" not in told
        assert len(told.splitlines()) == 1
    assert not [*Path.cwd().iterdir()]


@pytest.mark.parametrize(
    ("url", "plain", "password"),
    [
        ("postgresql://u@h/d", "postgresql://u@h/d", None),
        ("postgresql://u:p@h/d?sslmode=require", "postgresql://u@h/d?sslmode=require", "p"),
        ("postgresql://u@h/d?password=p&sslmode=require", "postgresql://u@h/d?sslmode=require", "p"),
        ("postgresql://u:o@h/d?password=p", "postgresql://u@h/d", "p"),
        ("postgresql:///d?user=u", "postgresql:///d?user=u", None),
    ],
)
def test_other_processes_do_not_see_a_password(url: str, plain: str, password: str | None) -> None:
    assert _without_password(url) == (plain, password)
