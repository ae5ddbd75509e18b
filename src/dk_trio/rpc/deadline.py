"""A deadline on Trio's clock, where generated code and grpclib's interfaces expect grpclib's."""

from __future__ import annotations

import trio
from grpclib.metadata import Deadline as GrpclibDeadline


class Deadline(GrpclibDeadline):
    """A point in time on `trio.current_time`'s clock, so it also holds in virtual time.

    grpclib's own reads the real clock. Make one with `Deadline.at` or `Deadline.from_timeout`; compare only with its
    own kind.
    """

    @classmethod
    def at(cls, when: float) -> Deadline:
        """The deadline `when`, in seconds of `trio.current_time`."""
        return cls(_timestamp=when)

    @classmethod
    def from_timeout(cls, timeout: float) -> Deadline:
        """The deadline `timeout` seconds from now."""
        return cls(_timestamp=trio.current_time() + timeout)

    @property
    def when(self) -> float:
        """The point in time, in seconds of `trio.current_time`."""
        return self._timestamp

    def time_remaining(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self._timestamp - trio.current_time())

    def __repr__(self) -> str:
        return f"<Deadline at {self._timestamp:.3f}>"
