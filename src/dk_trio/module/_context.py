"""What a running module holds in its hand: `send`, the ids of its session, the caller's metadata, and the services."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeAlias

from pydantic import BaseModel

from dk_trio.errors import ServiceError
from dk_trio.services.config import JobServices
from dk_trio.settings import ServicesSettings

from ._request_metadata import RequestMetadata
from .tools import ToolCache, openai_style_tools, tool_functions

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

    from dk_trio.services.agent import Agent
    from dk_trio.services.communication import Communication
    from dk_trio.services.config import ServicesConfig, SharedServices
    from dk_trio.services.cost import Cost, CostLimit
    from dk_trio.services.filesystem import Filesystem
    from dk_trio.services.identity import Identity
    from dk_trio.services.registry import Registry
    from dk_trio.services.snapshot import Snapshot
    from dk_trio.services.storage import Storage
    from dk_trio.services.user_profile import UserProfile
    from dk_trio.signals import SignalExchange

    from .tools import ToolDefinition, ToolFunction

Output: TypeAlias = BaseModel | dict[str, Any]
"""What an author may send: an output model, a bare trigger, or a dict of JSON values. A dict without `root` is a root
itself. A dict is not copied: do not change it before `send` has returned."""

# A coroutine and not any awaitable: type checkers tell of a forgotten `await` only then.
Send: TypeAlias = Callable[[Output], Coroutine[Any, Any, None]]

_logger = logging.getLogger("dk_trio.module")
_DEFAULTS = ServicesSettings()


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionIds:
    """The ids of one job, as the caller or the setup gave them; `job_id` is a bare uuid4.

    Attributes:
        timezone_name: IANA name of the time zone, from `DIGITALKIN_TIMEZONE`.
    """

    job_id: str
    mission_id: str
    setup_id: str
    setup_version_id: str
    timezone_name: str = _DEFAULTS.timezone

    @property
    def timezone(self) -> ZoneInfo:
        """The time zone that people of this job live in."""
        from zoneinfo import ZoneInfo

        return ZoneInfo(self.timezone_name)

    def current_ids(self) -> dict[str, str]:
        """The four ids as a dict, for the `extra` of a log call."""
        return {
            "job_id": self.job_id,
            "mission_id": self.mission_id,
            "setup_id": self.setup_id,
            "setup_version_id": self.setup_version_id,
        }


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Environment:
    """What a server gives to the contexts of all its jobs.

    Attributes:
        settings: Times, thresholds and time zone.
        config: The module's strategies and their parameters.
        shared: What the services of all jobs share.
        signals: Where signals of jobs go and come from.
    """

    settings: ServicesSettings
    config: ServicesConfig
    shared: SharedServices
    signals: SignalExchange


class ModuleContext:
    """Everything that a module and its handlers get from their session.

    The services (`storage`, `cost`, ...) are made when they are first asked for and closed after `cleanup`. Asking for
    one that the module has not configured raises `ServiceError`, which names the parameter that is missing.

    Attributes:
        send: `await context.send(output)` puts one output on the caller's stream. It returns when the stream has taken
            it and waits while the caller reads too slowly, so it is the back-pressure. Several tasks of a module may
            send; each output stays whole. Raises `InvalidOutputError` for a value that is not JSON, `SessionEndedError`
            after the session's end; `trio.Cancelled` when the caller has gone.
        session: The ids (`job_id`, `mission_id`, `setup_id`, `setup_version_id`), and the `timezone`.
        request_metadata: The caller's metadata.
        callbacks: `send_message`, the same as `send`, and `logger`.
        metadata: Free namespace for the author; likewise `helpers` and `state`.
        cost_limits: The limits that the caller has set for this job.
    """

    __slots__ = (
        "_environment",
        "_services",
        "_tool_cache",
        "callbacks",
        "cost_limits",
        "helpers",
        "metadata",
        "request_metadata",
        "send",
        "session",
        "state",
    )

    def __init__(
        self,
        *,
        session: SessionIds,
        send: Send,
        request_metadata: RequestMetadata | None = None,
        environment: Environment | None = None,
        cost_limits: Sequence[CostLimit] = (),
    ) -> None:
        self.send = send
        self.session = session
        self.request_metadata = RequestMetadata() if request_metadata is None else request_metadata
        self.callbacks = SimpleNamespace(send_message=send, logger=_logger)
        self.metadata = SimpleNamespace()
        self.helpers = SimpleNamespace()
        self.state = SimpleNamespace()
        self._tool_cache: ToolCache | None = None
        self.cost_limits = cost_limits
        self._environment = environment
        self._services: JobServices | None = None

    def __repr__(self) -> str:
        return f"<ModuleContext job={self.session.job_id} mission={self.session.mission_id}>"

    @property
    def services(self) -> JobServices:
        """The job's services by name; the properties below are the usual way to them.

        Raises:
            ServiceError: The context has none: it was made without a server.
        """
        if self._services is None:
            environment, ids = self._environment, self.session
            if environment is None:
                raise ServiceError(
                    "This context has no services: it was made without a server.",
                    hint="Serve the module, or give the context an environment.",
                )
            self._services = JobServices(
                config=environment.config,
                shared=environment.shared,
                ids=(ids.mission_id, ids.setup_id, ids.setup_version_id),
                offered={
                    "job_id": ids.job_id,
                    "request_metadata": self.request_metadata,
                    "cost_limits": self.cost_limits,
                },
            )
        return self._services

    @property
    def uses_services(self) -> bool:
        """Whether a service was made, or something was registered for the end."""
        return self._services is not None and self._services.used

    @property
    def tool_cache(self) -> ToolCache:
        """The tools that the job's setup has selected, and those that cannot be used, with the cause."""
        if self._tool_cache is None:
            self._tool_cache = ToolCache()
        return self._tool_cache

    @tool_cache.setter
    def tool_cache(self, tools: ToolCache) -> None:
        self._tool_cache = tools

    @property
    def settings(self) -> ServicesSettings:
        """Times, thresholds and time zone of the services; the defaults in a context without a server."""
        return _DEFAULTS if self._environment is None else self._environment.settings

    @property
    def agent(self) -> Agent:
        """The agent that this job acts for."""
        service: Agent = self.services.get("agent")
        return service

    @property
    def communication(self) -> Communication:
        """Calls of other modules."""
        service: Communication = self.services.get("communication")
        return service

    @property
    def cost(self) -> Cost:
        """What the job costs, and the limits of that."""
        service: Cost = self.services.get("cost")
        return service

    @property
    def filesystem(self) -> Filesystem:
        """Files of the mission and of the setup."""
        service: Filesystem = self.services.get("filesystem")
        return service

    @property
    def identity(self) -> Identity:
        """Who the job acts as."""
        service: Identity = self.services.get("identity")
        return service

    @property
    def registry(self) -> Registry:
        """Which modules and setups there are."""
        service: Registry = self.services.get("registry")
        return service

    @property
    def snapshot(self) -> Snapshot:
        """Named states of the mission."""
        service: Snapshot = self.services.get("snapshot")
        return service

    @property
    def storage(self) -> Storage:
        """Records of the mission and of the setup."""
        service: Storage = self.services.get("storage")
        return service

    @property
    def task_manager(self) -> SignalExchange:
        """Signals of jobs.

        Raises:
            ServiceError: The context was made without a server.
        """
        if self._environment is None:
            raise ServiceError("This context has no signals: it was made without a server.")
        return self._environment.signals

    @property
    def user_profile(self) -> UserProfile:
        """The user that the mission belongs to."""
        service: UserProfile = self.services.get("user_profile")
        return service

    def at_end(self, key: object, flush: Callable[[], Awaitable[None]]) -> None:
        """Call `flush` once after the module's `cleanup`, before the services close.

        It runs also when the job was cancelled, shielded for a bounded time. When it raises, a job that had succeeded
        fails: what it should have written is lost, and somebody must be told.

        Args:
            key: Names the flush: one that is registered already stays, and the new one is ignored.
            flush: Called without arguments.
        """
        self.services.at_end(key, flush)

    async def get_module_schemas_by_id(self, module_id: str, llm_format: bool = False) -> dict[str, dict[str, Any]]:
        """The schemas of another module: `input`, `output`, `setup`, `secret` and `cost`.

        Raises:
            RegistryModuleNotFoundError: The registry does not know it.
            ModuleCallError: Its server was not reached.
        """
        from dk_trio.services.communication import for_module

        module = await self.registry.discover_by_id(module_id)
        return await self.communication.get_module_schemas(
            module.address, module.port, llm_format, metadata=for_module(module.module_id)
        )

    def create_openai_style_tools(self, setup_id: str) -> list[dict[str, Any]]:
        """The tools of a setup as an LLM's API wants them: `{"type": "function", "function": {...}, "cost_info": ...}`.

        Raises:
            ToolUnavailableError: The setup was selected and cannot be used; the text says why.
        """
        return openai_style_tools(self.tool_cache, setup_id)

    def create_tool_functions(self, setup_id: str) -> list[tuple[ToolDefinition, ToolFunction]]:
        """The tools of a setup as pairs of a definition and an async generator function that calls the tool.

        A call runs in this job's mission, with its caller's metadata and within its deadline; wrap the generator in
        `contextlib.aclosing` when you may leave it early.

        Raises:
            ToolUnavailableError: The setup was selected and cannot be used; the text says why.
        """
        return tool_functions(self, setup_id)
