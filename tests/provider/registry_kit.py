"""Calls of the two registries and of the setup service, short."""

import json
from typing import Any

from dk_trio import extensions
from dk_trio.pb.agentic_mesh_protocol.module_registry.v1 import ModuleRegistryServiceStub
from dk_trio.pb.agentic_mesh_protocol.registry.v1 import (
    DiscoverModulesRequest,
    GetModuleRequest,
    HeartbeatRequest,
    ModuleDescriptor,
    RegisterModuleRequest,
    RegistryServiceStub,
)
from dk_trio.pb.agentic_mesh_protocol.setup.v1 import SetupServiceStub

from .kit import Provided


def registry(peer: Provided) -> RegistryServiceStub:
    return RegistryServiceStub(peer.channel)


def older(peer: Provided) -> ModuleRegistryServiceStub:
    return ModuleRegistryServiceStub(peer.channel)


def setups(peer: Provided) -> SetupServiceStub:
    return SetupServiceStub(peer.channel)


async def register(peer: Provided, key: str, *, port: int = 50051, **told: Any) -> ModuleDescriptor:
    request = RegisterModuleRequest(module_id=f"modules:{key}", address=f"{key}.local", port=port, version="1.0")
    metadata = {extensions.MODULE: json.dumps(told).encode()} if told else {}
    reply = await registry(peer).register_module(request, metadata=metadata)
    assert reply.module is not None
    return reply.module


async def status(peer: Provided, key: str) -> str | None:
    return (await registry(peer).get_module(GetModuleRequest(module_id=f"modules:{key}"))).status.name


async def beat(peer: Provided, key: str) -> str | None:
    return (await registry(peer).heartbeat(HeartbeatRequest(module_id=f"modules:{key}"))).status.name


async def found(peer: Provided, query: str = "", **fields: Any) -> list[str]:
    reply = await registry(peer).discover_modules(DiscoverModulesRequest(query=query, **fields))
    return [module.id.removeprefix("modules:") for module in reply.modules]
