"""Calling a module: StartModule as an async context manager of outputs, what concerns its jobs, setups and schemas.

    async with ModuleClient.connect("127.0.0.1:50055") as client:
        async with client.start({"text": "hello"}, protocol="message") as outputs:
            async for output in outputs:
                print(output["root"])

Needs neither pydantic nor a module class: outputs are dicts.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from typing import Any, Protocol, TypeVar

from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError

from dk_trio import rpc
from dk_trio.pb import DecodeError
from dk_trio.pb.agentic_mesh_protocol.module.v1 import (
    ConfigSetupModuleRequest,
    GetConfigSetupModuleRequest,
    GetModuleCostRequest,
    GetModuleInputRequest,
    GetModuleJobsRequest,
    GetModuleOutputRequest,
    GetModuleSecretRequest,
    GetModuleSelectInputRequest,
    GetModuleSetupRequest,
    GetModuleStatusRequest,
    ModuleServiceStub,
    ModuleStatus,
    StartModuleRequest,
    StartModuleResponse,
    StopModuleRequest,
)
from dk_trio.pb.agentic_mesh_protocol.setup.v1 import SetupVersion
from dk_trio.pb.google.protobuf import Struct
from dk_trio.settings import ChannelSettings

START_MODULE = "/agentic_mesh_protocol.module.v1.ModuleService/StartModule"

# Sent when the caller gives none. In local mode any setup id means the module's default setup.
DEFAULT_SETUP_ID = "setups:default"
DEFAULT_SETUP_VERSION_ID = "setup_versions:default"
DEFAULT_MISSION_ID = "missions:default"

_FAILURE_KEYS = frozenset({"code", "message", "short_description"})
_SYSTEM_PROTOCOLS = frozenset({"module_start_info", "end_of_stream"})

Metadata = Mapping[str, str | bytes] | Collection[tuple[str, str | bytes]]

ModelT_co = TypeVar("ModelT_co", covariant=True)


class Model(Protocol[ModelT_co]):
    """A pydantic model class, by the one method that is needed."""

    def model_validate(self, obj: Any, /) -> ModelT_co:
        """An instance from a dict."""
        ...


class Outputs:
    """The outputs of one job, in order, as dicts. Made by `ModuleClient.start`.

    Iterating gives every output, the first (`module_start_info`) and the last (`end_of_stream`) included, and ends when
    the call has ended with OK. Any other status is raised as `GRPCError`, whatever outputs came before it.

    Attributes:
        job_id: The job's id, for `ModuleClient.stop`; empty until the first output came.
        failure: The module's own words about its failure (`code`, `message`, `short_description`); None without one.
        ended: Whether the call has ended with OK.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.job_id = ""
        self.failure: dict[str, Any] | None = None
        self.ended = False

    def __repr__(self) -> str:
        return f"<Outputs of job {self.job_id or '(not started)'}>"

    def __aiter__(self) -> AsyncIterator[dict[str, Any]]:
        return self

    async def __anext__(self) -> dict[str, Any]:
        while True:
            response: StartModuleResponse | None = await self._stream.recv_message()
            if response is None:
                await self._stream.recv_trailing_metadata()  # raises unless the status is OK
                if self.failure is not None:
                    # A server that reports a failure only inside the stream.
                    raise GRPCError(Status.INTERNAL, str(self.failure.get("message") or "the module failed"))
                self.ended = True
                raise StopAsyncIteration
            self.job_id = response.job_id or self.job_id
            output = dict_of(response.output)
            # The existing SDK says `success` of its failures too: nothing else has these keys and no root.
            if response.success and ("root" in output or not output.keys() >= _FAILURE_KEYS):
                return output
            self.failure = output

    async def typed(self, model: Model[ModelT_co]) -> AsyncIterator[ModelT_co]:
        """The module's own outputs as models; the messages that every stream has are left out.

        Args:
            model: The module's output format, or any class with `model_validate`.
        """
        async for output in self:
            root = output.get("root")
            if isinstance(root, dict) and root.get("protocol") in _SYSTEM_PROTOCOLS:
                continue
            yield model.model_validate(output)


