"""What the two registries have in common: the same registrations, whose leases run on the same clock."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from dk_trio.errors import RegistryModuleNotFoundError, Violation
from dk_trio.extensions import INSTANCE, SERVED_AT

from ._base import Servicer, refused, text

if TYPE_CHECKING:
    from dk_trio.services.stores.registrations import Facts, Lease, Registered

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
