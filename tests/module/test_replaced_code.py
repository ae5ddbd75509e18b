"""A server whose module is replaced while it serves, with a services-provider."""

from typing import Any

import trio
from tests.provider.kit import provided
from tests.provider.registry_kit import registry, status
from trio.testing import MockClock

from dk_trio import ModuleServer
from dk_trio.hosting import define
from dk_trio.pb.agentic_mesh_protocol.registry.v1 import DiscoverModulesRequest, ModuleDescriptor
from dk_trio.server import READINESS

from .remote_kit import MODULE_ID, REMOTE, Network, echo, module, wall_clock
from .served import DAY


async def replace(server: ModuleServer, new: Any) -> None:
    (key, hosted), *_ = server.modules.items()
    await server.replace({key: hosted.prepare(define(new, server.settings))})


def version(number: str) -> Any:
    return module(echo, metadata={"module_id": MODULE_ID, "version": number})


async def test_the_registry_is_told_and_the_server_stays_ready(autojump_clock: MockClock) -> None:
    with trio.fail_after(DAY):
        async with provided(now=wall_clock) as provider:
            network = Network(provider)
            server = ModuleServer(version("1"), settings=REMOTE, provider=network.connect)

            async def registered() -> ModuleDescriptor | None:
                reply = await registry(provider).discover_modules(DiscoverModulesRequest(query=MODULE_ID))
                return next(iter(reply.modules), None)

            async with server.running(port=0):
                await trio.sleep(1)
                found = await registered()
                assert found is not None
                assert found.version == "1"
                await network.fail()  # the readiness of a server does not go with its provider
                await replace(server, version("2"))
                await trio.sleep(30)
                assert server.health.statistics().services[READINESS]
                network.heal()
                await trio.sleep(60)
                found = await registered()
                assert found is not None
                assert (found.version, found.address) == ("2", "sample.mesh")
                assert await server.drain(0) == []


async def test_new_code_during_a_drain_registers_nobody(autojump_clock: MockClock) -> None:
    with trio.fail_after(DAY):
        async with provided(now=wall_clock) as provider:
            server = ModuleServer(version("1"), settings=REMOTE, provider=Network(provider).connect)
            async with server.running(port=0):
                await trio.sleep(1)
                assert await status(provider, "sample") == "ACTIVE"
                await server.drain(0)
                await replace(server, version("2"))
                await trio.sleep(60)
                assert await status(provider, "sample") == "READY"
