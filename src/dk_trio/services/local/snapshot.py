"""Snapshots in the database that all jobs of this server share."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from dk_trio import chance
from dk_trio.errors import InvalidRecordError, RecordExistsError, Violation
from dk_trio.services.snapshot import Snapshot
from dk_trio.services.stores.profiles import bare
from dk_trio.services.stores.work import Statement, Work
from dk_trio.services.strategy import BaseStrategy

if TYPE_CHECKING:
    from dk_trio.services.local.platform import LocalPlatform

NAME_MAX: Final = 255  # characters
DATA_MAX: Final = 1024 * 1024  # bytes of JSON: `get_all` holds COUNT_MAX of them at once
COUNT_MAX: Final = 100  # in a mission

SCHEMA: Final = (
    """CREATE TABLE snapshots (seq {place}, mission TEXT NOT NULL, name TEXT NOT NULL,
        data TEXT NOT NULL, UNIQUE (mission, name))""",
)


class DefaultSnapshot(BaseStrategy, Snapshot):
    """Snapshots of the job's mission: at most 100, each of at most 1 MiB of JSON.

    Args:
        mission_id: The mission, with or without prefix.
        setup_id: The setup.
        setup_version_id: Its version.
        platform: Where they are stored.
    """

    def __init__(self, mission_id: str, setup_id: str, setup_version_id: str, *, platform: LocalPlatform) -> None:
        super().__init__(mission_id, setup_id, setup_version_id)
        self._mission = bare(mission_id)
        self._database = platform.database
        self._database.declare("snapshots", SCHEMA)

    async def create(self, data: Mapping[str, Any], name: str | None = None) -> str:
        name = chance.new_uuid().hex if name is None else _checked(name)
        text = _json(data)

        def work() -> Work[str]:
            if (yield from self._row(name)) is not None:
                raise RecordExistsError(
                    f"A snapshot {name!r} of this mission exists.",
                    hint="`update` replaces its data.",
                    violations=[Violation("name", f"{name!r} is taken")],
                )
            query = "SELECT COUNT(*) FROM snapshots WHERE mission = ?"
            if (yield Statement(query, (self._mission,))).rows[0][0] >= COUNT_MAX:
                raise _refused("name", f"a mission has at most {COUNT_MAX} snapshots")
            query = "INSERT INTO snapshots (mission, name, data) VALUES (?, ?, ?)"
            yield Statement(query, (self._mission, name, text))
            return name

        return await self._database.write(work)

    async def get(self, name: str) -> dict[str, Any] | None:
        row = await self._database.read(partial(self._row, _checked(name)))
        return None if row is None else json.loads(row)

    async def update(self, name: str, data: Mapping[str, Any]) -> int:
        query = "UPDATE snapshots SET data = ? WHERE mission = ? AND name = ?"
        return await self._database.write(partial(_count, query, _json(data), self._mission, _checked(name)))

    async def delete(self, name: str) -> int:
        query = "DELETE FROM snapshots WHERE mission = ? AND name = ?"
        return await self._database.write(partial(_count, query, self._mission, _checked(name)))

    async def get_all(self) -> dict[str, dict[str, Any]]:
        def read() -> Work[list[tuple[str, str]]]:
            query = "SELECT name, data FROM snapshots WHERE mission = ? ORDER BY seq"
            return [(name, data) for name, data in (yield Statement(query, (self._mission,))).rows]

        rows = await self._database.read(read, thread=True)
        return {name: json.loads(data) for name, data in rows}

    async def check_health(self) -> None:
        await self._database.check_health()

    def _row(self, name: str) -> Work[str | None]:
        query = "SELECT data FROM snapshots WHERE mission = ? AND name = ?"
        rows = (yield Statement(query, (self._mission, name))).rows
        return rows[0][0] if rows else None


def _count(query: str, *parameters: str) -> Work[int]:
    return (yield Statement(query, parameters)).count


def _refused(field: str, rule: str) -> InvalidRecordError:
    return InvalidRecordError(f"{field}: {rule}.", violations=[Violation(field, rule)])


def _checked(name: str) -> str:
    if not name.isprintable() or not 0 < len(name) <= NAME_MAX:
        raise _refused("name", f"{ascii(name)[:100]} is refused, a name has 1 to {NAME_MAX} printable characters")
    return name


def _json(data: Mapping[str, Any]) -> str:
    try:
        text = json.dumps(data, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise _refused("data", f"a snapshot is a dict of JSON values: {error}") from None
    if not text.startswith("{"):
        raise _refused("data", f"a snapshot is a dict of JSON values, not {type(data).__name__}")
    if len(text) > DATA_MAX:
        raise _refused("data", f"a snapshot has at most {DATA_MAX} bytes of JSON, not {len(text)}")
    return text
