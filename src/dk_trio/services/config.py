"""From a module's class attributes to the services of a job.

`ServicesConfig` is made once for a module, and finds at start what could only fail later: an unknown service, a
parameter that no class takes, one that is missing. `JobServices` belongs to one job. It makes a strategy when the job
first asks for it, because most jobs use few of the ten, and closes those that it has made.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

import trio

from dk_trio.boundary import contained, explain_failure
from dk_trio.errors import DkTrioError, ModuleDefinitionError, ServiceError

from .strategy import ServicesMode, ServicesStrategy

if TYPE_CHECKING:
    from dk_trio.services.channels import ChannelCache
    from dk_trio.services.local.platform import LocalPlatform
    from dk_trio.services.provider_clients import ProviderClients

_log = logging.getLogger("dk_trio.services")

SERVICES: Final = (
    "communication",
    "cost",
    "storage",
    "registry",
    "filesystem",
    "user_profile",
    "agent",
    "identity",
    "snapshot",
)

# Used by the server, and not in a context.
OF_THE_SERVER: Final = ("setup",)

# Loaded when a job first uses one: a module without storage does not pay for SQLite.
_LOCAL: Final = {
    "agent": "local.agent:DefaultAgent",
    "communication": "local.communication:DefaultCommunication",
    "cost": "local.cost:DefaultCost",
    "filesystem": "local.filesystem:DefaultFilesystem",
    "identity": "local.identity:DefaultIdentity",
    "registry": "local.registry:DefaultRegistry",
    "setup": "local.setup_service:DefaultSetup",
    "snapshot": "local.snapshot:DefaultSnapshot",
    "storage": "local.storage:DefaultStorage",
    "user_profile": "local.user_profile:DefaultUserProfile",
}
_REMOTE: Final = {
    # These have no service in the contract: what they keep is this process's in both modes.
    **{name: _LOCAL[name] for name in ("agent", "identity", "snapshot")},
    "communication": "remote.communication:GrpcCommunication",
    "cost": "remote.cost:GrpcCost",
    "filesystem": "remote.filesystem:GrpcFilesystem",
    "registry": "remote.registry:GrpcRegistry",
    "setup": "remote.setup:GrpcSetup",
    "storage": "remote.storage:GrpcStorage",
    "user_profile": "remote.user_profile:GrpcUserProfile",
}

# What a server adds to a module's parameters, by the name of the constructor's parameter.
_OFFERED: Final = frozenset({"platform", "channels", "providers", "job_id", "request_metadata", "cost_limits"})
# What the existing SDK's remote strategies take, and a module's one dict for both modes has.
_REMOTE_ONLY: Final = frozenset({"client_config"})
_REHEARSAL: Final = ("missions:start", "setups:start", "setup_versions:start")
_IDS: Final = ("mission_id", "setup_id", "setup_version_id")

WRAP: Final[ContextVar[Callable[[str, Any], Any] | None]] = ContextVar("dk_trio_wrap_strategy", default=None)
"""What is put around the strategies of jobs in this context, by the name of their service and themselves; None:
nothing. For those who look at calls of services."""

# Seconds that a check which is cancelled has to end.
_PROMPT: Final = 0.5

_PARAMETERS_ONLY = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedServices:
    """What the services of all jobs of a server share.

    Attributes:
        platform: The state of the local strategies.
        channels: Channels to other modules.
        providers: Calls to services-providers; None in local mode.
    """

    platform: LocalPlatform
    channels: ChannelCache
    providers: ProviderClients | None = None

    def offered(self) -> dict[str, Any]:
        """What constructors of strategies may ask for, by parameter name."""
        offered: dict[str, Any] = {"platform": self.platform, "channels": self.channels}
        if self.providers is not None:
            offered["providers"] = self.providers
        return offered


@dataclass(frozen=True, slots=True, eq=False)
class _Constructor:
    """A strategy's class and what can be passed to it."""

    cls: type
    names: frozenset[str]
    required: frozenset[str]
    takes_any: bool

    @classmethod
    def of(cls, strategy: type) -> _Constructor:
        parameters = [*inspect.signature(strategy).parameters.values()]
        named = [row for row in parameters if row.kind in _PARAMETERS_ONLY and row.name not in _IDS]
        return cls(
            strategy,
            names=frozenset(row.name for row in named),
            required=frozenset(row.name for row in named if row.default is row.empty),
            takes_any=any(row.kind is row.VAR_KEYWORD for row in parameters),
        )

    def takes(self, name: str) -> bool:
        return name in self.names or self.takes_any


