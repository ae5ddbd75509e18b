"""What the two registries have in common: the same registrations, whose leases run on the same clock."""

from __future__ import annotations

import logging
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from dk_trio.errors import RegistryModuleNotFoundError, RequestError, Violation
from dk_trio.extensions import INSTANCE, SERVED_AT
from dk_trio.services.registry import bare_module_id
from dk_trio.services.stores.registrations import Facts

from ._base import Servicer, refused, text

if TYPE_CHECKING:
    from dk_trio.services.stores.registrations import Lease, Registered
    from dk_trio.services.stores.work import Work

    from ._siblings import Heir

_log = logging.getLogger("dk_trio.provider")

PORT_MAX = 65535


class ModulesServicer(Servicer):
    """Base of the servicers of both."""

    async def _lease(self) -> Lease:
        return await self._stores.registrations.lease(self._now())

    @property
    def _served_at(self) -> str:
        """Which server of a module speaks; empty when it does not tell."""
        told = self._call.metadata.get(SERVED_AT, b"")
        return told.decode(errors="replace") if isinstance(told, bytes) else ""

    @property
    def _instance(self) -> str:
        """Which one of several at one address; empty when it does not tell."""
        return self._call.text(INSTANCE)

    def _heard(self, module_id: str, place: str) -> None:
        """The server that speaks is there, and lives."""
        address, _, port = place.rpartition(":")
        with suppress(RequestError):  # of a place that nobody can register, and so hand over to
            checked(Facts(module_id, address, int(port) if port.isascii() and port.isdigit() else -1, ""))
            self._stores.siblings.heard(bare_module_id(module_id), place, self._instance, self._call.peer)

    def _move_work(self, module_id: str, place: str, heir: Heir, *, now: int, lease: Lease | None = None) -> Work[bool]:
        move = self._stores.registrations.move_work
        return move(module_id, from_place=place, place=heir.place, seen=heir.heard, now=now, lease=lease)

    def _moved(self, module_id: str, place: str, heir: Heir, why: str) -> None:
        """The module was handed over."""
        self._stores.siblings.handed(bare_module_id(module_id), heir.place)
        _log.info("%s %s at %s and is found at %s now", module_id, why, place, heir.place)

    async def _module(self, module_id: str) -> Registered:
        text(module_id, "module_id")
        found = await self._stores.database.read(partial(self._stores.registrations.get_work, module_id))
        if found is None:
            raise module_not_found(module_id)
        return found


def module_not_found(module_id: str) -> RegistryModuleNotFoundError:
    """The error for a module that is not registered, or not any more."""
    rule = f"no module has the id {module_id!r}"
    return RegistryModuleNotFoundError(
        f"N{rule[1:]}, or it was deregistered.",
        hint="Its server has to register it.",
        violations=[Violation("module_id", rule)],
    )


def checked(facts: Facts) -> Facts:
    """A registration that others can make use of.

    Raises:
        RequestError: A part of it is missing, too long, or no port.
    """
    text(facts.module_id, "module_id")
    text(facts.address, "address")
    text(facts.version, "version", empty=True)
    # A Unix socket has no port; nor has it one in `services.registry.target_of`.
    if not 0 < facts.port <= PORT_MAX and not (facts.port == 0 and facts.address.startswith("unix:")):
        raise refused("port", f"is {facts.port}, it must be from 1 to {PORT_MAX}")
    return facts


def page(limit: int, offset: int, *, most: int, name: str = "limit") -> tuple[int, int]:
    """Limit and offset as they are meant: 0 is what nobody has said, and as many as there may be.

    Raises:
        RequestError: One of them is negative.
    """
    for field, value in ((name, limit), ("offset", offset)):
        if value < 0:
            raise refused(field, f"is {value}, it must not be negative")
    return min(limit or most, most), offset
