"""Profiles of users by mission, for all jobs of a server."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from dk_trio.errors import StorageServiceError, UserProfileServiceError, Violation

from .database import Database
from .work import Statement, Work

# Append only, see `Database.declare`.
_SCHEMA: Final = ("CREATE TABLE profiles (mission TEXT PRIMARY KEY, profile TEXT NOT NULL)",)
_PUT: Final = """INSERT INTO profiles (mission, profile) VALUES (?, ?)
    ON CONFLICT (mission) DO UPDATE SET profile = excluded.profile"""
_GET: Final = "SELECT profile FROM profiles WHERE mission = ?"


def bare(mission_id: str) -> str:
    """The id without its prefix: both forms mean the same mission."""
    return mission_id.removeprefix("missions:")


class ProfileStore:
    """Profiles in the database.

    Args:
        database: Where they are.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        database.declare("profiles", _SCHEMA)

    async def put(self, mission_id: str, profile: Mapping[str, Any]) -> None:
        """Keep a profile, instead of the one that was there.

        Raises:
            UserProfileServiceError: It is not JSON, or cannot be written.
        """
        try:
            await self._database.write(partial(self.put_work, mission_id, profile))
        except StorageServiceError as error:
            raise UserProfileServiceError(error.message, hint=error.hint) from error

    def put_work(self, mission_id: str, profile: Mapping[str, Any]) -> Work[None]:
        """`put`, as a part of a larger work."""
        try:
            text = json.dumps(profile, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            rule = f"a profile is a dict of JSON values: {error}"
            raise UserProfileServiceError(f"{rule}.", violations=[Violation("profile", rule)]) from None
        yield Statement(_PUT, (bare(mission_id), text))

    async def get(self, mission_id: str) -> dict[str, Any] | None:
        """The profile of a mission, or None.

        Raises:
            UserProfileServiceError: It cannot be read.
        """
        try:
            return await self._database.read(partial(self.get_work, mission_id))
        except StorageServiceError as error:
            raise UserProfileServiceError(error.message, hint=error.hint) from error

    def get_work(self, mission_id: str) -> Work[dict[str, Any] | None]:
        """`get`, as a part of a larger work."""
        rows = (yield Statement(_GET, (bare(mission_id),))).rows
        return json.loads(rows[0][0]) if rows else None
