"""The provider as a server: health, validation, what goes on around each call."""

from typing import Any

from dk_trio.pb.grpc.health.v1 import HealthCheckRequest, HealthCheckResponseServingStatus, HealthStub

from .kit import provided

SERVING = HealthCheckResponseServingStatus.SERVING


async def test_a_provider_that_is_open_is_ready(autojump_clock: Any) -> None:
    async with provided() as peer:
        for name in ("", "liveness", "readiness"):
            response = await HealthStub(peer.channel).check(HealthCheckRequest(service=name))
            assert response.status is SERVING, name
        assert peer.provider.statistics().ready
