"""Health checks that come as inputs: `healthcheck_ping`, `healthcheck_services`, `healthcheck_status`.

Every module answers them (reference, 2.15). They are no jobs: they pass no admission, fetch no setup and run no code of
the author's, so that a server which is full, or whose setups are broken, can still say so.

The answer stands where every output does, under `root`, and once more beside it: callers of the existing SDK look for
the fields at the top.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from math import inf
from typing import Any, Final

import trio

from dk_trio.jobs import Jobs
from dk_trio.module import Environment, ModuleDefinition, RequestMetadata, SessionIds
from dk_trio.module._utility import (
    HealthcheckPingOutput,
    HealthcheckServicesOutput,
    HealthcheckStatusOutput,
    HealthState,
    ServiceHealth,
    UtilityProtocol,
)
from dk_trio.services.config import JobServices, probe

PROBE_TIMEOUT: Final = 2.0
"""Seconds for one service to say that it works: below the ten that probes of an orchestrator usually wait."""

# What the existing SDK reports on, whether a module uses it or not.
_ALWAYS_NAMED: Final = ("storage", "cost", "filesystem", "registry", "user_profile")


class HealthChecks:
    """Answers the health checks of one module.

    Args:
        definition: The module.
        jobs: The jobs that are here.
        environment: Where services come from; None: there are none.
        accepting: Whether new jobs are welcome.

    Attributes:
        opened_at: Since when the server answers, on Trio's clock; set by the server.
        standing: What the server itself keeps up, by name, with what is wrong with it, or nothing; set by the server.
        late: The services whose check goes on although its time is over.
    """

    opened_at: float = inf
    standing: Callable[[], Mapping[str, str]] = dict

    def __init__(
        self,
        definition: ModuleDefinition,
        *,
        jobs: Jobs,
        environment: Environment | None,
        accepting: Callable[[], bool],
    ) -> None:
        self._definition = definition
        self._jobs = jobs
        self._environment = environment
        self._accepting = accepting
        self.late: set[str] = set()

    async def answer(
        self,
        protocol: str,
        *,
        ids: SessionIds,
        request_metadata: RequestMetadata,
        received_at: float,
        send: Callable[[dict[str, Any]], Awaitable[None]],
    ) -> None:
        """Answer one check. Returns when nothing of it goes on any more, which may be after the answer.

        Args:
            protocol: One of `UTILITY_PROTOCOLS`.
            ids: Of the request.
            request_metadata: The caller's; services that ask others pass it on.
            received_at: When the request came, on Trio's clock.
            send: Called once with the output, as it goes on the wire.
        """
        output: UtilityProtocol
        if protocol == "healthcheck_ping":
            output = HealthcheckPingOutput(latency_ms=(trio.current_time() - received_at) * 1000)
        elif protocol == "healthcheck_status":
            output = HealthcheckStatusOutput(
                module_name=self._definition.name,
                module_status="RUNNING" if self._accepting() else "STOPPING",
                uptime_seconds=max(0.0, trio.current_time() - self.opened_at),
                active_jobs=sum(session.running for session in self._jobs),
                metadata={**ids.current_ids(), "module_id": self._definition.id},
            )
        else:
            await self._ask_services(ids, request_metadata, send)
            return
        await send(_on_the_wire(output))

    async def _ask_services(
        self, ids: SessionIds, request_metadata: RequestMetadata, send: Callable[[dict[str, Any]], Awaitable[None]]
    ) -> None:
        environment = self._environment
        configured = () if environment is None else environment.config.configured
        rest = [name for name in _ALWAYS_NAMED if name not in configured]
        unknown = [ServiceHealth(name=name, status="unknown", message="not configured") for name in rest]
        standing = [_health(name, trouble) for name, trouble in self.standing().items()]
        if environment is None or not configured:
            await send(_report(standing + unknown))
            return
        services = JobServices(
            config=environment.config,
            shared=environment.shared,
            ids=(ids.mission_id, ids.setup_id, ids.setup_version_id),
            offered={"job_id": ids.job_id, "request_metadata": request_metadata, "cost_limits": ()},
        )
        try:
            async with trio.open_nursery() as nursery:
                found = await probe(services, configured, timeout=PROBE_TIMEOUT, nursery=nursery, late=self.late)
                await send(_report([_health(name, found[name]) for name in configured] + standing + unknown))
        finally:
            with trio.move_on_after(PROBE_TIMEOUT, shield=True):
                await services.close()


def _report(services: list[ServiceHealth]) -> dict[str, Any]:
    return _on_the_wire(HealthcheckServicesOutput(services=services, overall_status=_overall(services)))


def _on_the_wire(output: UtilityProtocol) -> dict[str, Any]:
    root = output.model_dump(mode="json")
    return {"root": root, "annotations": {"role": "system"}, **root}


def _health(name: str, found: str | None) -> ServiceHealth:
    if found is None:
        return ServiceHealth(name=name, status="unknown", message="its strategy has no check_health")
    return ServiceHealth(name=name, status="unhealthy" if found else "healthy", message=found or None)


def _overall(services: list[ServiceHealth]) -> HealthState:
    known = [service.status for service in services if service.status != "unknown"]
    if "unhealthy" not in known:
        return "healthy"
    return "degraded" if "healthy" in known else "unhealthy"
