"""A database that an earlier release has written is read and written on."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import trio

from dk_trio.services.cost import CostType
from dk_trio.services.filesystem import FileFilter
from dk_trio.services.local.platform import LocalPlatform
from dk_trio.services.local.snapshot import DefaultSnapshot
from dk_trio.services.stores.costs import Entry

from .file_kit import REAL, file


async def test_what_the_first_release_has_written_is_there_and_goes_on(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "dk-trio.sqlite3")) as connection:
        connection.executescript((Path(__file__).parent / "first_release.sql").read_text())
    with trio.fail_after(REAL):
        async with LocalPlatform(tmp_path).opened() as platform:
            records = platform.records
            row = await records.upsert("missions:m", "notes", "b", "OUTPUT", "{}")
            assert row.place == 2
            again = await records.upsert("missions:m", "notes", "a", "OUTPUT", "{}")
            assert (again.place, again.created) == (1, 1795275738487792)

            entry = Entry("missions:m", "call", "tokens", CostType.TOKEN_INPUT, "t", 0.1, 3.0, "setup_versions:v", "j")
            await platform.costs.add(entry, ())
            (total,) = (await platform.costs.sums("missions:m")).values()
            assert (str(total.quantity), str(total.amount)) == ("6.0", "0.60")
            assert len(await platform.costs.named("missions:m", "call")) == 2

            assert await platform.profiles.get("missions:m") == {"name": "Ada"}
            await platform.profiles.put("m", {"name": "Grace"})
            assert await platform.profiles.get("m") == {"name": "Grace"}

            setup = await platform.setups.get("s")
            assert setup is not None
            assert setup.current_setup_version is not None
            assert setup.current_setup_version.content == {"a": 1}
            assert (await platform.setups.update("s", name="T", owner_id=None, status=None, current="v")).name == "T"

            snapshot = DefaultSnapshot("m", "s", "v", platform=platform)
            await snapshot.create({"a": 2}, "second")
            assert await snapshot.get_all() == {"first": {"a": 1}, "second": {"a": 2}}

            files = platform.files
            await files.put("missions:m", file("b.txt"), max_size=100)
            found, total_files = await files.find("missions:m", FileFilter(), list_size=10, offset=0, order="name desc")
            assert ([record.name for record in found], total_files) == (["b.txt", "a.txt"], 2)
            await platform.database.check_health()
