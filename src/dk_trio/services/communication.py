"""Communication: calls from one module to another. Protocol only.

    async with context.communication.start_module(address, port, input_data, setup_id, mission_id) as answers:
        async for answer in answers:
            answer["output"]["root"]

A metadata argument is passed on as it is; `context.request_metadata.to_grpc_metadata()` is that of the own caller.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, TypeAlias

Metadata: TypeAlias = Mapping[str, str | bytes] | Collection[tuple[str, str | bytes]]
Callback: TypeAlias = Callable[[dict[str, Any]], Awaitable[None]]

SCHEMAS = ("input", "output", "setup", "secret", "cost")
"""The keys of what `get_module_schemas` gives."""


class Communication(Protocol):
    """Calls other modules by the address of their server."""

    async def get_module_schemas(
        self,
        address: str,
        port: int,
        llm_format: bool = False,
        *,
        timeout: float | None = None,
        metadata: Metadata | None = None,
    ) -> dict[str, dict[str, Any]]:
        """The schemas of a module by `input`, `output`, `setup`, `secret` and `cost`, asked for all at once.

        Args:
            address: Host of the module's server.
            port: Its port.
            llm_format: Ask for schemas without references, without keys for forms; not of the cost.
            timeout: Seconds for all of them.
            metadata: Sent with each call.

        Returns:
            A schema that the module does not have (UNIMPLEMENTED) is `{}`.

        Raises:
            ModuleCallError: The server was not reached in time, or failed.
        """
        ...

    def start_module(
        self,
        address: str,
        port: int,
        input_data: Mapping[str, Any],
        setup_id: str,
        mission_id: str,
        *,
        metadata: Metadata | None = None,
        timeout: float | None = None,
    ) -> AbstractAsyncContextManager[AsyncIterator[dict[str, Any]]]:
        """Start a job of another module. Leaving the block before its end cancels that job.

        Args:
            address: Host of the module's server.
            port: Its port.
            input_data: The whole input with its `root`, or only the root.
            setup_id: The setup of the other module.
            mission_id: The mission that both jobs are part of.
            metadata: Sent with the call.
            timeout: Seconds for the whole job. The server gets the nearest deadline of this one, of the cancel scopes
                around, and of the own caller.

        Returns:
            An iterator of `{"success": True, "job_id": ..., "output": {...}}`, `module_start_info` included and
            `end_of_stream` not. It ends when the job has succeeded.

        Raises:
            ModuleCallError: While entering or iterating: the job failed or could not be started.
        """
        ...

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
    ) -> AsyncGenerator[dict[str, Any]]:
        """`start_module` as a generator; `callback` is awaited with each answer before it is yielded.

        The other job is cancelled when the generator is closed. Python closes one that a loop has left early only when
        it is collected, so leave early inside `async with contextlib.aclosing(...)`, or use `start_module`.
        """
        ...

    async def close(self) -> None:
        """Called when the job has ended."""
        ...
