"""Requests that are applied once, however often they come: the reply of a work is kept under the request's key.

Reply and work are one transaction: there is no moment in which one is durable without the other, so a caller who lost
the answer, or the server, can ask again without a second effect. What failed has written nothing and keeps nothing:
it is tried again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from typing import Final

import trio

from dk_trio import chance
from dk_trio.errors import IdempotencyError, Violation

from .database import Database
from .work import Statement, T, Work

# Append only, see `Database.declare`.
_SCHEMA: Final = (
    """CREATE TABLE idempotency_keys (
        key TEXT PRIMARY KEY,
        method TEXT NOT NULL,
        request TEXT NOT NULL,
        reply BYTEA NOT NULL,
        created BIGINT NOT NULL
    )""",
    "CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created)",
)
_GET: Final = "SELECT method, request, reply FROM idempotency_keys WHERE key = ?"
_KEEP: Final = "INSERT INTO idempotency_keys (key, method, request, reply, created) VALUES (?, ?, ?, ?, ?)"
_PURGE: Final = """DELETE FROM idempotency_keys WHERE key IN
    (SELECT key FROM idempotency_keys WHERE created < ? ORDER BY created LIMIT ?)"""

TTL: Final = 24 * 3600.0
"""Seconds for which a reply is kept: far longer than any caller tries again."""

# Seconds between two looks for old keys.
_PURGE_EVERY: Final = 600.0

# Keys that one transaction purges: a few milliseconds for those who write meanwhile.
_PURGE_STEP: Final = 1000


class Once:
    """Runs a work once for each key.

    Args:
        database: Where keys and replies are kept.
        ttl: Seconds for which they are.
        now: The time, in seconds since the epoch.
    """

    def __init__(self, database: Database, *, ttl: float = TTL, now: Callable[[], float] = chance.wall_time) -> None:
        self._database = database
        self._ttl = ttl
        self._now = now
        database.declare("idempotency_keys", _SCHEMA)

    def __repr__(self) -> str:
        return f"<Once in {self._database!r}>"

    def __call__(
        self,
        key: str,
        method: str,
        request: bytes,
        work: Callable[[], Work[T]],
        dump: Callable[[T], bytes],
        load: Callable[[bytes], T],
    ) -> Work[T]:
        """What `work` returns; for a key that is known what it has returned then, without `work`.

        Args:
            key: Stands for the request, such as a uuid that its sender has made. Empty: `work` runs, nothing is kept.
            method: What is asked, such as the path of an RPC.
            request: The request in a form that is the same each time.
            work: Makes the unit of work.
            dump: The bytes of what it returns.
            load: The opposite.

        Raises:
            IdempotencyError: The key stands for another method or another request.
            Exception: What `work` raises; nothing is kept.
        """
        if not key:
            return (yield from work())
        digest = hashlib.sha256(request).hexdigest()
        known = (yield Statement(_GET, (key,))).rows
        if known:
            kept_method, kept_digest, reply = known[0]
            if (kept_method, kept_digest) != (method, digest):
                which = f"for {kept_method}" if kept_method != method else "with other content"
                rule = f"the key {key!r} stands for a request that came before, {which}"
                raise IdempotencyError(
                    f"The idempotency key of this {method} was used already: {rule}.",
                    hint="Nothing was done. Make a new key for each request; send it again only with the same one.",
                    violations=[Violation("idempotency_key", rule)],
                )
            return load(bytes(reply))
        value = yield from work()
        yield Statement(_KEEP, (key, method, digest, dump(value), self._microseconds()))
        return value

    async def run(self) -> None:
        """Purge old keys now and then, until cancelled."""
        while True:
            await trio.sleep(_PURGE_EVERY)
            await self.purge()

    async def purge(self) -> int:
        """Forget the keys that are older than `ttl`; how many that were."""
        purged = 0
        while step := await self._database.write(partial(self._purge, self._microseconds(-self._ttl))):
            purged += step
        return purged

    def _purge(self, before: int) -> Work[int]:
        return (yield Statement(_PURGE, (before, _PURGE_STEP))).count

    def _microseconds(self, shift: float = 0.0) -> int:
        return round((self._now() + shift) * 1_000_000)