class ServicesConfig:
    """Which classes stand behind the services of a module, and their parameters.

    Args:
        strategies: The module's own pairs by service; None for a service stands for the default.
        params: Parameters by service; each is passed to the class that takes it.
        mode: Local or remote.
        owner: The module's name, for errors.

    Raises:
        ModuleDefinitionError: An unknown service, a parameter that neither class takes, or a class that cannot be
            called with three ids.
    """

    def __init__(
        self,
        strategies: Mapping[str, ServicesStrategy | None] | None = None,
        params: Mapping[str, Mapping[str, Any] | None] | None = None,
        *,
        mode: ServicesMode = ServicesMode.LOCAL,
        owner: str = "the module",
    ) -> None:
        self.mode = mode
        self._owner = owner
        self._strategies = {name: pair for name, pair in (strategies or {}).items() if pair is not None}
        self._params = {name: dict(values) for name, values in (params or {}).items() if values is not None}
        self._constructors: dict[str, _Constructor] = {}
        for name in {**self._strategies, **self._params}:
            self._check(name)

    def __repr__(self) -> str:
        return f"<ServicesConfig of {self._owner}, {self.mode}, {', '.join(sorted(self._params)) or 'no parameters'}>"

    @property
    def configured(self) -> tuple[str, ...]:
        """The services that the module has given parameters or strategies for."""
        return tuple(name for name in SERVICES if name in self._params or name in self._strategies)

    def params(self, name: str) -> Mapping[str, Any]:
        """The module's parameters of a service; empty without any."""
        return self._params.get(name, {})

    def has(self, name: str) -> bool:
        """Whether a service has a strategy in this mode."""
        return self.mode in self._classes(name)

    def make(self, name: str, ids: tuple[str, str, str], offered: Mapping[str, Any]) -> Any:
        """A strategy for one job.

        Args:
            name: Of the service.
            ids: Mission, setup and setup version.
            offered: What the server adds, by parameter name; ignored where the constructor does not have the name.

        Raises:
            ServiceError: The service lacks parameters.
        """
        constructor = self._constructor(name)
        own = {key: value for key, value in self.params(name).items() if constructor.takes(key)}
        given = own | {key: offered[key] for key in constructor.names & offered.keys() if key not in own}
        missing = constructor.required - given.keys()
        if missing:
            raise ServiceError(
                f"{self._owner} uses {name}, but {constructor.cls.__name__} has no {' and no '.join(sorted(missing))}.",
                hint=f'Give it in services_config_params = {{"{name}": {{"{min(missing)}": ...}}}}.',
            )
        return constructor.cls(*ids, **given)

    def rehearse(self, offered: Mapping[str, Any]) -> frozenset[str]:
        """Make our own strategies once, as a job would: what is wrong with a parameter shows when the server starts.

        An author's own class is not called, since nobody knows what it does when it is made.

        Args:
            offered: What the server adds, by parameter name.

        Returns:
            The services whose strategies were made.

        Raises:
            ModuleDefinitionError: Names the service, and what is wrong with its parameters.
        """
        made = set()
        for name in self._params:
            if self._constructor(name).cls.__module__.partition(".")[0] != __name__.partition(".")[0]:
                continue
            try:
                self.make(name, _REHEARSAL, offered)
                made.add(name)
            except Exception as error:  # boundary: an author's dict, whatever it leads to is told at the start
                text = error.text if isinstance(error, DkTrioError) else explain_failure(error)
                raise ModuleDefinitionError(
                    f"services_config_params[{name!r}] of {self._owner} cannot be used: {text}"
                ) from error
        return frozenset(made)

    def _constructor(self, name: str) -> _Constructor:
        known = self._constructors.get(name)
        if known is None:
            known = self._constructors[name] = _Constructor.of(self._classes(name)[self.mode])
        return known

    def _classes(self, name: str) -> dict[ServicesMode, type]:
        """The classes by mode: the module's own, and the defaults where its pair has none."""
        pair = self._strategies.get(name, ServicesStrategy())
        return {
            ServicesMode.LOCAL: pair.local or _load(_LOCAL[name]),
            ServicesMode.REMOTE: pair.remote or _load(_REMOTE[name]),
        }

    def _check(self, name: str) -> None:
        if name not in SERVICES + OF_THE_SERVER:
            raise ModuleDefinitionError(
                f"{self._owner} configures a service {name!r}, which does not exist.",
                hint=f"The services are {', '.join(sorted(SERVICES + OF_THE_SERVER))}.",
            )
        pair = self._strategies.get(name)
        if pair is not None and not isinstance(pair, ServicesStrategy):
            raise ModuleDefinitionError(
                f"services_config_strategies[{name!r}] of {self._owner} is {pair!r:.80}.",
                hint="Give ServicesStrategy(local=MyClass, remote=MyOtherClass).",
            )
        constructors = {mode: self._checked(name, cls) for mode, cls in self._classes(name).items()}
        params = self.params(name)
        for key in params.keys() - _REMOTE_ONLY:
            if not any(constructor.takes(key) for constructor in constructors.values()):
                classes = " and ".join(constructor.cls.__name__ for constructor in constructors.values())
                takes = "do" if len(constructors) > 1 else "does"
                names = sorted(frozenset().union(*(row.names for row in constructors.values())) - _OFFERED)
                raise ModuleDefinitionError(
                    f"services_config_params[{name!r}] of {self._owner} has {key!r}, which {classes} {takes} not take.",
                    hint=f"It takes {', '.join(names) or 'nothing'}.",
                )
        constructor = constructors[self.mode]
        missing = constructor.required - params.keys() - _OFFERED
        if missing:
            raise ModuleDefinitionError(
                f"services_config_params[{name!r}] of {self._owner} lacks {', '.join(sorted(missing))}, which "
                f"{constructor.cls.__name__} needs.",
            )
        self._constructors[name] = constructor

    def _checked(self, name: str, cls: Any) -> _Constructor:
        if not isinstance(cls, type):
            raise ModuleDefinitionError(
                f"The strategy for {name} of {self._owner} is {cls!r:.80}, which is not a class.",
                hint="A strategy is a class with the methods of the service's Protocol.",
            )
        try:
            inspect.signature(cls).bind_partial("mission", "setup", "setup version")
        except TypeError:
            raise ModuleDefinitionError(
                f"The strategy {cls.__qualname__} of {self._owner} cannot be called with three ids.",
                hint="Derive it from BaseStrategy, or take (mission_id, setup_id, setup_version_id, ...).",
            ) from None
        return _Constructor.of(cls)


