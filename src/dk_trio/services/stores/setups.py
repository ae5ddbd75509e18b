"""Stored setups and their versions, for all modules of a platform.

Ids are kept without their prefixes, so that both forms mean the same. Reading opens nothing: where no database is yet,
there is no setup, and a module that uses no local service leaves no trace on disk when its jobs ask for theirs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, TypeAlias

from grpclib.const import Status

from dk_trio.errors import SetupNotFoundError, SetupServiceError, Violation
from dk_trio.services.registry import bare_module_id
from dk_trio.services.setup import (
    PREFIX,
    VERSION_PREFIX,
    SetupData,
    SetupExistsError,
    SetupPage,
    SetupStatus,
    SetupVersionData,
    bare,
    bare_version,
)
from dk_trio.services.setup_checks import not_found

from .database import Database
from .work import Statement, T, Work

Changed: TypeAlias = Callable[[str, str], object]
"""Called with a setup's id and that of its module."""

# Append only, see `Database.declare`. `place` is the order of creation; `current` is the id of a version.
_SCHEMA: Final = (
    """CREATE TABLE setups (
        place {place},
        id TEXT NOT NULL UNIQUE,
        name TEXT NOT NULL,
        organisation_id TEXT NOT NULL,
        owner_id TEXT NOT NULL,
        module_id TEXT NOT NULL,
        status TEXT NOT NULL,
        current TEXT
    )""",
    """CREATE TABLE setup_versions (
        place {place},
        id TEXT NOT NULL UNIQUE,
        setup TEXT NOT NULL,
        version TEXT NOT NULL,
        content TEXT NOT NULL,
        created BIGINT NOT NULL,
        UNIQUE (setup, version)
    )""",
)
_SETUPS: Final = """SELECT s.id, s.name, s.organisation_id, s.owner_id, s.module_id, s.status,
    v.id, v.setup, v.version, v.content, v.created
    FROM setups s LEFT JOIN setup_versions v ON v.id = s.current"""
_VERSIONS: Final = "SELECT id, setup, version, content, created FROM setup_versions"
_INSERT_SETUP: Final = """INSERT INTO setups (id, name, organisation_id, owner_id, module_id, status, current)
    VALUES (?, ?, ?, ?, ?, ?, ?)"""
_INSERT_VERSION: Final = "INSERT INTO setup_versions (id, setup, version, content, created) VALUES (?, ?, ?, ?, ?)"
_PUT_VERSION: Final = (
    _INSERT_VERSION + " ON CONFLICT (id) DO UPDATE SET version = excluded.version, content = excluded.content"
)
# What is None does not change, and does not restrict.
_UPDATE_SETUP: Final = """UPDATE setups SET name = coalesce(?, name), owner_id = coalesce(?, owner_id),
    status = coalesce(?, status), current = coalesce(?, current) WHERE id = ?"""
_UPDATE_VERSION: Final = """UPDATE setup_versions SET version = coalesce(?, version),
    content = coalesce(?, content) WHERE id = ?"""
_OF: Final = """WHERE (CAST(? AS TEXT) IS NULL OR organisation_id = ?) AND (CAST(? AS TEXT) IS NULL OR owner_id = ?)"""
_COUNT: Final = f"SELECT count(*) FROM setups {_OF}"  # noqa: S608 - our own text
_LIST: Final = f"{_SETUPS} {_OF} ORDER BY s.place LIMIT ? OFFSET ?"
_SEARCH: Final = f"""{_VERSIONS} WHERE (CAST(? AS TEXT) IS NULL OR setup = ?)
    AND (CAST(? AS TEXT) IS NULL OR version = ?) ORDER BY place LIMIT ? OFFSET ?"""


