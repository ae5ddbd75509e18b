"""Communication: calls from one module to another. Protocol only.

    async with context.communication.start_module(address, port, input_data, setup_id, mission_id) as answers:
        async for answer in answers:
            answer["output"]["root"]

Metadata goes to the other module only when it is given; `context.request_metadata` is that of the own caller.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, Protocol, TypeAlias, runtime_checkable

from dk_trio.extensions import MODULE_ID

Pairs: TypeAlias = Collection[tuple[str, str | bytes]]
Callback: TypeAlias = Callable[[dict[str, Any]], Awaitable[None]]

SCHEMAS: Final = ("input", "output", "setup", "secret", "cost")
"""The keys of what `get_module_schemas` gives."""

SCHEMAS_TIMEOUT: Final = 30.0
"""Seconds that a module gets to tell its schemas, where the caller does not say: their fetchers may ask others."""


HOLDS: Final = "dk-trio-holds"
"""Metadata of a call: the servers, by `ChannelCache.id`, on which those who wait for it hold a slot."""


@runtime_checkable
class Forwarded(Protocol):
    """Metadata of a request that can be passed on: `RequestMetadata`, with its repeated keys."""

    def to_grpc_metadata(self) -> Pairs:
        """The pairs to send."""
        ...


Metadata: TypeAlias = Mapping[str, str | bytes] | Pairs | Forwarded


def for_module(module_id: str, metadata: Metadata | None = None) -> Pairs:
    """Metadata that also say which module is meant, for servers that have several."""
    if metadata is None:
        pairs: Pairs = ()
    elif isinstance(metadata, Forwarded):
        pairs = metadata.to_grpc_metadata()
    else:
        pairs = list(metadata.items()) if isinstance(metadata, Mapping) else metadata
    if not (module_id.isascii() and module_id.isprintable()):  # no header can hold it
        return pairs
    return [*pairs, (MODULE_ID, module_id)]


class Answers(Protocol):
    """What another module sends, as `{"success": True, "job_id": ..., "output": {...}}`, until its job has succeeded.

    `module_start_info` is among them, `end_of_stream` is not. An async generator is one.
    """

    def __aiter__(self) -> AsyncIterator[dict[str, Any]]:
        """Itself."""
        ...

    async def __anext__(self) -> dict[str, Any]:
        """The next one.

        Raises:
            ModuleCallError: The job failed, or could not be started.
        """
        ...

    async def aclose(self) -> None:
        """Cancel the other job, unless it has ended."""
        ...


class Communication(Protocol):
    """Calls other modules by the address of their server."""

    async def get_module_schemas(
        self,
        address: str,
        port: int,
        llm_format: bool = False,
        *,
        timeout: float = SCHEMAS_TIMEOUT,
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
    ) -> AbstractAsyncContextManager[Answers]:
        """Start a job of another module. Leaving the block before its end cancels that job.

        Args:
            address: Host of the module's server.
            port: Its port.
            input_data: The whole input with its `root`, or only the root.
            setup_id: The setup of the other module.
            mission_id: The mission that both jobs are part of.
            metadata: Sent with the call.
            timeout: Seconds for the whole job. The server is told the nearest deadline: this one, or that of a cancel
                scope around, such as the one that the own caller's deadline has set.
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
    ) -> Answers:
        """`start_module` without a block; `callback` is awaited with each answer before it is given.

        Nothing is sent before the first answer is asked for. The other job is cancelled by `aclose`, by a cancellation
        of `__anext__`, and when the iterator is dropped. When that happens is the interpreter's matter, so whoever may
        leave early takes `async with contextlib.aclosing(...)`, or `start_module`.
        """
        ...

    async def close(self) -> None:
        """Called when the job has ended."""
        ...
