"""Modules that were registered, and where they are served. Times are in microseconds since the epoch.

A registration is a lease, which each heartbeat renews. Nobody writes when one runs out: whether a module is alive is
told by when it was heard of last, each time somebody asks. What is registered stays known, with its last address, until
it is registered somewhere else.

While a provider was away nobody's heartbeats were kept. So when it is back, the leases that had not run out when it was
heard of any module last begin anew, once.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_lowercase, ascii_uppercase
from typing import Any, Final, NamedTuple

import trio

from dk_trio.services.registry import MODULE_PREFIX, bare_module_id

from .database import Database
from .work import Result, Statement, Value, Work

# Append only, see `Database.declare`. Ids are without prefix. `kind` is the word of the older registry for the type,
# `served` is 0 once the module was deregistered, `seen` is when it was registered or had a heartbeat last.
_SCHEMA: Final = (
    """CREATE TABLE registrations (
        place {place},
        id TEXT NOT NULL UNIQUE,
        address TEXT NOT NULL,
        port BIGINT NOT NULL,
        version TEXT NOT NULL,
        module_type TEXT NOT NULL,
        kind TEXT NOT NULL,
        name TEXT NOT NULL,
        documentation TEXT NOT NULL,
        tags TEXT NOT NULL,
        served BIGINT NOT NULL,
        idle BIGINT NOT NULL,
        created BIGINT NOT NULL,
        updated BIGINT NOT NULL,
        seen BIGINT NOT NULL
    )""",
)
_NAMES: Final = (
    "id, address, port, version, module_type, kind, name, documentation, tags, served, idle, created, updated, seen"
)
_COLUMNS: Final = ", ".join(f"registrations.{name}" for name in _NAMES.split(", "))
# What a registration does not tell stays as it was: most tell no more than an address.
_REGISTER: Final = f"""INSERT INTO registrations ({_NAMES}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 1, 0, ?, ?, ?)
    ON CONFLICT (id) DO UPDATE SET address = excluded.address, port = excluded.port, version = excluded.version,
    module_type = CASE WHEN excluded.module_type = '' THEN registrations.module_type ELSE excluded.module_type END,
    kind = CASE WHEN excluded.module_type = '' THEN registrations.kind ELSE excluded.kind END,
    name = CASE WHEN excluded.name = '' THEN registrations.name ELSE excluded.name END,
    documentation = CASE WHEN excluded.documentation = '' THEN registrations.documentation
        ELSE excluded.documentation END,
    tags = CASE WHEN excluded.tags = '[]' THEN registrations.tags ELSE excluded.tags END,
    served = 1, idle = 0, updated = excluded.updated, seen = excluded.seen
    RETURNING {_COLUMNS}"""  # noqa: S608 - our own text, here and below
_BEAT: Final = f"UPDATE registrations SET seen = ? WHERE id = ? AND served = 1 RETURNING {_COLUMNS}"  # noqa: S608
_TELL: Final = "UPDATE registrations SET served = ?, idle = ?, updated = ?, seen = ? WHERE id = ?"
_WITHDRAW: Final = "UPDATE registrations SET served = 0, updated = ? WHERE id = ?"
_MOVE: Final = "UPDATE registrations SET address = ?, port = ?, idle = 0, updated = ?, seen = ? WHERE id = ?"
_GET: Final = f"SELECT {_COLUMNS} FROM registrations WHERE id = ?"  # noqa: S608
_LAST_SEEN: Final = "SELECT coalesce(max(seen), 0) FROM registrations"
_SMALL: Final = str.maketrans(ascii_uppercase, ascii_lowercase)
_ALIVE: Final = "served = 1 AND seen > ? AND seen < ?"


class Lease(NamedTuple):
    """A module that is served is alive if it was seen after the one and before the other.

    The latter, in the future, is for a clock that was set back: it takes one heartbeat for all to be right again.
    """

    after: int
    before: int


@dataclass(frozen=True, slots=True)
class Facts:
    """What a module, or who serves it, says about it; what is empty was not said.

    Attributes:
        module_id: Its id, with or without prefix.
        address: Name or address of the host.
        port: The port; 0 where the address needs none.
        version: Its version.
        module_type: `archetype`, `tool`, `unspecified` or empty.
        kind: What the older registry calls it: `kin`, `tool`, `trigger`, `view` or empty.
        name: For people.
        documentation: For people.
        tags: To be found by.
    """

    module_id: str
    address: str
    port: int
    version: str
    module_type: str = ""
    kind: str = ""
    name: str = ""
    documentation: str = ""
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Registered(Facts):
    """A module as it is registered; its id has the prefix.

    Attributes:
        served: It was not deregistered since.
        idle: It has said that it has nothing to do.
        created: When it was registered first.
        updated: When something but a heartbeat came last.
        seen: When it was heard of last.
    """

    served: bool = False
    idle: bool = False
    created: int = 0
    updated: int = 0
    seen: int = 0

    @property
    def place(self) -> str:
        """Where it is served."""
        return f"{self.address}:{self.port}"

    def alive(self, lease: Lease) -> bool:
        """Whether it is served now, as far as is known."""
        return self.served and lease.after < self.seen < lease.before


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which modules are looked for; what is empty or None does not restrict.

    Attributes:
        query: A part of the name or of the id, in any case of letters.
        name: A part of the name, likewise.
        documentation: A part of that, likewise.
        types: One of these types.
        kind: This word of the older registry.
        alive: Those that are served now, or those that are not.
    """

    query: str = ""
    name: str = ""
    documentation: str = ""
    types: Sequence[str] = ()
    kind: str = ""
    alive: bool | None = None


