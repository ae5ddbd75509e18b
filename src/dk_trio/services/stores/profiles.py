"""Profiles of users by mission, for all jobs of a server."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from dk_trio.errors import StorageServiceError, UserProfileServiceError, Violation

if TYPE_CHECKING:
    from dk_trio.services.stores.database import Database

SCHEMA: Final = ("CREATE TABLE profiles (mission TEXT PRIMARY KEY, profile TEXT NOT NULL)",)


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
        database.declare("profiles", SCHEMA)

    async def put(self, mission_id: str, profile: Mapping[str, Any]) -> None:
        """Keep a profile, instead of the one that was there.

        Raises:
            UserProfileServiceError: It is not JSON, or cannot be written.
        """
        try:
            text = json.dumps(profile, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            rule = f"a profile is a dict of JSON values: {error}"
            raise UserProfileServiceError(f"{rule}.", violations=[Violation("profile", rule)]) from None
        query = "INSERT OR REPLACE INTO profiles (mission, profile) VALUES (?, ?)"
        try:
            await self._database.write(lambda connection: connection.execute(query, (bare(mission_id), text)))
        except StorageServiceError as error:
            raise UserProfileServiceError(error.message, hint=error.hint) from error

    async def get(self, mission_id: str) -> dict[str, Any] | None:
        """The profile of a mission, or None.

        Raises:
            UserProfileServiceError: It cannot be read.
        """
        query = "SELECT profile FROM profiles WHERE mission = ?"
        try:
            row = await self._database.read(
                lambda connection: connection.execute(query, (bare(mission_id),)).fetchone()
            )
        except StorageServiceError as error:
            raise UserProfileServiceError(error.message, hint=error.hint) from error
        return None if row is None else json.loads(row[0])
