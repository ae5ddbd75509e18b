"""Rules of the contract, and what becomes of a request that breaks one."""

import logging
from typing import Any

import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from dk_trio.errors import ConfigurationError
from dk_trio.pb.agentic_mesh_protocol.cost.v1 import CostFilter, CostServiceStub, CostType, GetCostsRequest
from dk_trio.pb.agentic_mesh_protocol.storage.v1 import (
    ListRecordsRequest,
    ReadRecordRequest,
    StorageServiceStub,
    StoreRecordRequest,
)
from dk_trio.provider import ProviderOptions
from dk_trio.services.channels import ChannelCache
from dk_trio.services.provider_clients import ProviderClients
from dk_trio.services.remote.cost import GrpcCost
from dk_trio.services.remote.filesystem import GrpcFilesystem
from dk_trio.services.remote.registry import GrpcRegistry
from dk_trio.services.remote.setup import GrpcSetup
from dk_trio.services.remote.storage import GrpcStorage
from dk_trio.services.remote.user_profile import GrpcUserProfile
from dk_trio.settings import SignalSettings
from dk_trio.signals import RemoteSignals, Signal, SignalAction

from .calls import told
from .kit import provided

BROKEN = GetCostsRequest(mission_id="m", limit=0, filter=CostFilter(names=["n"], setup_version_ids=["v", "w"]))


async def test_strict_names_every_field_rule_and_value(autojump_clock: Any) -> None:
    async with provided(validate="strict") as peer:
        with pytest.raises(GRPCError) as caught:
            await CostServiceStub(peer.channel).get_costs(BROKEN)
        status, reason, fields = told(caught.value)
        assert (status, reason) == (Status.INVALID_ARGUMENT, "INVALID_REQUEST")
        assert fields == {
            "mission_id": "must start with 'missions:' (prefix), got 'm'",
            "limit": "must be at least 1 (gte), got 0",
            "filter.setup_version_ids[0]": "must start with 'setup_versions:' (each.prefix), got 'v'",
            "filter.setup_version_ids[1]": "must start with 'setup_versions:' (each.prefix), got 'w'",
        }
        assert "CostService.GetCosts" in str(caught.value.message)
        assert peer.provider.statistics().validation.refused == 1
        good = GetCostsRequest(mission_id="missions:m", limit=1, filter=CostFilter(cost_types=[CostType.TIME]))
        assert (await CostServiceStub(peer.channel).get_costs(good)).total_count == 0


async def test_warn_serves_counts_and_tells_each_kind_once(
    autojump_clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with provided() as peer:
        with caplog.at_level(logging.WARNING, "dk_trio.provider"):
            for _ in range(3):
                await CostServiceStub(peer.channel).get_costs(BROKEN)
        statistics = peer.provider.statistics().validation
        assert statistics.refused == 0
        assert statistics.broken == {
            "CostService.GetCosts mission_id prefix": 3,
            "CostService.GetCosts limit gte": 3,
            "CostService.GetCosts filter.setup_version_ids[] each.prefix": 6,
        }
        lines = [record.getMessage() for record in caplog.records]
        assert len(lines) == 3
        assert "mission_id must start with 'missions:' (prefix), got 'm'" in lines[0]
        assert all("CostService.GetCosts" in line and "peer" in line for line in lines)


async def test_off_does_not_look(autojump_clock: Any) -> None:
    async with provided(validate="off") as peer:
        await CostServiceStub(peer.channel).get_costs(BROKEN)
        assert peer.provider.statistics().validation.broken == {}


async def test_a_refused_request_has_no_effect_and_large_values_are_cut(autojump_clock: Any) -> None:
    async with provided(validate="strict") as peer:
        stub = StorageServiceStub(peer.channel)
        request = StoreRecordRequest(context="x" * 500_000, collection="c", record_id="\x1b[0m\n")
        with pytest.raises(GRPCError) as caught:
            await stub.store_record(request)
        _, _, fields = told(caught.value)
        assert set(fields) == {"data", "context", "data_type"}
        assert len(fields["context"]) < 300
        with pytest.raises(GRPCError):
            await stub.read_record(ReadRecordRequest(context="missions:m", collection="c"))
        with pytest.raises(GRPCError):
            await stub.list_records(ListRecordsRequest())


@pytest.mark.parametrize(
    "options",
    [{"validate": "never"}, {"lease": 0}, {"heartbeat_ttl": -1}, {"key_ttl": float("inf")}, {"max_concurrent_rpcs": 0}],
)
def test_options_that_cannot_be_used_are_named(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        ProviderOptions(**options)
    assert str(next(iter(options.values()))) in caught.value.text


async def test_servers_of_ours_keep_the_rules(autojump_clock: object) -> None:
    """Those of checks of health and of signals, whatever ids a caller has given without their prefixes."""
    ids = ("m", "s", "v")
    async with provided(validate="strict") as it, ChannelCache().opened() as channels:
        providers = ProviderClients(channels, target="provider:1", connect=it.connect)
        async with providers.opened(), it.another() as channel:
            for strategy in (
                GrpcStorage(*ids, providers=providers, config={}),
                GrpcCost(*ids, providers=providers, config={}),
                GrpcFilesystem(*ids, providers=providers),
                GrpcRegistry(*ids, providers=providers),
                GrpcSetup(*ids, providers=providers),
                GrpcUserProfile(*ids, providers=providers),
            ):
                await strategy.check_health()
            async with RemoteSignals(channel, SignalSettings()).opened() as signals:
                names = dict(zip(("mission_id", "setup_id", "setup_version_id"), ids, strict=True))
                await signals.deliver(Signal(task_id="j", action=SignalAction.START, **names))
        assert it.provider.statistics().validation.refused == 0
