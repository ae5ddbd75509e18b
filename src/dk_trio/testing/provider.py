"""A services-provider for tests: the real one, with its store in memory, that can be away, slow or wrong.

    async with FakeProvider() as provider:
        await provider.put_setup({"prefix": "> "}, module_id=Shouter)
        async with serve_in_memory(Shouter, provider=provider) as served:
            ...
            async with provider.outage():
                await trio.sleep(60)

It is `dk_trio.provider.Provider`, so what a module reads and writes here is checked, kept and told as in production.
There are neither sockets nor threads, and its wall clock goes with Trio's: under a virtual clock its leases, its dates
and the polls that it holds pass with the test's time.
"""

from __future__ import annotations

import difflib
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from math import inf
from typing import TYPE_CHECKING, Any, Final, Literal, Self, get_args

import trio
import trio.testing
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from dk_trio import chance, rpc
from dk_trio.boundary import unwrapped
from dk_trio.client import DEFAULT_MISSION_ID, DEFAULT_SETUP_ID, DEFAULT_SETUP_VERSION_ID
from dk_trio.extensions import SETUP_ID
from dk_trio.hosting import define, module_id_of
from dk_trio.pb.agentic_mesh_protocol.setup.v1 import (
    CreateSetupRequest,
    DeleteSetupRequest,
    SetupServiceStub,
    SetupStatus,
    SetupVersion,
)
from dk_trio.pb.agentic_mesh_protocol.storage.v1 import ListRecordsRequest, StorageServiceStub
from dk_trio.pb.agentic_mesh_protocol.task_manager.v1 import SendSignalsRequest, Task, TaskManagerServiceStub
from dk_trio.pb.google.protobuf import Struct
from dk_trio.provider import ProviderOptions, SqliteDatabase
from dk_trio.settings import Settings

from .clock import needs_trio
from .recording import RecordingProvider

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence
    from types import TracebackType

    from dk_trio.hosting import ModuleClass

Asked = Literal["cancel", "stop"]

# Seconds. Memory is not looked after as a disk is: looks every 5 s would be most of what an hour of waiting costs.
_HEALTH_INTERVAL: Final = 24 * 3600.0

# In the metadata of calls that the test itself makes: they are neither counted nor hit by faults.
_OURS: Final = "dk-trio-testing"

_NOT_OPEN: Final = "the provider is not open: write `async with FakeProvider() as provider:` around its use"

_connection: ContextVar[trio.CancelScope] = ContextVar("dk_trio_testing_connection")


