"""Servers of one module behind one address, such as the replicas of a deployment behind a name.

The registry has one registration for each module. When one of several replicas leaves, the others still serve, so its
deregistration must not take the module away until their next heartbeats. Who is there is kept in memory: after a
restart of the provider the heartbeats of a few seconds tell it again.
"""

from __future__ import annotations

from typing import Final

SIBLINGS_MAX: Final = 1000
"""Servers that are kept for one module; more than any deployment has."""


class Siblings:
    """Who was heard of, by module and address.

    Args:
        length: Microseconds after which one that was not heard of is gone.
    """

    def __init__(self, *, length: int) -> None:
        self._length = length
        self._seen: dict[tuple[str, str], dict[str, int]] = {}

    def heard(self, module_id: str, place: str, instance: str, now: int) -> None:
        """A server has registered, or sent a heartbeat. One that does not tell its instance is not kept."""
        if not instance:
            return
        seen = self._seen.setdefault((module_id, place), {})
        seen.pop(instance, None)
        seen[instance] = now  # newest last
        if len(seen) > SIBLINGS_MAX:
            del seen[next(iter(seen))]

    def left(self, module_id: str, place: str, instance: str, now: int) -> bool:
        """A server stops. Whether others serve the module at the same address."""
        seen = self._seen.get((module_id, place), {})
        seen.pop(instance, None)
        for other, at in list(seen.items()):
            if at <= now - self._length:
                del seen[other]
        if not seen:
            self._seen.pop((module_id, place), None)
        return bool(seen)
