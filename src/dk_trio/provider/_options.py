"""Options of a provider: frozen, keyword-only, every number with its unit and reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, get_args

from dk_trio import chance
from dk_trio.errors import ConfigurationError
from dk_trio.services.stores.database import SETTING

ValidateMode = Literal["strict", "warn", "off"]

_SECONDS: Final = ("lease", "heartbeat_ttl", "key_ttl", "health_interval", "send_timeout")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderOptions:
    """How a provider treats its clients.

    Raises:
        ConfigurationError: A value cannot be used.
    """

    validate: ValidateMode = "warn"
    """What becomes of a request that breaks a rule of the contract: `strict` refuses it, `warn` counts it, logs each
    kind once and serves it, `off` does not look. Clients of the existing SDK break several (wire contract, note 7)."""
    lease: float = 30.0
    """Seconds for which a registration is ACTIVE after RegisterModule or Heartbeat."""
    heartbeat_ttl: float = 60.0
    """Seconds for which the heartbeat of a task is told by ListHeartbeats."""
    key_ttl: float = 24 * 3600.0
    """Seconds for which the reply to a request with an idempotency key is kept: longer than any outage that a client
    sits out."""
    health_interval: float = 5.0
    """Seconds between two looks whether the store can be written; a Kubernetes probe asks every 10."""
    max_concurrent_rpcs: int | None = 10_000
    """RPCs in progress; one more is answered RESOURCE_EXHAUSTED. Held polls count, so this stands above any mesh."""

    send_timeout: float = 60.0
    """Seconds for which a client may take nothing of its reply before the call ends with DEADLINE_EXCEEDED: a reply of
    100 MB waits in memory, and a client without a deadline would let it wait for as long as it is connected."""

    stall_threshold: float = 1.0
    """Seconds for which the event loop may be blocked before the stack that blocks it is logged; 0: it never is."""

    setting: str = SETTING
    """What chooses the directory of the contents of files, as the remedies of errors name it: a variable, or an option
    of a command."""

    now: Callable[[], float] = chance.wall_time
    """The wall clock, in seconds since the epoch: of leases, which go on over a restart, and of dates that are told. A
    test gives one that goes with its virtual time."""

    def __post_init__(self) -> None:
        if self.validate not in get_args(ValidateMode):
            known = ", ".join(get_args(ValidateMode))
            raise ConfigurationError(f"There is no validation {self.validate!r}.", hint=f"Choose one of {known}.")
        for name in _SECONDS:
            value = getattr(self, name)
            if not 0 < value < float("inf"):
                raise ConfigurationError(f"{name} is {value!r}, it must be seconds above 0.")
        if self.max_concurrent_rpcs is not None and self.max_concurrent_rpcs < 1:
            raise ConfigurationError(f"max_concurrent_rpcs is {self.max_concurrent_rpcs}, it must be at least 1.")