class FakeProvider:
    """A services-provider in memory. Usable inside `async with FakeProvider() as provider:`, once.

    Args:
        options: How clients are treated, see `dk_trio.provider.ProviderOptions`; the defaults when None, but that its
            store is looked at once a day.
        now: Its wall clock, in seconds since the epoch; by default that of `options`. Without one: the time of day when
            the block is entered, going on with Trio's clock.
        interceptors: Code around each RPC, see `dk_trio.rpc`.

    Attributes:
        provider: What is served: for `statistics()`, and `put_user_profile`.
        now: Its wall clock.
        calls: How many calls of each method have come, by name such as `GetSetup`; those that were refused included.
    """

    def __init__(
        self,
        *,
        options: ProviderOptions | None = None,
        now: Callable[[], float] | None = None,
        interceptors: Sequence[rpc.Interceptor] = (),
    ) -> None:
        options = options or ProviderOptions(health_interval=_HEALTH_INTERVAL)
        now = now or options.now
        self.now = self._now if now is chance.wall_time else now
        self.calls: Counter[str] = Counter()
        self._faults: dict[str, list[_Fault]] = {}
        self._delays: dict[str, float] = {}
        self.provider = RecordingProvider(
            SqliteDatabase(None), options=replace(options, now=self.now), interceptors=[self._around, *interceptors]
        )
        self._began = (0.0, 0.0)
        self._connections: dict[trio.CancelScope, trio.Event] = {}
        self._outages = 0
        self._standstills = 0
        self._moving = trio.Event()
        self._moving.set()
        self._nursery: trio.Nursery | None = None
        self._channel: rpc.Channel | None = None
        self._stack = AsyncExitStack()

    def __repr__(self) -> str:
        state = "away" if self._outages else "hanging" if self._standstills else f"{len(self._connections)} connections"
        return f"<FakeProvider {state}, {self.provider!r}>"

    async def __aenter__(self) -> Self:
        needs_trio("FakeProvider")
        await self._stack.enter_async_context(self._opened())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stack.__aexit__(kind, error, traceback)

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[None]:
        self._began = (chance.wall_time(), trio.current_time())
        options = rpc.ChannelOptions(keepalive_time=inf)
        async with self.provider.opened(), unwrapped(), trio.open_nursery() as self._nursery:

            async def reach() -> trio.abc.Stream:
                ours, theirs = trio.testing.memory_stream_pair()
                nursery.start_soon(self.provider.serve_stream, theirs)
                await trio.lowlevel.checkpoint()
                return ours

            nursery = self._nursery
            try:
                async with rpc.open_channel(
                    "memory", connect=reach, interceptors=[_ours], options=options
                ) as self._channel:
                    yield
            finally:
                nursery.cancel_scope.cancel()

    def _now(self) -> float:
        wall, began = self._began
        return wall + trio.current_time() - began

    # --- connections -------------------------------------------------------------------------------------------------

    async def connect(self) -> trio.abc.Stream:
        """A connection to it: what `ModuleServer(..., provider=)` and `rpc.open_channel(..., connect=)` want.

        Raises:
            OSError: It is away, or its block was left.
            RuntimeError: Its block was not entered.
        """
        await trio.lowlevel.checkpoint()
        if self._nursery is None:
            raise RuntimeError(
                "the provider is not open: write `async with FakeProvider() as provider:` around its use"
            )
        if self._outages:
            raise ConnectionRefusedError("the provider is away: this is an outage() of its test")
        if self._nursery.cancel_scope.cancel_called:
            raise ConnectionRefusedError("the block of the FakeProvider was left")
        ours, theirs = trio.testing.memory_stream_pair()
        scope = trio.CancelScope()
        self._connections[scope] = trio.Event()
        self._nursery.start_soon(self._serve, _Standstill(theirs, self), scope)
        return ours

    async def _serve(self, stream: trio.abc.Stream, scope: trio.CancelScope) -> None:
        _connection.set(scope)
        try:
            # What has no clock of its own in the provider takes the fake's; a simulation goes on deciding ids.
            with scope, chance.decided_by(chance.new_random(), self.now):
                await self.provider.serve_stream(stream)
        finally:
            self._connections.pop(scope).set()

    async def cut(self) -> None:
        """Break all connections now, as when the provider's process ends. Clients may connect again at once."""
        connections = dict(self._connections)
        for scope in connections:
            scope.cancel()
        for ended in connections.values():
            await ended.wait()
        await trio.lowlevel.checkpoint()

    @asynccontextmanager
    async def outage(self, *, hang: bool = False) -> AsyncIterator[None]:
        """Be away for the length of the block. What is kept is there afterwards, as after a restart.

        Args:
            hang: Connections stay, and new ones are taken, but nothing is answered: what a frozen process looks like.
                At the end of the block it goes on where it was. Without it connections are cut, and refused.
        """
        if hang:
            self._standstills += 1
            if self._standstills == 1:
                self._moving = trio.Event()
            try:
                yield
            finally:
                self._standstills -= 1
                if not self._standstills:
                    self._moving.set()
            return
        self._outages += 1
        try:
            await self.cut()
            yield
        finally:
            self._outages -= 1

    # --- faults of methods -------------------------------------------------------------------------------------------

    def fail(self, method: str, status: Status, times: int | None = 1, *, message: str = "") -> None:
        """Refuse the next calls of a method. Faults of one method follow each other in the order of these calls.

        Args:
            method: Its name, such as `GetSetup`; of all services that have it.
            status: What its callers get, any but OK.
            times: For how many calls; None: until `heal`.
            message: Of the status; empty: one that names the method and says that it is a test's.

        Raises:
            ValueError: There is no such method, or the status is OK.
        """
        if status is Status.OK:
            raise ValueError("a call cannot fail with OK")
        error = GRPCError(status, message or f"{method} fails: this is a fail() of its test")
        self._faults.setdefault(self._known(method), []).append(_Fault(error, times))

    def lose_reply(self, method: str, times: int | None = 1) -> None:
        """Do what the next calls of a method ask for, and break their connections before the replies have left.

        Args:
            method: Its name, such as `StoreRecord`; of all services that have it.
            times: For how many calls; None: until `heal`.

        Raises:
            ValueError: There is no such method.
        """
        self._faults.setdefault(self._known(method), []).append(_Fault(None, times))

    def delay(self, method: str, seconds: float) -> None:
        """Let calls of a method wait before they are looked at, from now on.

        Args:
            method: Its name, such as `GetSetup`; of all services that have it.
            seconds: On Trio's clock; 0: no longer.

        Raises:
            ValueError: There is no such method, or it is negative.
        """
        if seconds < 0:
            raise ValueError(f"a call cannot be delayed by {seconds!r} s")
        self._delays[self._known(method)] = seconds

    def heal(self) -> None:
        """Take back every `fail`, `lose_reply` and `delay`."""
        self._faults.clear()
        self._delays.clear()

    def _known(self, method: str) -> str:
        methods = self.provider.methods
        if method in methods:
            return method
        near = difflib.get_close_matches(method.rpartition("/")[2], methods, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(methods)}"
        raise ValueError(f"a provider has no method {method!r}; {hint}")

    @asynccontextmanager
    async def _around(self, call: rpc.CallInfo) -> AsyncIterator[None]:
        if _OURS in call.metadata:
            yield
            return
        method = call.path.rpartition("/")[2]
        self.calls[method] += 1
        await trio.sleep(self._delays.get(method, 0))
        fault = next((fault for fault in self._faults.get(method, ()) if fault.strikes()), None)
        if fault is not None and fault.error is not None:
            raise GRPCError(fault.error.status, fault.error.message)
        yield
        if fault is not None:
            _connection.get().cancel()

    # --- what it keeps -----------------------------------------------------------------------------------------------

    @property
    def channel(self) -> rpc.Channel:
        """For calls of the test's own, with the stubs of `dk_trio.pb`. No fault touches them, and they do not count."""
        if self._channel is None:
            raise RuntimeError(_NOT_OPEN)
        return self._channel

    async def put_setup(
        self, content: Mapping[str, Any], *, module_id: str | ModuleClass, setup_id: str = DEFAULT_SETUP_ID
    ) -> str:
        """Store a setup, in place of the one that has its id. A server that has it in its cache sees that later.

        Args:
            content: The setup's fields, JSON values.
            module_id: The module that it is for, as its id or its class: jobs of others are refused.
            setup_id: With or without the prefix `setups:`. By default the one that `ModuleClient.start` sends.

        Returns:
            The id, with its prefix.

        Raises:
            ModuleDefinitionError: The class is not complete.
        """
        stub = SetupServiceStub(self.channel)
        try:
            await stub.delete_setup(DeleteSetupRequest(setup_id=setup_id))
        except GRPCError as error:
            if error.status is not Status.NOT_FOUND:
                raise
        reply = await stub.create_setup(
            CreateSetupRequest(
                name=setup_id,
                organisation_id="organisations:test",
                owner_id="users:test",
                module_id=module_id if isinstance(module_id, str) else module_id_of(define(module_id, Settings())),
                current_setup_version=SetupVersion(
                    id=chance.new_uuid().hex, setup_id=setup_id, version="1", content=Struct.from_dict(content)
                ),
                status=SetupStatus.READY,
            ),
            metadata={SETUP_ID: setup_id},
        )
        assert reply.setup is not None
        return reply.setup.id

    async def records(self, collection: str, *, mission_id: str = DEFAULT_MISSION_ID) -> dict[str, dict[str, Any]]:
        """What jobs have stored with `context.storage`, by record id, oldest first.

        Args:
            collection: Its name.
            mission_id: The mission whose records they are; by default the one that `ModuleClient.start` sends.
        """
        reply = await StorageServiceStub(self.channel).list_records(
            ListRecordsRequest(context=mission_id, collection=collection)
        )
        return {record.record_id: record.data.to_dict() if record.data else {} for record in reply.records}

    async def signal(self, job_id: str, action: Asked, *, reason: str = "none") -> None:
        """Ask a job to end, as the platform does.

        Args:
            job_id: The job, as `Outputs.job_id` tells it.
            action: `cancel` or `stop`.
            reason: Its `cancellation_reason`.

        Raises:
            ValueError: It is another action.
        """
        if action not in get_args(Asked):
            raise ValueError(f"a job is asked to {' or to '.join(get_args(Asked))}, not to {action!r}")
        task = Task(
            task_id=job_id,
            mission_id=DEFAULT_MISSION_ID,
            setup_id=DEFAULT_SETUP_ID,
            setup_version_id=DEFAULT_SETUP_VERSION_ID,
            action=action,
            cancellation_reason=reason,
            created_at=datetime.fromtimestamp(self.now(), UTC),
        )
        await TaskManagerServiceStub(self.channel).send_signals(SendSignalsRequest(tasks=[task]))

    @property
    def signals(self) -> list[Task]:
        """Every signal that was taken, in order, those of `signal` included. One that came twice is there once."""
        return list(self.provider.taken.values())


@dataclass(slots=True, eq=False)
class _Fault:
    error: GRPCError | None
    """None: the reply is lost."""
    left: int | None

    def strikes(self) -> bool:
        if self.left is not None:
            self.left -= 1
        return self.left is None or self.left >= 0


@asynccontextmanager
async def _ours(call: rpc.CallInfo) -> AsyncIterator[None]:
    call.metadata[_OURS] = "1"
    yield


class _Standstill(trio.abc.Stream):
    """The provider's end of a connection, where nothing moves while the provider hangs."""

    def __init__(self, stream: trio.abc.Stream, provider: FakeProvider) -> None:
        self._stream = stream
        self._provider = provider

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._provider._moving.wait()
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._provider._moving.wait()
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        data = await self._stream.receive_some(max_bytes)
        await self._provider._moving.wait()  # afterwards: it may have waited for data when the provider stopped
        return data

    async def aclose(self) -> None:
        await self._stream.aclose()
