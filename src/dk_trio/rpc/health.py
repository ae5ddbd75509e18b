"""The health service of gRPC (grpc.health.v1): is the server, or one of its services, to be called now?

State is one flag for each name. `Check` reads it; `Watch` sends it, and sends it again when it has changed. A watcher
compares what it sent last with what holds now, and sleeps only when they agree: so it cannot lose a change or repeat a
state, and a slow one skips what has become history. It queues nothing, and nobody polls.

A `Watch` has no end of its own, so a drain, which waits for RPCs to end, has to end it. `Server.drain` therefore calls
`__drain__` of every service that has it, and `Health` shuts down: all names become NOT_SERVING for good, watchers are
told, and their calls end with UNAVAILABLE, upon which clients turn to another server.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import trio
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError

from dk_trio import chance

if TYPE_CHECKING:
    from dk_trio.pb.grpc.health.v1 import HealthCheckResponse, HealthCheckResponseServingStatus

FAREWELL: Final = 1.0
"""Seconds that a watcher has to take the last state when the service shuts down: one round trip, with room."""

WHY: Final = "health-why"
"""Initial metadata of a Check whose answer is NOT_SERVING, where somebody has said why: text, percent-encoded."""

CLOCK: Final = "health-clock"
"""Metadata of a Check by which it asks for the server's clock: the initial metadata of the answer have it, in seconds
since the epoch. So `dk-trio doctor` finds clocks that differ."""

LIVENESS: Final = "liveness"
"""Name that serves for as long as the process runs, whatever it can do."""

READINESS: Final = "readiness"
"""Name that serves while new work is welcome: not before a start is complete, not in a drain."""

_SERVICE: Final = "/grpc.health.v1.Health/"


@dataclass(frozen=True, slots=True)
class HealthStatistics:
    """A snapshot of a `Health`."""

    services: Mapping[str, bool]
    """Name -> whether it serves. The empty name is the server as a whole."""
    watchers: int
    """Watch calls in progress."""
    shut_down: bool


class Health:
    """A service object that answers health checks; give it to one `Server`, beside the services it speaks of.

    The empty name, the server as a whole, serves from the beginning, as in gRPC's own implementations. Other names are
    yours: full service names, or agreed ones such as "readiness". Call its methods from the thread that runs Trio.
    """

    def __init__(self) -> None:
        self._serving: dict[str, bool] = {"": True}
        self._reasons: dict[str, str] = {}
        self._watchers: dict[str, dict[_Watcher, None]] = {}
        self._shut_down = False

    def __repr__(self) -> str:
        names = ", ".join(f"{name!r} {'serves' if on else 'does not'}" for name, on in self._serving.items())
        return f"<rpc.Health {'shut down, ' if self._shut_down else ''}{names or 'nothing known'}>"

    def statistics(self) -> HealthStatistics:
        """What is known and watched now."""
        watchers = sum(map(len, self._watchers.values()))
        return HealthStatistics(MappingProxyType(dict(self._serving)), watchers, self._shut_down)

    def set(self, service: str, serving: bool, *, why: str = "") -> None:
        """Say whether `service` serves; watchers learn it if it is news. Ignored after `shutdown`.

        Args:
            service: Its name.
            serving: Whether it is to be called.
            why: Why it is not, for people who ask with Check.
        """
        if self._shut_down:
            return
        self._reasons[service] = "" if serving else why
        if self._serving.get(service) is serving:
            return
        self._serving[service] = serving
        self._wake(service)

    def clear(self, service: str) -> None:
        """Forget `service`: Check fails with NOT_FOUND, watchers are told SERVICE_UNKNOWN. Ignored after `shutdown`."""
        if not self._shut_down and self._serving.pop(service, None) is not None:
            self._wake(service)

    def shutdown(self) -> None:
        """All services are NOT_SERVING from now on, and every Watch ends with UNAVAILABLE once it has told so.

        A watcher that does not read is cut off after `FAREWELL` seconds. `Server.drain` calls this.
        """
        if self._shut_down:
            return
        self._shut_down = True
        self._serving = dict.fromkeys(self._serving, False)
        for service, watchers in self._watchers.items():
            for watcher in watchers:
                watcher.leave_within(FAREWELL)
            self._wake(service)

    def __drain__(self) -> None:
        """The server is being drained."""
        self.shutdown()

    def __vital__(self) -> Iterable[str]:
        """A server that is full is not dead: whoever asks gets an answer."""
        return self.__mapping__()

    def __mapping__(self) -> dict[str, Handler]:
        """Path -> handler."""
        from dk_trio.pb.grpc.health.v1 import HealthCheckRequest, HealthCheckResponse

        return {
            f"{_SERVICE}Check": Handler(self._check, Cardinality.UNARY_UNARY, HealthCheckRequest, HealthCheckResponse),
            f"{_SERVICE}Watch": Handler(self._watch, Cardinality.UNARY_STREAM, HealthCheckRequest, HealthCheckResponse),
        }

    def _wake(self, service: str) -> None:
        for watcher in self._watchers.get(service, ()):
            watcher.changed.set()

    def _status(self, service: str) -> HealthCheckResponseServingStatus:
        from dk_trio.pb.grpc.health.v1 import HealthCheckResponseServingStatus as ServingStatus

        serving = self._serving.get(service)
        if serving is None:
            return ServingStatus.SERVICE_UNKNOWN
        return ServingStatus.SERVING if serving else ServingStatus.NOT_SERVING

    async def _check(self, call: Any) -> None:
        service = await _service_asked_for(call)
        if service not in self._serving:
            raise GRPCError(Status.NOT_FOUND, f"the health of service {service!r} is not known here")
        why = "the server is shutting down" if self._shut_down else self._reasons.get(service)
        metadata = {WHY: quote(why, safe=" ,;:!()[]'/=-")} if why else {}
        if CLOCK in call.metadata:
            metadata[CLOCK] = f"{chance.wall_time():.6f}"
        if metadata:
            await call.send_initial_metadata(metadata=metadata)
        await call.send_message(_response(self._status(service)))

    async def _watch(self, call: Any) -> None:
        service = await _service_asked_for(call)
        watcher = _Watcher()
        if self._shut_down:
            watcher.leave_within(FAREWELL)
        watchers = self._watchers.setdefault(service, {})
        watchers[watcher] = None
        try:
            with watcher.scope:
                await self._tell(call, service, watcher)
        finally:
            del watchers[watcher]
            if not watchers:
                del self._watchers[service]
        raise GRPCError(Status.UNAVAILABLE, "the server is shutting down")

    async def _tell(self, call: Any, service: str, watcher: _Watcher) -> None:
        """Send the state, and every change of it; return after the last state when shut down."""
        told = None
        while True:
            watcher.changed = trio.Event()
            status = self._status(service)
            if status is not told:
                await call.send_message(_response(status))
                told = status
            elif self._shut_down:
                return
            else:
                await watcher.changed.wait()


class _Watcher:
    """One Watch call."""

    __slots__ = ("changed", "scope")

    def __init__(self) -> None:
        self.changed = trio.Event()
        self.scope = trio.CancelScope()

    def leave_within(self, seconds: float) -> None:
        self.scope.deadline = trio.current_time() + seconds


async def _service_asked_for(call: Any) -> str:
    request = await call.recv_message()
    service: str = request.service
    return service


def _response(status: HealthCheckResponseServingStatus) -> HealthCheckResponse:
    from dk_trio.pb.grpc.health.v1 import HealthCheckResponse

    return HealthCheckResponse(status=status)
