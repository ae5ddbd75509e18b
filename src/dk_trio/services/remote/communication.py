"""Calls of other modules over gRPC, on channels that the jobs of a server share.

A call holds no cancel scope and no nursery between its answers, so it may be left at any of them, in any way: by its
block, by `aclose`, by a cancellation, or by being dropped. Each of these resets its stream, and the other server
cancels the job.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from typing import Any, Final, Self

import trio
from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError

from dk_trio.client import START_MODULE, Outputs, dict_of, wrap_input
from dk_trio.errors import ModuleCallError, Violation
from dk_trio.pb.agentic_mesh_protocol.module.v1 import (
    GetModuleCostRequest,
    GetModuleInputRequest,
    GetModuleOutputRequest,
    GetModuleSecretRequest,
    GetModuleSetupRequest,
    ModuleServiceStub,
    StartModuleRequest,
    StartModuleResponse,
)
from dk_trio.pb.google.protobuf import Struct
from dk_trio.pb.google.rpc import BadRequest
from dk_trio.services.channels import ChannelCache, Connect, Lease
from dk_trio.services.communication import (
    HOLDS,
    SCHEMAS,
    SCHEMAS_TIMEOUT,
    Answers,
    Callback,
    Communication,
    Forwarded,
    Metadata,
    Pairs,
)
from dk_trio.services.registry import target_of
from dk_trio.services.strategy import BaseStrategy

# What follows the last message is a status that changes nothing. Servers of the existing SDK may never send it.
STATUS_WAIT: Final = 1.0

_HINTS = {
    Status.UNAVAILABLE: "Check that the module runs there, and that its address in the registry is right.",
    Status.DEADLINE_EXCEEDED: "Give the call more time, or ask less of it.",
    Status.UNIMPLEMENTED: "Check that a module is served there.",
}


class ModuleCall(Answers):
    """One StartModule: see `Communication.call_module`. Made by `GrpcCommunication`.

    Attributes:
        job_id: The other job's id; empty until its first answer came.
    """

    _call: Any = None
    _lease: Lease | None = None
    _outputs: Outputs
    _ended = False

    def __init__(
        self,
        lease: Callable[[], Awaitable[Lease]],
        request: StartModuleRequest,
        *,
        target: str,
        metadata: Pairs | None,
        timeout: float | None,
        callback: Callback | None,
    ) -> None:
        self._make_lease = lease
        self._request = request
        self._target = target
        self._metadata = metadata
        self._timeout = timeout
        self._callback = callback
        self.job_id = ""

    def __repr__(self) -> str:
        state = "ended" if self._ended else "new" if self._call is None else "open"
        return f"<ModuleCall to {self._target!r} {state}, job {self.job_id or '(not started)'}>"

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> dict[str, Any]:
        if self._ended:
            raise StopAsyncIteration
        try:
            if self._call is None:
                await self.start()
            answer = await self._next()
            if answer is None:
                raise StopAsyncIteration
            if self._callback is not None:
                await self._callback(answer)
        except BaseException:
            self._leave()
            raise
        return answer

    async def start(self) -> None:
        """Send the request; the first `__anext__` does it otherwise.

        Raises:
            ModuleCallError: The other server cannot be reached.
        """
        try:
            self._lease = await self._make_lease()
            with _errors_of(self._target):
                self._call = self._lease.channel.request(
                    START_MODULE,
                    Cardinality.UNARY_STREAM,
                    StartModuleRequest,
                    StartModuleResponse,
                    timeout=self._timeout,
                    metadata=self._metadata,
                )
                self._outputs = Outputs(await self._call.__aenter__())
                await self._call.send_message(self._request, end=True)
        except BaseException:
            self._leave()
            raise

    async def _next(self) -> dict[str, Any] | None:
        with _errors_of(self._target):
            async for output in self._outputs:
                self.job_id = self._outputs.job_id
                root = output.get("root", output)
                if isinstance(root, Mapping) and root.get("protocol") == "end_of_stream":
                    await self._read_status()
                    return None
                return {"success": True, "job_id": self.job_id, "output": output}
        return None

    async def _read_status(self) -> None:
        """Let the call end by itself: a server that is told to cancel it would have to find out that it has ended."""
        with trio.move_on_after(STATUS_WAIT), suppress(GRPCError):
            async for _ in self._outputs:
                pass

    async def aclose(self) -> None:
        """Cancel the other job, unless it has ended. Waits for nothing."""
        self._leave()

    def _leave(self) -> None:
        self._ended = True
        if self._call is not None:
            self._call.abandon()
        if self._lease is not None:
            self._lease.release()

    def __del__(self) -> None:
        # At any time and in any thread, so nothing is done here but asked of Trio.
        if not self._ended and self._lease is not None:
            if self._call is not None:
                self._call.abandon()
            self._lease.abandon()


class GrpcCommunication(BaseStrategy, Communication):
    """See `Communication`.

    Args:
        mission_id: The mission of the job.
        setup_id: Its setup.
        setup_version_id: The version of the setup.
        channels: Where channels come from; of the server.
        ssl_context: TLS for every call, as for `rpc.open_channel`; None is that of `channels`.
        request_metadata: Of the job's own caller.
    """

    def __init__(
        self,
        mission_id: str,
        setup_id: str,
        setup_version_id: str,
        *,
        channels: ChannelCache,
        ssl_context: ssl.SSLContext | bool | None = None,
        request_metadata: Mapping[str, str | bytes] | None = None,
    ) -> None:
        super().__init__(mission_id, setup_id, setup_version_id)
        self._channels = channels
        self._ssl_context = ssl_context
        held = str((request_metadata or {}).get(HOLDS, "")).split(",")
        self._holds = ",".join(dict.fromkeys([*filter(None, held), channels.id]))

    def _connect_for(self, address: str, port: int) -> Connect | None:
        """A way to a server of this process, which is none of the network's."""
        return None

    async def _lease(self, address: str, port: int) -> Lease:
        connect = self._connect_for(address, port)
        try:
            return await self._channels.lease(
                address,
                port,
                ssl_context=None if connect is not None else self._ssl_context,
                connect=connect,
                in_process=connect is not None,
            )
        except ValueError as error:
            raise ModuleCallError(
                f"{target_of(address, port)!r} is not the address of a module: {error}.",
                hint="Correct the module's address in the registry.",
            ) from error

    async def get_module_schemas(
        self,
        address: str,
        port: int,
        llm_format: bool = False,
        *,
        timeout: float = SCHEMAS_TIMEOUT,
        metadata: Metadata | None = None,
    ) -> dict[str, dict[str, Any]]:
        """See `Communication.get_module_schemas`."""
        lease = await self._lease(address, port)
        try:
            stub = ModuleServiceStub(lease.channel, timeout=timeout, metadata=_pairs(metadata))
            with _errors_of(target_of(address, port)):
                return await _schemas(stub, llm_format=llm_format)
        finally:
            lease.release()

    @asynccontextmanager
    async def start_module(
        self,
        address: str,
        port: int,
        input_data: Mapping[str, Any],
        setup_id: str,
        mission_id: str,
        *,
        metadata: Metadata | None = None,
        timeout: float | None = None,
    ) -> AsyncIterator[ModuleCall]:
        """See `Communication.start_module`."""
        call = self.call_module(address, port, input_data, setup_id, mission_id, metadata=metadata, timeout=timeout)
        await call.start()
        try:
            yield call
        finally:
            await call.aclose()

    def call_module(
        self,
        address: str,
        port: int,
        input_data: Mapping[str, Any],
        setup_id: str,
        mission_id: str,
        callback: Callback | None = None,
        metadata: Metadata | None = None,
        timeout: float | None = None,
    ) -> ModuleCall:
        """See `Communication.call_module`."""
        return ModuleCall(
            partial(self._lease, address, port),
            StartModuleRequest(
                input=Struct.from_dict(wrap_input(input_data)), setup_id=setup_id, mission_id=mission_id
            ),
            target=target_of(address, port),
            metadata=[*(pair for pair in _pairs(metadata) or () if pair[0] != HOLDS), (HOLDS, self._holds)],
            timeout=timeout,
            callback=callback,
        )