class ModuleClient:
    """Calls one module server.

    Args:
        channel: An open channel; `ModuleClient.connect` opens one. Also an attribute, for stubs of other services.
    """

    def __init__(self, channel: rpc.Channel) -> None:
        self.channel = channel
        self._stub = ModuleServiceStub(channel)

    def __repr__(self) -> str:
        return f"<ModuleClient over {self.channel!r}>"

    @classmethod
    @asynccontextmanager
    async def connect(
        cls, target: str, *, options: rpc.ChannelOptions | None = None, **channel_arguments: Any
    ) -> AsyncIterator[ModuleClient]:
        """A client on a channel of its own, which is closed at the end of the block.

        Args:
            target: `host:port` or `unix:/path`.
            options: Options of the channel; those of `channel_options(ChannelSettings())` when None.
            channel_arguments: More arguments of `rpc.open_channel`.
        """
        async with rpc.open_channel(
            target, options=options or channel_options(ChannelSettings()), **channel_arguments
        ) as channel:
            yield cls(channel)

    @asynccontextmanager
    async def start(
        self,
        input_data: Mapping[str, Any],
        *,
        setup_id: str = DEFAULT_SETUP_ID,
        mission_id: str = DEFAULT_MISSION_ID,
        protocol: str | None = None,
        timeout: float | None = None,
        metadata: Metadata | None = None,
    ) -> AsyncIterator[Outputs]:
        """Start a job and read its outputs. Leaving the block before the end cancels the job.

        Args:
            input_data: The whole input with its `root`, or only the root.
            setup_id: Id of the setup.
            mission_id: Id of the mission that the job is part of.
            protocol: Put into the root when it has none.
            timeout: Seconds for the whole job; the server gets the same deadline.
            metadata: Sent with the request.

        Raises:
            GRPCError: While iterating, when the job ends with another status than OK.
        """
        request = StartModuleRequest(
            input=Struct.from_dict(wrap_input(input_data, protocol)), setup_id=setup_id, mission_id=mission_id
        )
        async with self.channel.request(
            START_MODULE,
            Cardinality.UNARY_STREAM,
            StartModuleRequest,
            StartModuleResponse,
            timeout=timeout,
            metadata=metadata,
        ) as stream:
            await stream.send_message(request, end=True)
            outputs = Outputs(stream)
            yield outputs
            if not outputs.ended:
                await stream.cancel()

    async def stop(self, job_id: str, *, timeout: float | None = None) -> None:
        """Cancel a job by its id, also one that waits for its slot. The server answers before its cleanup has ended.

        Args:
            job_id: With or without the prefix `jobs:`.
            timeout: Seconds for the answer.

        Raises:
            GRPCError: NOT_FOUND, when the server runs no such job; for one that has ended the message says how.
        """
        await self._stub.stop_module(StopModuleRequest(job_id=job_id), timeout=timeout)

    async def status(self, job_id: str, *, timeout: float | None = None) -> ModuleStatus:
        """How a job is, or what has become of it.

        Args:
            job_id: With or without the prefix `jobs:`.
            timeout: Seconds for the answer.

        Returns:
            STARTING while it waits for its slot and initializes, then PROCESSING; at last SUCCESS, FAILED, STOPPED,
            CANCELED or EXPIRED.

        Raises:
            GRPCError: NOT_FOUND, when the server does not know the job, or has ended a thousand others since.
        """
        reply = await self._stub.get_module_status(GetModuleStatusRequest(job_id=job_id), timeout=timeout)
        return reply.status

    async def jobs(self, *, timeout: float | None = None) -> dict[str, ModuleStatus]:
        """The server's jobs by id: those that wait or run, oldest first, then the last that have ended.

        Args:
            timeout: Seconds for the answer.
        """
        reply = await self._stub.get_module_jobs(GetModuleJobsRequest(), timeout=timeout)
        return {job.job_id: job.job_status for job in reply.jobs}

    async def config_setup(
        self,
        content: Mapping[str, Any],
        *,
        setup_id: str = DEFAULT_SETUP_ID,
        setup_version_id: str = DEFAULT_SETUP_VERSION_ID,
        version: str = "",
        mission_id: str = DEFAULT_MISSION_ID,
        timeout: float | None = None,
        metadata: Metadata | None = None,
    ) -> dict[str, Any]:
        """Let the module turn a form into a setup. The server runs jobs with it from now on.

        It is stored nowhere, unless the module says so: `services_config_params["setup"]["store_configured"]`.

        Args:
            content: The form, as a user has filled it in.
            setup_id: Id of the setup.
            setup_version_id: Id of the version of the setup that is made; jobs that run with it tell it.
            version: Name of the version.
            mission_id: Id of the mission that this is part of.
            timeout: Seconds for the answer, its wait for a slot included; the server gets the same deadline.
            metadata: Sent with the request.

        Returns:
            The content that jobs run with; to be stored by the caller.

        Raises:
            GRPCError: INVALID_ARGUMENT for a form that does not fit, INTERNAL with the cause when the module's code
                failed, DEADLINE_EXCEEDED when it took too long, RESOURCE_EXHAUSTED when the server is full.
        """
        request = ConfigSetupModuleRequest(
            setup_version=SetupVersion(id=setup_version_id, setup_id=setup_id, version=version),
            content=Struct.from_dict(content),
            mission_id=mission_id,
        )
        reply = await self._stub.config_setup_module(request, timeout=timeout, metadata=metadata)
        return dict_of(reply.setup_version.content if reply.setup_version is not None else None)

    async def input_schema(self, *, llm_format: bool = False, timeout: float | None = None) -> dict[str, Any]:
        """JSON schema of the module's inputs. `llm_format` wraps it as `{"json_schema": ...}`, without references."""
        reply = await self._stub.get_module_input(GetModuleInputRequest(llm_format=llm_format), timeout=timeout)
        return dict_of(reply.input_schema)

    async def output_schema(self, *, llm_format: bool = False, timeout: float | None = None) -> dict[str, Any]:
        """JSON schema of the module's outputs. `llm_format` wraps it as `{"json_schema": ...}`, without references."""
        reply = await self._stub.get_module_output(GetModuleOutputRequest(llm_format=llm_format), timeout=timeout)
        return dict_of(reply.output_schema)

    async def setup_schema(self, *, llm_format: bool = False, timeout: float | None = None) -> dict[str, Any]:
        """JSON schema of what jobs run with. `llm_format` wraps it as `{"json_schema": ...}`, without references."""
        reply = await self._stub.get_module_setup(GetModuleSetupRequest(llm_format=llm_format), timeout=timeout)
        return dict_of(reply.setup_schema)

    async def config_setup_schema(self, *, llm_format: bool = False, timeout: float | None = None) -> dict[str, Any]:
        """JSON schema of the form. `llm_format` splits it into `{"json_schema": ..., "ui_schema": ...}`."""
        request = GetConfigSetupModuleRequest(llm_format=llm_format)
        reply = await self._stub.get_config_setup_module(request, timeout=timeout)
        return dict_of(reply.config_setup_schema)

    async def secret_schema(self, *, llm_format: bool = False, timeout: float | None = None) -> dict[str, Any]:
        """JSON schema of the module's secrets. `llm_format` splits it into `{"json_schema": ..., "ui_schema": ...}`."""
        reply = await self._stub.get_module_secret(GetModuleSecretRequest(llm_format=llm_format), timeout=timeout)
        return dict_of(reply.secret_schema)

    async def cost_schema(self, *, llm_format: bool = False, timeout: float | None = None) -> dict[str, Any]:
        """What the module charges: `{name: {name, type, description, unit, rate}}`."""
        reply = await self._stub.get_module_cost(GetModuleCostRequest(llm_format=llm_format), timeout=timeout)
        return dict_of(reply.cost_schema)

    async def select_schema(self, *, timeout: float | None = None) -> dict[str, Any]:
        """The form for the selection of triggers: `{"json_schema": ..., "ui_schema": ...}`, or `{}`."""
        reply = await self._stub.get_module_select_input(GetModuleSelectInputRequest(), timeout=timeout)
        return dict_of(reply.select_input_schema)


