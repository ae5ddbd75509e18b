"""Replies of a peer whose bytes are no Struct. A Struct is read late, so the transport has taken them for good."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from dk_trio import ModuleClient, rpc
from dk_trio.errors import ModuleCallError
from dk_trio.pb.agentic_mesh_protocol.module.v1 import (
    ConfigSetupModuleRequest,
    ConfigSetupModuleResponse,
    GetModuleInputRequest,
    GetModuleInputResponse,
    ModuleServiceBase,
    StartModuleRequest,
    StartModuleResponse,
)
from dk_trio.pb.agentic_mesh_protocol.setup.v1 import SetupVersion
from dk_trio.pb.google.protobuf import Struct
from dk_trio.services.channels import ChannelCache
from dk_trio.services.remote.communication import GrpcCommunication

BROKEN = Struct.parse(b"\x0a\x05\x0a\x01\xff\x12\x00")
"""A field whose key is no UTF-8."""


class Peer(ModuleServiceBase):
    """A server whose bytes were changed on the way, or made by somebody else."""

    async def start_module(self, message: StartModuleRequest) -> AsyncIterator[StartModuleResponse]:
        yield StartModuleResponse(success=True, output=Struct.from_dict({"root": {"protocol": "first"}}), job_id="j")
        yield StartModuleResponse(success=True, output=BROKEN, job_id="j")
        await trio.sleep_forever()

    async def get_module_input(self, message: GetModuleInputRequest) -> GetModuleInputResponse:
        return GetModuleInputResponse(success=True, input_schema=BROKEN)

    async def config_setup_module(self, message: ConfigSetupModuleRequest) -> ConfigSetupModuleResponse:
        return ConfigSetupModuleResponse(success=True, setup_version=SetupVersion(content=BROKEN))


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[rpc.Server, Callable[[], Awaitable[trio.abc.Stream]]]]:
    server = rpc.Server([Peer()])
    with trio.fail_after(86400):
        async with trio.open_nursery() as nursery:

            async def connect() -> trio.abc.Stream:
                ours, theirs = trio.testing.memory_stream_pair()
                nursery.start_soon(server.serve_stream, theirs)
                return ours

            yield server, connect
            nursery.cancel_scope.cancel()


async def start(client: ModuleClient) -> None:
    async with client.start({"protocol": "message"}) as outputs:
        assert (await anext(outputs))["root"]["protocol"] == "first"
        await anext(outputs)


@pytest.mark.parametrize(
    "call",
    [start, lambda client: client.input_schema(), lambda client: client.config_setup({})],
    ids=["output", "schema", "setup"],
)
async def test_a_reply_that_is_no_struct_is_the_call_s_failure(
    call: Callable[[ModuleClient], Any], autojump_clock: object
) -> None:
    async with connected() as (server, connect), rpc.open_channel("memory", connect=connect) as channel:
        with pytest.raises(GRPCError, match="cannot be read") as caught:
            await call(ModuleClient(channel))
        assert caught.value.status is Status.INTERNAL
        await trio.sleep(1)
        assert server.statistics().rpcs == 0  # the job of an output that cannot be read was cancelled


@pytest.mark.parametrize("what", ["answers", "schemas"])
async def test_a_module_that_calls_such_a_peer_gets_the_error_of_calls(what: str, autojump_clock: object) -> None:
    async with connected() as (_, connect), ChannelCache(dial=lambda _: connect()).opened() as channels:
        communication = GrpcCommunication("missions:m", "setups:s", "setup_versions:v", channels=channels)
        with pytest.raises(ModuleCallError, match="cannot be read"):
            if what == "schemas":
                await communication.get_module_schemas("peer", 1)
            async with communication.start_module(
                "peer", 1, {"protocol": "message"}, "setups:s", "missions:m"
            ) as calls:
                async for _ in calls:
                    pass