async def _schemas(stub: ModuleServiceStub, *, llm_format: bool) -> dict[str, dict[str, Any]]:
    calls: dict[str, Callable[[], Awaitable[Any]]] = {
        "input": partial(stub.get_module_input, GetModuleInputRequest(llm_format=llm_format)),
        "output": partial(stub.get_module_output, GetModuleOutputRequest(llm_format=llm_format)),
        "setup": partial(stub.get_module_setup, GetModuleSetupRequest(llm_format=llm_format)),
        "secret": partial(stub.get_module_secret, GetModuleSecretRequest(llm_format=llm_format)),
        # Numbers for programs, whoever asks; a model is told them in words.
        "cost": partial(stub.get_module_cost, GetModuleCostRequest()),
    }
    schemas: dict[str, dict[str, Any]] = {name: {} for name in SCHEMAS}
    failures: list[Exception] = []

    async def ask(name: str) -> None:
        try:
            schemas[name] = dict_of(getattr(await calls[name](), f"{name}_schema"))
        except (GRPCError, trio.ClosedResourceError) as error:
            if not isinstance(error, GRPCError) or error.status is not Status.UNIMPLEMENTED:
                failures.append(error)
                nursery.cancel_scope.cancel(reason="another schema failed")

    async with trio.open_nursery() as nursery:
        for name in SCHEMAS:
            nursery.start_soon(ask, name)
    if failures:
        # A server that is cancelled closes its channels at once. What its jobs hear of is the cancellation.
        await trio.lowlevel.checkpoint_if_cancelled()
        raise failures[0]
    return schemas


def _pairs(metadata: Metadata | None) -> Pairs | None:
    if metadata is None:
        return None
    if isinstance(metadata, Forwarded):
        return metadata.to_grpc_metadata()
    return list(metadata.items()) if isinstance(metadata, Mapping) else metadata


@contextmanager
def _errors_of(target: str) -> Iterator[None]:
    try:
        yield
    except GRPCError as error:
        raise module_call_error(target, error) from error
    except trio.ClosedResourceError as error:
        text = f"The module at {target} was not called: this server is shutting down."
        raise ModuleCallError(text, status=Status.UNAVAILABLE) from error


def module_call_error(target: str, error: GRPCError) -> ModuleCallError:
    """A failed call of a module, with what its server refused.

    The refused fields are those of the call, and `called.` stands before each: on the way up they would be taken for
    fields of what the own caller has sent.
    """
    said = (error.message or "no message").rstrip(".")
    violations = [
        Violation(f"called.{violation.field}", violation.description)
        for detail in error.details or ()
        if isinstance(detail, BadRequest)
        for violation in detail.field_violations
    ]
    if not violations and error.status is Status.UNAVAILABLE:
        violations = [Violation("address", f"must be that of a module that answers, not {target}: {said}")]
    return ModuleCallError(
        f"The call of the module at {target} ended with {error.status.name}: {said}.",
        hint=_HINTS.get(error.status, ""),
        violations=violations,
        status=error.status,
    )