class RegistrationStore:
    """Registered modules in the database.

    Args:
        database: Where they are.
        length: Microseconds of a lease.
    """

    def __init__(self, database: Database, *, length: int) -> None:
        self.database = database
        self._length = length
        self._began: int | None = None
        self._seen_before = 0
        self._beginning = trio.Lock()
        database.declare("registrations", _SCHEMA)

    def __repr__(self) -> str:
        return f"<RegistrationStore in {self.database!r}>"

    async def lease(self, now: int) -> Lease:
        """Who is alive at `now`. To be asked before the first write, since that changes who was alive before."""
        if self._began is None:
            async with self._beginning:
                if self._began is None:
                    self._seen_before = await self.database.read(self.last_seen_work)
                    self._began = now
        after = now - self._length
        if self._began <= now < self._began + self._length:
            after = min(after, self._seen_before - self._length)
        return Lease(after, now + self._length)

    def last_seen_work(self) -> Work[int]:
        """When any module was heard of last; 0 when none ever was."""
        ((seen,),) = (yield Statement(_LAST_SEEN)).rows
        return int(seen)

    # --- writing -----------------------------------------------------------------------------------------------------

    def register_work(self, facts: Facts, *, now: int) -> Work[Registered]:
        """The module is served at this address now."""
        told = (facts.address, facts.port, facts.version, facts.module_type, facts.kind, facts.name)
        values = (*told, facts.documentation, json.dumps(facts.tags), now, now, now)
        rows = (yield Statement(_REGISTER, (bare_module_id(facts.module_id), *values))).rows
        return _registered(rows[0])

    def beat_work(
        self, module_id: str, *, now: int, at: str = "", lease: Lease | None = None
    ) -> Work[Registered | None]:
        """The module is still served; None when it is not registered, or was deregistered.

        Args:
            module_id: The module.
            now: The time.
            at: `place` of the server that says so; empty when it does not tell. Another one than the registered does
                not keep that one alive, and is not registered once that one's lease has run out.
            lease: Who is alive; for `at`.
        """
        if at:
            known = yield from self.get_work(module_id)
            if known is not None and known.served and known.place != at:
                return known if lease is None or known.alive(lease) else None
        return (yield from _one(_BEAT, now, bare_module_id(module_id)))

    def tell_work(self, module_id: str, *, served: bool, idle: bool, now: int) -> Work[bool]:
        """The module says how it is; whether it is known."""
        return _any(_TELL, int(served), int(idle), now, now, bare_module_id(module_id))

    def withdraw_work(self, module_id: str, *, now: int, at: str = "") -> Work[bool]:
        """The module is not served any more, or not at this `place`; whether it is known."""
        if at:
            known = yield from self.get_work(module_id)
            if known is not None and known.place != at:
                return True
        return (yield from _any(_WITHDRAW, now, bare_module_id(module_id)))

    def move_work(
        self, module_id: str, *, from_place: str, place: str, seen: int, now: int, lease: Lease | None = None
    ) -> Work[bool]:
        """The module is served at another place, as nobody serves it at this one any more.

        Args:
            module_id: The module.
            from_place: Where it is registered; when it is not, or was deregistered, nothing is done.
            place: Where it is served.
            seen: When a server there was heard of last.
            now: The time.
            lease: Nothing is done when the module is alive.

        Returns:
            Whether it was done.
        """
        known = yield from self.get_work(module_id)
        if known is None or not known.served or known.place != from_place:
            return False
        if lease is not None and known.alive(lease):
            return False
        address, _, port = place.rpartition(":")
        return (yield from _any(_MOVE, address, int(port), now, seen, bare_module_id(module_id)))

    def runs_out(self, known: Registered) -> int:
        """When the lease of a module runs out, or has run out, unless it is renewed; `lease` was asked before."""
        ends, began = known.seen + self._length, self._began or 0
        return max(ends, began + self._length) if known.seen > self._seen_before - self._length else ends

    # --- reading -----------------------------------------------------------------------------------------------------

    def get_work(self, module_id: str) -> Work[Registered | None]:
        """The module; None when it never was registered."""
        return _one(_GET, bare_module_id(module_id))

    def page_work(self, wanted: Wanted, lease: Lease, *, limit: int, offset: int) -> Work[list[Registered]]:
        """Modules; those that are alive first, otherwise in the order in which they were registered first."""
        where, parameters = _conditions(wanted, lease)
        sql = f"""SELECT {_COLUMNS} FROM registrations WHERE {where}
            ORDER BY CASE WHEN {_ALIVE} THEN 0 ELSE 1 END, place LIMIT ? OFFSET ?"""  # noqa: S608
        result = yield Statement(sql, (*parameters, *lease, limit, offset))
        return [_registered(row) for row in result.rows]


