"""Several servers in front of one provider of ours: what the locks of one process cannot keep apart."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import trio
from pydantic import BaseModel
from tests.provider.kit import provided

from dk_trio.errors import CostLimitError
from dk_trio.services.channels import ChannelCache
from dk_trio.services.cost import CostConfig, CostType, QuantityLimit
from dk_trio.services.provider_clients import ProviderClients
from dk_trio.services.remote.cost import GrpcCost
from dk_trio.services.remote.storage import GrpcStorage

IDS = ("missions:m", "setups:s", "setup_versions:v")


class Texts(BaseModel):
    texts: list[str] = []


@asynccontextmanager
async def servers(count: int) -> AsyncIterator[list[ProviderClients]]:
    async with provided() as it, AsyncExitStack() as stack:
        clients = []
        for _ in range(count):
            channels = await stack.enter_async_context(ChannelCache().opened())
            server = ProviderClients(channels, target="provider:1", connect=it.connect)
            clients.append(await stack.enter_async_context(server.opened()))
        yield clients


async def test_no_amend_of_any_server_is_lost(autojump_clock: object) -> None:
    async with servers(5) as all_of_them:
        storages = [GrpcStorage(*IDS, config={"texts": Texts}, providers=clients) for clients in all_of_them]

        async def add(storage: GrpcStorage, text: str) -> None:
            def change(data: dict[str, Any] | None) -> dict[str, Any]:
                return {"texts": [*(data or {}).get("texts", []), text]}

            await storage.amend("texts", "one", change)

        async with trio.open_nursery() as nursery:
            for number in range(25):
                nursery.start_soon(add, storages[number % 5], str(number))
        record = await storages[0].read("texts", "one")
        assert record is not None
        assert sorted(record.data.texts, key=int) == [str(number) for number in range(25)]


async def test_a_limit_of_a_mission_holds_across_servers(autojump_clock: object) -> None:
    price = CostConfig(cost_name="search", cost_type=CostType.API_CALL, unit="call", rate=0.1)
    limits = [QuantityLimit(name="search", max_value=10, scope="mission")]
    refused = []
    async with servers(4) as all_of_them:
        costs = [
            GrpcCost(*IDS, config={"search": price}, providers=clients, cost_limits=limits) for clients in all_of_them
        ]

        async def add(cost: GrpcCost) -> None:
            try:
                await cost.add("a", "search", 1)
            except CostLimitError as error:
                refused.append(error)

        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(add, costs[number % 4])
        assert len(await costs[0].get_filtered()) == 10
        assert len(refused) == 10
