"""`dk-trio call HOST:PORT --health`: whether a server is to be called now, and why it is not, as one line of JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError

if TYPE_CHECKING:
    from dk_trio import rpc

# What module servers and providers of ours call it, and the server as a whole, which every gRPC server knows.
_NAMES: Final = ("readiness", "")
_CHECK: Final = "/grpc.health.v1.Health/Check"

# Seconds that a health check may take where nobody has said so: a probe of Kubernetes gives 1.
TIMEOUT: Final = 10.0


async def check(channel: rpc.Channel, *, timeout: float | None, metadata: Any) -> dict[str, Any]:
    """The health of a server: `name` of what was asked, its `status`, and `why` it does not serve, if that is told.

    With the metadata `CLOCK` of `dk_trio.rpc.health` also what the server's clock shows.

    Raises:
        GRPCError: It does not answer, or has no health service.
    """
    for name in _NAMES:
        try:
            return await _check(channel, name, timeout=TIMEOUT if timeout is None else timeout, metadata=metadata)
        except GRPCError as error:
            if error.status is not Status.NOT_FOUND or name == _NAMES[-1]:
                raise
    raise AssertionError("unreachable")


async def _check(channel: rpc.Channel, name: str, *, timeout: float, metadata: Any) -> dict[str, Any]:
    from dk_trio.pb.grpc.health.v1 import HealthCheckRequest, HealthCheckResponse
    from dk_trio.rpc.health import CLOCK, WHY

    async with channel.request(
        _CHECK, Cardinality.UNARY_UNARY, HealthCheckRequest, HealthCheckResponse, timeout=timeout, metadata=metadata
    ) as stream:
        await stream.send_message(HealthCheckRequest(service=name), end=True)
        reply = await stream.recv_message()
        told: Any = stream.initial_metadata or {}
    status = "UNKNOWN" if reply is None else reply.status.name
    health = {"name": name, "status": status}
    if why := told.get(WHY):
        health["why"] = unquote(str(why))
    if clock := told.get(CLOCK):
        health[CLOCK] = str(clock)
    return health