@dataclass(slots=True, eq=False, kw_only=True)
class JobServices:
    """The services of one job, each made when it is first used.

    Attributes:
        config: The module's.
        shared: What outlives the job.
        ids: Mission, setup and setup version.
        offered: More of what a constructor may ask for: `job_id`, `request_metadata`, `cost_limits`.
    """

    config: ServicesConfig
    shared: SharedServices
    ids: tuple[str, str, str]
    offered: Mapping[str, Any]
    _made: dict[str, Any] = field(default_factory=dict)
    _flushes: dict[object, Callable[[], Awaitable[None]]] = field(default_factory=dict)

    @property
    def used(self) -> bool:
        """Whether there is anything to close."""
        return bool(self._made or self._flushes)

    def get(self, name: str) -> Any:
        """The job's strategy for a service.

        Raises:
            ServiceError: The service lacks parameters.
        """
        strategy = self._made.get(name)
        if strategy is None:
            strategy = self.config.make(name, self.ids, {**self.shared.offered(), **self.offered})
            wrap = WRAP.get()
            if wrap is not None:
                strategy = wrap(name, strategy)
            self._made[name] = strategy
        return strategy

    def at_end(self, key: object, flush: Callable[[], Awaitable[None]]) -> None:
        """Call `flush` once when the job ends; a key that is known already changes nothing."""
        self._flushes.setdefault(key, flush)

    async def flush(self) -> None:
        """Write what waits to be written, all at the same time: one that hangs takes nobody's turn.

        Call it in a scope with a deadline.

        Raises:
            BaseException: What a flush has raised, in a group when there are several: data that is lost.
        """
        failures: list[BaseException] = []

        async def write(key: object, flush: Callable[[], Awaitable[None]]) -> None:
            failure = await contained(flush, name=f"flush of {key!r}")
            if failure is not None:
                failures.append(failure)

        while self._flushes:  # one may register another
            flushes = {**self._flushes}
            self._flushes.clear()
            async with trio.open_nursery() as nursery:
                for key, flush in flushes.items():
                    nursery.start_soon(write, key, flush)
        if failures:
            raise failures[0] if len(failures) == 1 else BaseExceptionGroup("at the end of the job", failures)

    async def close(self) -> None:
        """Close the strategies, each in a task of its own. Failures are logged. Call it in a scope with a deadline."""
        async with trio.open_nursery() as nursery:
            for name, strategy in self._made.items():
                nursery.start_soon(self._close, name, strategy)
            self._made.clear()

    async def _close(self, name: str, strategy: Any) -> None:
        close = getattr(strategy, "close", None)
        if close is not None:
            job_id = self.offered.get("job_id", "")
            failure = await contained(close, name=f"close of service {name} of job {job_id}")
            if failure is not None:
                _log.error("service %s of job %s: close failed", name, job_id, exc_info=failure)


