"""Stored setups and their versions, for all modules of a platform.

Ids are kept without their prefixes, so that both forms mean the same. Reading opens nothing: where no database is yet,
there is no setup, and a module that uses no local service leaves no trace on disk when its jobs ask for theirs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

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

from .database import Database

if TYPE_CHECKING:
    import sqlite3

T = TypeVar("T")

Changed: TypeAlias = Callable[[str, str], object]
"""Called with a setup's id and that of its module."""

# Append only, see `Database.declare`. `place` is the order of creation; `current` is the id of a version.
_SCHEMA: Final = (
    """CREATE TABLE setups (
        place INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        name TEXT NOT NULL,
        organisation_id TEXT NOT NULL,
        owner_id TEXT NOT NULL,
        module_id TEXT NOT NULL,
        status TEXT NOT NULL,
        current TEXT
    )""",
    """CREATE TABLE setup_versions (
        place INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        setup TEXT NOT NULL,
        version TEXT NOT NULL,
        content TEXT NOT NULL,
        created INTEGER NOT NULL,
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
_UPDATE_SETUP: Final = """UPDATE setups SET name = coalesce(:name, name), owner_id = coalesce(:owner_id, owner_id),
    status = coalesce(:status, status), current = coalesce(:current, current) WHERE id = :id"""
_UPDATE_VERSION: Final = """UPDATE setup_versions SET version = coalesce(:version, version),
    content = coalesce(:content, content) WHERE id = :id"""
_OF: Final = """WHERE (:organisation_id IS NULL OR organisation_id = :organisation_id)
    AND (:owner_id IS NULL OR owner_id = :owner_id)"""
_COUNT: Final = f"SELECT count(*) FROM setups {_OF}"  # noqa: S608 - our own text
_LIST: Final = f"{_SETUPS} {_OF} ORDER BY s.place LIMIT :limit OFFSET :offset"
_SEARCH: Final = f"""{_VERSIONS} WHERE (:setup IS NULL OR setup = :setup) AND (:version IS NULL OR version = :version)
    ORDER BY place LIMIT :limit OFFSET :offset"""


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

        def write(connection: sqlite3.Connection) -> SetupData:
            if _setup(connection, bare(setup.id)) is not None:
                raise _exists("setup_id", f"setup {setup.id!r} exists already", "Choose another id, or update it.")
            _insert_setup(connection, setup)
            if setup.current_setup_version is not None:
                _insert_version(connection, setup.current_setup_version)
            return setup

        await self._change(write)

    async def get(self, setup_id: str) -> SetupData | None:
        """The setup with its current version; None when there is none."""
        return await self._read(lambda connection: _setup(connection, bare(setup_id)), None)

    async def update(
        self, setup_id: str, *, name: str | None, owner_id: str | None, status: str | None, current: str | None
    ) -> SetupData:
        """Change fields of a setup; `current` is the id of a version.

        Raises:
            SetupNotFoundError: There is no such setup, or no such version of it.
        """
        key = bare(setup_id)

        def write(connection: sqlite3.Connection) -> SetupData:
            _existing(connection, key)
            version_key = None if current is None else bare_version(current)
            if version_key is not None:
                version = _version(connection, version_key)
                if version is None or bare(version.setup_id) != key:
                    rule = f"setup {PREFIX + key!r} has no version with the id {current!r}"
                    raise SetupNotFoundError(
                        f"S{rule[1:]}.",
                        hint="Find its versions with search_setup_versions(setup_id=...).",
                        violations=[Violation("current_setup_version_id", rule)],
                    )
            fields = {"name": name, "owner_id": owner_id, "status": status, "current": version_key}
            connection.execute(_UPDATE_SETUP, {**fields, "id": key})
            return _existing(connection, key)

        return await self._change(write)

    async def delete(self, setup_id: str) -> bool:
        """Delete a setup and its versions; whether there was one."""
        key = bare(setup_id)

        def write(connection: sqlite3.Connection) -> SetupData | None:
            setup = _setup(connection, key)
            connection.execute("DELETE FROM setup_versions WHERE setup = ?", (key,))
            connection.execute("DELETE FROM setups WHERE id = ?", (key,))
            return setup

        # Nothing is there to delete where no database is.
        return self._database.exists and await self._change(write) is not None

    async def page(self, *, organisation_id: str | None, owner_id: str | None, limit: int, offset: int) -> SetupPage:
        """Setups in the order of their creation."""
        of = {"organisation_id": organisation_id, "owner_id": owner_id}

        def read(connection: sqlite3.Connection) -> SetupPage:
            (total,) = connection.execute(_COUNT, of).fetchone()
            rows = connection.execute(_LIST, {**of, "limit": limit, "offset": offset})
            return SetupPage([_setup_data(row) for row in rows], total)

        return await self._read(read, SetupPage([], 0), thread=True)

    # --- versions ----------------------------------------------------------------------------------------------------

    async def create_version(self, version: SetupVersionData) -> None:
        """Add a version; the first is current.

        Raises:
            SetupNotFoundError: There is no such setup.
            SetupExistsError: Its id is taken, or its name in this setup.
        """

        def write(connection: sqlite3.Connection) -> SetupData:
            setup = _existing(connection, bare(version.setup_id))
            _insert_version(connection, version)
            if setup.current_setup_version is None:
                _make_current(connection, version)
            return setup

        await self._change(write)

    async def put_version(self, setup: SetupData) -> None:
        """The current version of `setup` is current from now on, whether setup and version are there or not.

        It replaces the version that has its id, and the one that has its name; a setup that is there stays as it is.

        Raises:
            SetupExistsError: The setup is another module's, or the version another setup's.
        """
        version = setup.current_setup_version
        assert version is not None

        def write(connection: sqlite3.Connection) -> SetupData:
            there = _setup(connection, bare(setup.id))
            if there is None:
                _insert_setup(connection, setup)
            elif bare_module_id(there.module_id) != bare_module_id(setup.module_id):
                raise _exists(
                    "setup_version.setup_id",
                    f"setup {setup.id!r} is stored for the module {there.module_id!r}, not for {setup.module_id!r}",
                    "Choose another id for the setup, or delete the one that is there.",
                )
            same = _version(connection, bare_version(version.id))
            if same is not None and same.setup_id != version.setup_id:
                raise _exists(
                    "setup_version.id",
                    f"version {version.id!r} is one of the setup {same.setup_id!r}, not of {version.setup_id!r}",
                    "Give each version an id of its own.",
                )
            row = _version_row(version)
            connection.execute(
                "DELETE FROM setup_versions WHERE setup = ? AND version = ? AND id <> ?", (row[1], row[2], row[0])
            )
            connection.execute(_PUT_VERSION, row)
            _make_current(connection, version)
            return setup

        await self._change(write)

    async def get_version(self, setup_version_id: str) -> SetupVersionData | None:
        """The version; None when there is none."""
        return await self._read(lambda connection: _version(connection, bare_version(setup_version_id)), None)

    async def update_version(
        self, setup_version_id: str, *, version: str | None, content: str | None
    ) -> SetupVersionData:
        """Change the name of a version, or the JSON text of its content.

        Raises:
            SetupNotFoundError: There is no such version.
            SetupExistsError: Its setup has another version of the new name.
        """
        key = bare_version(setup_version_id)

        def write(connection: sqlite3.Connection) -> tuple[SetupData, SetupVersionData]:
            there = _existing_version(connection, key)
            if version is not None and version != there.version:
                _check_name(connection, there.setup_id, version)
            connection.execute(_UPDATE_VERSION, {"version": version, "content": content, "id": key})
            return _existing(connection, bare(there.setup_id)), _existing_version(connection, key)

        setup, changed = await self._database.write(write)
        self._tell(setup)
        return changed

    async def delete_version(self, setup_version_id: str) -> bool:
        """Delete a version; whether there was one.

        Raises:
            SetupServiceError: It is the current one.
        """
        key = bare_version(setup_version_id)

        def write(connection: sqlite3.Connection) -> SetupData | None:
            version = _version(connection, key)
            if version is None:
                return None
            setup = _existing(connection, bare(version.setup_id))
            if setup.current_setup_version is not None and setup.current_setup_version.id == version.id:
                rule = f"version {version.id!r} is the current one of the setup {setup.id!r}"
                raise SetupServiceError(
                    f"The {rule}: without it jobs would have nothing to run with.",
                    hint="Make another one current with update_setup, or delete the setup.",
                    violations=[Violation("setup_version_id", rule)],
                )
            connection.execute("DELETE FROM setup_versions WHERE id = ?", (key,))
            return setup

        return self._database.exists and await self._change(write) is not None

    async def versions(
        self, *, setup_id: str | None, version: str | None, limit: int, offset: int
    ) -> list[SetupVersionData]:
        """Versions in the order of their creation."""
        of = {"setup": None if setup_id is None else bare(setup_id), "version": version}

        def read(connection: sqlite3.Connection) -> list[SetupVersionData]:
            rows = connection.execute(_SEARCH, {**of, "limit": limit, "offset": offset})
            return [_version_data(row) for row in rows]

        return await self._read(read, [], thread=True)

    # --- around every statement --------------------------------------------------------------------------------------

    async def _read(self, work: Callable[[sqlite3.Connection], T], nothing: T, *, thread: bool = False) -> T:
        return await self._database.read(work, thread=thread) if self._database.exists else nothing

    async def _change(self, work: Callable[[sqlite3.Connection], T]) -> T:
        changed = await self._database.write(work)
        if isinstance(changed, SetupData):
            self._tell(changed)
        return changed

    def _tell(self, setup: SetupData) -> None:
        for changed in list(self._watchers):
            changed(setup.id, setup.module_id)


def _setup(connection: sqlite3.Connection, key: str) -> SetupData | None:
    row = connection.execute(f"{_SETUPS} WHERE s.id = ?", (key,)).fetchone()
    return None if row is None else _setup_data(row)


def _existing(connection: sqlite3.Connection, key: str) -> SetupData:
    setup = _setup(connection, key)
    if setup is None:
        raise SetupNotFoundError(f"No setup with the id {PREFIX + key!r} is stored.", hint="See list_setups().")
    return setup


def _version(connection: sqlite3.Connection, key: str) -> SetupVersionData | None:
    row = connection.execute(f"{_VERSIONS} WHERE id = ?", (key,)).fetchone()
    return None if row is None else _version_data(row)


def _existing_version(connection: sqlite3.Connection, key: str) -> SetupVersionData:
    version = _version(connection, key)
    if version is None:
        raise SetupNotFoundError(
            f"No setup version with the id {VERSION_PREFIX + key!r} is stored.",
            hint="Find versions with search_setup_versions().",
        )
    return version


def _insert_setup(connection: sqlite3.Connection, setup: SetupData) -> None:
    current = setup.current_setup_version
    key = None if current is None else bare_version(current.id)
    names = (setup.name, setup.organisation_id, setup.owner_id, setup.module_id, setup.status.value)
    connection.execute(_INSERT_SETUP, (bare(setup.id), *names, key))


def _insert_version(connection: sqlite3.Connection, version: SetupVersionData) -> None:
    if _version(connection, bare_version(version.id)) is not None:
        raise _exists("setup_version_id", f"version {version.id!r} exists already", "Choose another id, or update it.")
    _check_name(connection, version.setup_id, version.version)
    connection.execute(_INSERT_VERSION, _version_row(version))


def _check_name(connection: sqlite3.Connection, setup_id: str, name: str) -> None:
    query = "SELECT id FROM setup_versions WHERE setup = ? AND version = ?"
    row = connection.execute(query, (bare(setup_id), name)).fetchone()
    if row is not None:
        rule = f"setup {setup_id!r} has a version {name!r} already, {VERSION_PREFIX + row[0]!r}"
        raise _exists("version", rule, "Choose another name, or update that version.")


def _make_current(connection: sqlite3.Connection, version: SetupVersionData) -> None:
    keys = (bare_version(version.id), bare(version.setup_id))
    connection.execute("UPDATE setups SET current = ? WHERE id = ?", keys)


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
