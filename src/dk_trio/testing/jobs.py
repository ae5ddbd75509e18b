"""One job as a test sees it: what it has sent, how it ended, and how long it took."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import trio
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from dk_trio.client import DEFAULT_MISSION_ID, DEFAULT_SETUP_ID

if TYPE_CHECKING:
    from dk_trio.client import Metadata, Model, ModelT_co, ModuleClient

_SYSTEM: Final = frozenset({"module_start_info", "end_of_stream"})


@dataclass(frozen=True, slots=True, kw_only=True)
class JobResult:
    """How a job has gone.

    Attributes:
        outputs: The root of each output of the module, in order; those before a failure, too.
        status: How the call has ended.
        error: What its status says; empty when it is OK.
        seconds: From the start of the call to its end, on Trio's clock.
        job_id: The job's id; empty when it never became one.
        failure: The module's own words about its failure (`code`, `message`, `short_description`).
        messages: All that came, whole, with the first message and the last one, which every job has.
    """

    outputs: list[dict[str, Any]]
    status: Status
    error: str
    seconds: float
    job_id: str
    failure: dict[str, Any] | None = field(repr=False)
    messages: list[dict[str, Any]] = field(repr=False)

    @property
    def ok(self) -> bool:
        """Whether it has ended well."""
        return self.status is Status.OK

    def typed(self, model: Model[ModelT_co]) -> list[ModelT_co]:
        """The outputs as models.

        Args:
            model: The class of their root, or any class with `model_validate`.

        Raises:
            pydantic.ValidationError: An output is none.
        """
        return [model.model_validate(output) for output in self.outputs]


async def result_of(
    client: ModuleClient,
    data: Mapping[str, Any],
    *,
    protocol: str | None = None,
    setup_id: str = DEFAULT_SETUP_ID,
    mission_id: str = DEFAULT_MISSION_ID,
    timeout: float | None = None,
    metadata: Metadata | None = None,
) -> JobResult:
    """Run one job to its end; the arguments are those of `ModuleClient.start`."""
    began = trio.current_time()
    messages: list[dict[str, Any]] = []
    status, error = Status.OK, ""
    async with client.start(
        data, protocol=protocol, setup_id=setup_id, mission_id=mission_id, timeout=timeout, metadata=metadata
    ) as outputs:
        try:
            async for output in outputs:
                messages.append(output)  # noqa: PERF401  those before a failure are wanted, too
        except GRPCError as refusal:
            status, error = refusal.status, refusal.message or ""
    roots = [message["root"] for message in messages]
    return JobResult(
        outputs=[root for root in roots if root.get("protocol") not in _SYSTEM],
        status=status,
        error=error,
        seconds=trio.current_time() - began,
        job_id=outputs.job_id,
        failure=outputs.failure,
        messages=messages,
    )