async def probe(
    services: JobServices, names: Iterable[str], *, timeout: float, nursery: trio.Nursery, late: set[str]
) -> dict[str, str | None]:
    """Ask services at the same time whether they work. Returns when all have answered, or their time is over.

    Args:
        services: They are made if need be, and left open.
        names: Of the services.
        timeout: Seconds for each.
        nursery: Where the checks run. One that goes on although it was cancelled, or waits for a thread, stays there.
        late: The services whose check goes on. They are not asked; those that are late now are put there, until they
            have ended.

    Returns:
        By name: empty when it works, None when it cannot be told, else what is wrong with it.
    """
    found: dict[str, str | None] = dict.fromkeys(names, f"no answer within {timeout:g} s")
    asked = found.keys() - late
    waiting = set(asked)
    answered = trio.Event()

    async def check(name: str) -> None:
        method = getattr(services.get(name), "check_health", None)
        if method is not None:
            await method()
        if trio.current_time() < deadline:
            found[name] = None if method is None else ""

    async def ask(name: str) -> None:
        with trio.move_on_at(deadline):
            failure = await contained(partial(check, name), name=f"check of service {name}")
            if failure is not None:
                found[name] = failure.text if isinstance(failure, DkTrioError) else explain_failure(failure)
        waiting.discard(name)
        late.discard(name)
        if not waiting:
            answered.set()

    deadline = trio.current_time() + timeout
    for name in asked:
        nursery.start_soon(ask, name)
    if asked:
        with trio.move_on_at(deadline + _PROMPT):
            await answered.wait()
    late |= waiting
    return {**found}


def _load(place: str) -> type:
    module, _, name = place.partition(":")
    loaded: type = getattr(import_module(f"dk_trio.services.{module}"), name)
    return loaded