class SetupTable:
    """Setups in the database.

    Args:
        database: Where they are.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._watchers: list[Changed] = []
        database.declare("setups", _SCHEMA)

    def __repr__(self) -> str:
        return f"<SetupTable in {self._database!r}>"

    @contextmanager
    def watched(self, changed: Changed) -> Iterator[None]:
        """Call `changed` after each change of a setup or of one of its versions, for the length of the block."""
        self._watchers.append(changed)
        try:
            yield
        finally:
            self._watchers.remove(changed)

    # --- setups ------------------------------------------------------------------------------------------------------

    async def create(self, setup: SetupData) -> None:
        """Add a setup, with its current version if it has one.

        Raises:
            SetupExistsError: One of the ids is taken.
        """
        await self._change(partial(self.create_work, setup))

    def create_work(self, setup: SetupData) -> Work[SetupData]:
        """`create`, as a part of a larger work. Returns the setup. Who watches is not told, here and below."""
        if (yield from self.get_work(setup.id)) is not None:
            raise _exists("setup_id", f"setup {setup.id!r} exists already", "Choose another id, or update it.")
        yield from _insert_setup(setup)
        if setup.current_setup_version is not None:
            yield from _insert_version(setup.current_setup_version)
        return setup

    async def get(self, setup_id: str) -> SetupData | None:
        """The setup with its current version; None when there is none."""
        return await self._read(partial(self.get_work, setup_id), None)

    def get_work(self, setup_id: str) -> Work[SetupData | None]:
        """`get`, as a part of a larger work."""
        rows = (yield Statement(f"{_SETUPS} WHERE s.id = ?", (bare(setup_id),))).rows
        return _setup_data(rows[0]) if rows else None

    async def update(
        self, setup_id: str, *, name: str | None, owner_id: str | None, status: str | None, current: str | None
    ) -> SetupData:
        """Change fields of a setup; `current` is the id of a version.

        Raises:
            SetupNotFoundError: There is no such setup, or no such version of it.
        """
        return await self._change(
            partial(self.update_work, setup_id, name=name, owner_id=owner_id, status=status, current=current)
        )

    def update_work(
        self, setup_id: str, *, name: str | None, owner_id: str | None, status: str | None, current: str | None
    ) -> Work[SetupData]:
        """`update`, as a part of a larger work."""
        key = bare(setup_id)
        yield from self._existing(key)
        version_key = None if current is None else bare_version(current)
        if version_key is not None:
            version = yield from self.get_version_work(version_key)
            if version is None or bare(version.setup_id) != key:
                rule = f"setup {PREFIX + key!r} has no version with the id {current!r}"
                raise SetupNotFoundError(
                    f"S{rule[1:]}.",
                    hint="Find its versions with search_setup_versions(setup_id=...).",
                    violations=[Violation("current_setup_version_id", rule)],
                )
        yield Statement(_UPDATE_SETUP, (name, owner_id, status, version_key, key))
        return (yield from self._existing(key))

    async def delete(self, setup_id: str) -> bool:
        """Delete a setup and its versions; whether there was one."""
        # Nothing is there to delete where no database is.
        return self._database.exists and await self._change(partial(self.delete_work, setup_id)) is not None

    def delete_work(self, setup_id: str) -> Work[SetupData | None]:
        """`delete`, as a part of a larger work. Returns the setup that was there."""
        setup = yield from self.get_work(setup_id)
        yield Statement("DELETE FROM setup_versions WHERE setup = ?", (bare(setup_id),))
        yield Statement("DELETE FROM setups WHERE id = ?", (bare(setup_id),))
        return setup

    async def page(self, *, organisation_id: str | None, owner_id: str | None, limit: int, offset: int) -> SetupPage:
        """Setups in the order of their creation."""
        of = (organisation_id, organisation_id, owner_id, owner_id)

        def read() -> Work[SetupPage]:
            ((total,),) = (yield Statement(_COUNT, of)).rows
            rows = (yield Statement(_LIST, (*of, limit, offset))).rows
            return SetupPage([_setup_data(row) for row in rows], total)

        return await self._read(read, SetupPage([], 0), thread=True)

    # --- versions ----------------------------------------------------------------------------------------------------

    async def create_version(self, version: SetupVersionData) -> None:
        """Add a version; the first is current.

        Raises:
            SetupNotFoundError: There is no such setup.
            SetupExistsError: Its id is taken, or its name in this setup.
        """
        await self._change(partial(self.create_version_work, version))

    def create_version_work(self, version: SetupVersionData) -> Work[SetupData]:
        """`create_version`, as a part of a larger work. Returns the setup as it was."""
        setup = yield from self._existing(version.setup_id)
        yield from _insert_version(version)
        if setup.current_setup_version is None:
            yield _make_current(version)
        return setup

    async def put_version(self, setup: SetupData) -> None:
        """The current version of `setup` is current from now on, whether setup and version are there or not.

        It replaces the version that has its id, and the one that has its name; a setup that is there stays as it is.

        Raises:
            SetupExistsError: The setup is another module's, or the version another setup's.
        """
        await self._change(partial(self.put_version_work, setup))

    def put_version_work(self, setup: SetupData) -> Work[SetupData]:
        """`put_version`, as a part of a larger work. Returns what it was given."""
        version = setup.current_setup_version
        assert version is not None
        there = yield from self.get_work(setup.id)
        if there is None:
            yield from _insert_setup(setup)
        elif bare_module_id(there.module_id) != bare_module_id(setup.module_id):
            raise _exists(
                "setup_version.setup_id",
                f"setup {setup.id!r} is stored for the module {there.module_id!r}, not for {setup.module_id!r}",
                "Choose another id for the setup, or delete the one that is there.",
            )
        same = yield from self.get_version_work(version.id)
        if same is not None and same.setup_id != version.setup_id:
            raise _exists(
                "setup_version.id",
                f"version {version.id!r} is one of the setup {same.setup_id!r}, not of {version.setup_id!r}",
                "Give each version an id of its own.",
            )
        row = _version_row(version)
        query = "DELETE FROM setup_versions WHERE setup = ? AND version = ? AND id <> ?"
        yield Statement(query, (row[1], row[2], row[0]))
        yield Statement(_PUT_VERSION, row)
        yield _make_current(version)
        return setup

    async def get_version(self, setup_version_id: str) -> SetupVersionData | None:
        """The version; None when there is none."""
        return await self._read(partial(self.get_version_work, setup_version_id), None)

    def get_version_work(self, setup_version_id: str) -> Work[SetupVersionData | None]:
        """`get_version`, as a part of a larger work."""
        rows = (yield Statement(f"{_VERSIONS} WHERE id = ?", (bare_version(setup_version_id),))).rows
        return _version_data(rows[0]) if rows else None

    async def update_version(
        self, setup_version_id: str, *, version: str | None, content: str | None
    ) -> SetupVersionData:
        """Change the name of a version, or the JSON text of its content.

        Raises:
            SetupNotFoundError: There is no such version.
            SetupExistsError: Its setup has another version of the new name.
        """
        work = partial(self.update_version_work, setup_version_id, version=version, content=content)
        setup, changed = await self._database.write(work)
        self._tell(setup)
        return changed

    def update_version_work(
        self, setup_version_id: str, *, version: str | None, content: str | None
    ) -> Work[tuple[SetupData, SetupVersionData]]:
        """`update_version`, as a part of a larger work. Returns the setup and the version as they are now."""
        there = yield from self._existing_version(setup_version_id)
        if version is not None and version != there.version:
            yield from _check_name(there.setup_id, version)
        yield Statement(_UPDATE_VERSION, (version, content, bare_version(setup_version_id)))
        setup = yield from self._existing(there.setup_id)
        return setup, (yield from self._existing_version(setup_version_id))

    async def delete_version(self, setup_version_id: str) -> bool:
        """Delete a version; whether there was one.

        Raises:
            SetupServiceError: It is the current one.
        """
        work = partial(self.delete_version_work, setup_version_id)
        return self._database.exists and await self._change(work) is not None

    def delete_version_work(self, setup_version_id: str) -> Work[SetupData | None]:
        """`delete_version`, as a part of a larger work. Returns the setup, if there was such a version."""
        version = yield from self.get_version_work(setup_version_id)
        if version is None:
            return None
        setup = yield from self._existing(version.setup_id)
        if setup.current_setup_version is not None and setup.current_setup_version.id == version.id:
            rule = f"version {version.id!r} is the current one of the setup {setup.id!r}"
            raise SetupServiceError(
                f"The {rule}: without it jobs would have nothing to run with.",
                hint="Make another one current with update_setup, or delete the setup.",
                violations=[Violation("setup_version_id", rule)],
                status=Status.FAILED_PRECONDITION,
            )
        yield Statement("DELETE FROM setup_versions WHERE id = ?", (bare_version(version.id),))
        return setup

    async def versions(
        self, *, setup_id: str | None, version: str | None, limit: int, offset: int
    ) -> list[SetupVersionData]:
        """Versions in the order of their creation."""
        work = partial(self.versions_work, setup_id=setup_id, version=version, limit=limit, offset=offset)
        return await self._read(work, [], thread=True)

    def versions_work(
        self, *, setup_id: str | None, version: str | None, limit: int, offset: int
    ) -> Work[list[SetupVersionData]]:
        """`versions`, as a part of a larger work."""
        key = None if setup_id is None else bare(setup_id)
        rows = (yield Statement(_SEARCH, (key, key, version, version, limit, offset))).rows
        return [_version_data(row) for row in rows]

    # --- around every statement --------------------------------------------------------------------------------------

    async def _read(self, work: Callable[[], Work[T]], nothing: T, *, thread: bool = False) -> T:
        return await self._database.read(work, thread=thread) if self._database.exists else nothing

    async def _change(self, work: Callable[[], Work[T]]) -> T:
        changed = await self._database.write(work)
        if isinstance(changed, SetupData):
            self._tell(changed)
        return changed

    def _tell(self, setup: SetupData) -> None:
        for changed in list(self._watchers):
            changed(setup.id, setup.module_id)

    def _existing(self, setup_id: str) -> Work[SetupData]:
        setup = yield from self.get_work(setup_id)
        if setup is None:
            raise not_found("setup", "setup_id", PREFIX + bare(setup_id))
        return setup

    def _existing_version(self, setup_version_id: str) -> Work[SetupVersionData]:
        version = yield from self.get_version_work(setup_version_id)
        if version is None:
            raise not_found("setup version", "setup_version_id", VERSION_PREFIX + bare_version(setup_version_id))
        return version


def _insert_setup(setup: SetupData) -> Work[None]:
    current = setup.current_setup_version
    key = None if current is None else bare_version(current.id)
    names = (setup.name, setup.organisation_id, setup.owner_id, setup.module_id, setup.status.value)
    yield Statement(_INSERT_SETUP, (bare(setup.id), *names, key))


def _insert_version(version: SetupVersionData) -> Work[None]:
    query = "SELECT id FROM setup_versions WHERE id = ?"
    if (yield Statement(query, (bare_version(version.id),))).rows:
        raise _exists("setup_version_id", f"version {version.id!r} exists already", "Choose another id, or update it.")
    yield from _check_name(version.setup_id, version.version)
    yield Statement(_INSERT_VERSION, _version_row(version))


def _check_name(setup_id: str, name: str) -> Work[None]:
    query = "SELECT id FROM setup_versions WHERE setup = ? AND version = ?"
    rows = (yield Statement(query, (bare(setup_id), name))).rows
    if rows:
        rule = f"setup {setup_id!r} has a version {name!r} already, {VERSION_PREFIX + rows[0][0]!r}"
        raise _exists("version", rule, "Choose another name, or update that version.")


def _make_current(version: SetupVersionData) -> Statement:
    keys = (bare_version(version.id), bare(version.setup_id))
    return Statement("UPDATE setups SET current = ? WHERE id = ?", keys)


def _exists(field: str, rule: str, remedy: str) -> SetupExistsError:
    return SetupExistsError(f"{rule[0].upper()}{rule[1:]}.", hint=remedy, violations=[Violation(field, rule)])


def _version_row(version: SetupVersionData) -> tuple[str, str, str, str, int]:
    created = round(version.creation_date.timestamp() * 1_000_000)
    return bare_version(version.id), bare(version.setup_id), version.version, json.dumps(version.content), created


def _setup_data(row: tuple[Any, ...]) -> SetupData:
    key, name, organisation_id, owner_id, module_id, status, *current = row
    return SetupData.model_construct(
        id=PREFIX + key,
        name=name,
        organisation_id=organisation_id,
        owner_id=owner_id,
        module_id=module_id,
        current_setup_version=None if current[0] is None else _version_data(tuple(current)),
        status=SetupStatus(status),
    )


def _version_data(row: tuple[Any, ...]) -> SetupVersionData:
    key, setup, version, content, created = row
    return SetupVersionData.model_construct(
        id=VERSION_PREFIX + key,
        setup_id=PREFIX + setup,
        version=version,
        content=json.loads(content),
        creation_date=datetime.fromtimestamp(created / 1_000_000, UTC),
    )