def wrap_input(input_data: Mapping[str, Any], protocol: str | None = None) -> dict[str, Any]:
    """An input as StartModule wants it.

    A mapping with `root` is the input itself; any other is the root. A given `protocol` is put into a root that has
    none.

    Raises:
        ValueError: The root has another protocol already.
    """
    wrapped = dict(input_data) if "root" in input_data else {"root": input_data}
    root = wrapped["root"]
    if protocol is not None and isinstance(root, Mapping):
        given = root.get("protocol", protocol)
        if given != protocol:
            raise ValueError(f"the input says protocol {given!r} and the argument says {protocol!r}")
        wrapped["root"] = {"protocol": protocol, **root}
    return wrapped


def channel_options(settings: ChannelSettings) -> rpc.ChannelOptions:
    """The channel's options from the settings of the environment."""
    return rpc.ChannelOptions(
        keepalive_time=settings.keepalive_time,
        keepalive_timeout=settings.keepalive_timeout,
        min_ping_interval=settings.min_ping_interval,
        dns_min_interval=settings.dns_resolution_interval,
        reconnect=rpc.BackoffPolicy(
            initial=settings.initial_reconnect_backoff,
            maximum=settings.max_reconnect_backoff,
            minimum=settings.min_reconnect_backoff,
        ),
        retry=rpc.RetryPolicy(
            max_attempts=settings.retry_max_attempts,
            initial_backoff=settings.retry_initial_backoff,
            max_backoff=settings.retry_max_backoff,
            multiplier=settings.retry_backoff_multiplier,
        ),
    )


def dict_of(struct: Struct | None) -> dict[str, Any]:
    """What a reply has in a Struct, whose bytes are only looked at here.

    Raises:
        GRPCError: INTERNAL, as for any other reply that cannot be decoded.
    """
    try:
        fields: dict[str, Any] = struct.to_dict() if struct is not None else {}
    except DecodeError as error:
        raise GRPCError(Status.INTERNAL, f"the reply cannot be read: {error}") from error
    return fields