def pattern(part: str) -> str:
    """What makes `lower(column) LIKE ? ESCAPE '!'` true wherever this part is, in any case of the letters of ASCII.

    Of those alone, since SQLite knows no others. The part is made small here: PostgreSQL would do it by the rules of
    some language, as a parameter has no column whose rules it could follow.
    """
    for special in "!%_":
        part = part.replace(special, f"!{special}")
    return f"%{part.translate(_SMALL)}%"


def marks(values: Sequence[object]) -> str:
    """The question marks of `IN (...)`."""
    return ", ".join("?" * len(values))


def _conditions(wanted: Wanted, lease: Lease) -> tuple[str, list[Value]]:
    conditions, parameters = ["1 = 1"], list[Value]()
    texts = {
        f"name || '\n{MODULE_PREFIX}' || id": wanted.query,
        "name": wanted.name,
        "documentation": wanted.documentation,
    }
    for column, part in texts.items():
        if part:
            conditions.append(f"lower({column}) LIKE ? ESCAPE '!'")
            parameters.append(pattern(part))
    if wanted.types:
        conditions.append(f"module_type IN ({marks(wanted.types)})")
        parameters += wanted.types
    if wanted.kind:
        conditions.append("kind = ?")
        parameters.append(wanted.kind)
    if wanted.alive is not None:
        conditions.append(_ALIVE if wanted.alive else f"NOT ({_ALIVE})")
        parameters += lease
    return " AND ".join(conditions), parameters


def _one(sql: str, *parameters: Value) -> Work[Registered | None]:
    result: Result = yield Statement(sql, parameters)
    return _registered(result.rows[0]) if result.rows else None


def _any(sql: str, *parameters: Value) -> Work[bool]:
    return (yield Statement(sql, parameters)).count > 0


def _registered(row: tuple[Any, ...]) -> Registered:
    key, address, port, version, module_type, kind, name, documentation, tags, served, idle, *times = row
    told = (address, port, version, module_type, kind, name, documentation, tuple(json.loads(tags)))
    return Registered(MODULE_PREFIX + key, *told, bool(served), bool(idle), *times)
