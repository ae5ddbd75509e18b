"""The protocols that every module answers, beside its author's: is it there, do its services work, what is it doing.

A health check is no job: it needs neither a slot nor a setup nor the author's `initialize`, so it answers also when
the server is full and when the setup is broken (the existing SDK runs a whole job for it, reference 2.15).
"""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import BaseModel, Field

from ._models import DataTrigger

HealthState = Literal["healthy", "degraded", "unhealthy", "unknown"]


class UtilityProtocol(DataTrigger):
    """A root that every module knows: its author neither declares nor handles it."""


class HealthcheckPingInput(UtilityProtocol):
    """Is the module there?"""

    protocol: Literal["healthcheck_ping"] = "healthcheck_ping"


class HealthcheckServicesInput(UtilityProtocol):
    """Do the services work that the module's jobs use?"""

    protocol: Literal["healthcheck_services"] = "healthcheck_services"


class HealthcheckStatusInput(UtilityProtocol):
    """What is the module doing?"""

    protocol: Literal["healthcheck_status"] = "healthcheck_status"


class HealthcheckPingOutput(UtilityProtocol):
    """The module is there."""

    protocol: Literal["healthcheck_ping"] = "healthcheck_ping"
    status: Literal["pong"] = "pong"
    latency_ms: float = Field(default=0.0, ge=0, description="Milliseconds from the request's arrival to this answer.")


class ServiceHealth(BaseModel):
    """What the probe of one service has found."""

    name: str
    status: HealthState
    message: str | None = None


class HealthcheckServicesOutput(UtilityProtocol):
    """Each service was probed, with a deadline."""

    protocol: Literal["healthcheck_services"] = "healthcheck_services"
    services: list[ServiceHealth] = Field(default_factory=list)
    overall_status: HealthState = "healthy"


class HealthcheckStatusOutput(UtilityProtocol):
    """What the module is doing, counted now."""

    protocol: Literal["healthcheck_status"] = "healthcheck_status"
    module_name: str
    module_status: str
    uptime_seconds: float = Field(ge=0, description="Seconds since the server was opened.")
    active_jobs: int = Field(ge=0, description="Jobs whose code runs now.")
    metadata: dict[str, Any] = Field(default_factory=dict)


UTILITY_INPUTS: Final = (HealthcheckPingInput, HealthcheckServicesInput, HealthcheckStatusInput)
UTILITY_OUTPUTS: Final = (HealthcheckPingOutput, HealthcheckServicesOutput, HealthcheckStatusOutput)
UTILITY_PROTOCOLS: Final[frozenset[str]] = frozenset(
    str(model.model_fields["protocol"].default) for model in UTILITY_INPUTS
)
