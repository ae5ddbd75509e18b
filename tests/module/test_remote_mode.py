"""A server in remote mode: services and setups at a provider, outages, registration, readiness."""

import logging
from contextlib import suppress
from dataclasses import replace
from typing import Any
from urllib.parse import unquote

import pytest
import trio
import trio.testing
from grpclib import GRPCError, Status
from grpclib.const import Cardinality
from tests.provider.kit import Provided, provided

from dk_trio import ModuleServer, rpc
from dk_trio.errors import StorageServiceError
from dk_trio.module import ModuleContext
from dk_trio.pb.agentic_mesh_protocol.registry.v1 import GetModuleRequest, ModuleStatus, RegistryServiceStub
from dk_trio.pb.agentic_mesh_protocol.setup.v1 import SetupServiceStub, UpdateSetupVersionRequest
from dk_trio.pb.agentic_mesh_protocol.storage.v1 import ListRecordsRequest, StorageServiceStub
from dk_trio.pb.google.protobuf import Struct
from dk_trio.pb.grpc.health.v1 import HealthCheckRequest, HealthCheckResponse
from dk_trio.registration import WITHDRAW_WITHIN
from dk_trio.services.remote.registry import GrpcRegistry

from .remote_kit import (
    MISSION,
    MODULE_ID,
    REMOTE,
    Network,
    Setup,
    echo,
    keep,
    module,
    remote,
    stored_setup,
    wall_clock,
)
from .sample import Message
from .served import outputs_of


async def test_a_job_runs_with_a_setup_of_the_provider(autojump_clock: trio.testing.MockClock) -> None:
    async with remote(echo) as (_, client, _, setup_id):
        outputs = await outputs_of(client, {"text": "hello"}, protocol="message", setup_id=setup_id)
    assert outputs[1]["root"]["text"] == "> hello"


async def test_what_a_job_stores_is_at_the_provider(autojump_clock: trio.testing.MockClock) -> None:
    async with remote(keep) as (_, client, network, setup_id):
        await outputs_of(client, {"text": "n1"}, protocol="message", setup_id=setup_id, mission_id=MISSION)
        found = await StorageServiceStub(network.provider.channel).list_records(
            ListRecordsRequest(context=MISSION, collection="notes")
        )
    assert [(record.record_id, record.data and record.data.to_dict()) for record in found.records] == [
        ("n1", {"text": "n1"})
    ]


async def test_a_setup_that_is_not_stored_is_not_found(autojump_clock: trio.testing.MockClock) -> None:
    async with remote(echo) as (_, client, network, _):
        with pytest.raises(GRPCError, match="none is stored under it") as caught:
            await outputs_of(client, {"text": "x"}, protocol="message", setup_id="setups:unknown")
        assert caught.value.status is Status.NOT_FOUND
        other = await stored_setup(network.provider, {}, module_id="modules:other")
        with pytest.raises(GRPCError, match="one of the module 'modules:other'") as caught:
            await outputs_of(client, {"text": "x"}, protocol="message", setup_id=other)
        assert caught.value.status is Status.NOT_FOUND


async def test_an_outage_is_unavailable_and_not_not_found(autojump_clock: trio.testing.MockClock) -> None:
    async with remote(echo) as (_, client, network, setup_id):
        await network.fail()
        with pytest.raises(GRPCError, match="cannot be told") as caught:
            await outputs_of(client, {"text": "x"}, protocol="message", setup_id=setup_id)
        assert caught.value.status is Status.UNAVAILABLE
        network.heal()
        await trio.sleep(60)
        assert len(await outputs_of(client, {"text": "x"}, protocol="message", setup_id=setup_id)) == 3


async def test_a_setup_that_is_cached_survives_an_outage(autojump_clock: trio.testing.MockClock) -> None:
    async with remote(echo) as (_, client, network, setup_id):
        await outputs_of(client, {"text": "x"}, protocol="message", setup_id=setup_id)
        await network.fail()
        outputs = await outputs_of(client, {"text": "y"}, protocol="message", setup_id=setup_id)
        assert outputs[1]["root"]["text"] == "> y"


async def test_a_setup_that_was_changed_there_is_used_when_the_cache_is_old(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with remote(echo) as (_, client, network, setup_id):
        first = await outputs_of(client, {"text": "x"}, protocol="message", setup_id=setup_id)
        await SetupServiceStub(network.provider.channel).update_setup_version(
            UpdateSetupVersionRequest(
                setup_version_id=first[0]["root"]["setup_version_id"],
                version="1",
                content=Struct.from_dict({"prefix": "# "}),
            )
        )
        await trio.sleep(REMOTE.lifecycle.setup_cache_ttl + 1)
        second = await outputs_of(client, {"text": "x"}, protocol="message", setup_id=setup_id)
    assert second[1]["root"]["text"] == "# x"


async def test_what_was_configured_runs_before_its_caller_has_stored_it(autojump_clock: trio.testing.MockClock) -> None:
    async with remote(echo) as (_, client, _, _):
        await client.config_setup({"prefix": "! "}, setup_id="setups:new")
        outputs = await outputs_of(client, {"text": "x"}, protocol="message", setup_id="setups:new")
    assert outputs[1]["root"]["text"] == "! x"


async def test_an_author_can_tell_an_outage_from_a_mistake(autojump_clock: trio.testing.MockClock) -> None:
    found: list[Status] = []

    async def careful(self: Any, data: Message, setup: Setup, context: ModuleContext) -> None:
        try:
            await context.storage.store("notes", "a", {"text": "a"})
        except StorageServiceError as error:
            found.append(error.status)

    async with remote(careful) as (_, client, network, setup_id):
        await outputs_of(client, {}, protocol="message", setup_id=setup_id)
        await outputs_of(client, {}, protocol="message", setup_id=setup_id)
        await network.fail()
        await outputs_of(client, {}, protocol="message", setup_id=setup_id)
    assert found == [Status.ALREADY_EXISTS, Status.UNAVAILABLE]


async def test_the_log_says_where_the_author_was_when_a_remote_service_failed(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with remote(keep) as (_, client, network, setup_id):
        await outputs_of(client, {"text": "a"}, protocol="message", setup_id=setup_id)
        await network.fail()
        with pytest.raises(GRPCError, match="ended with UNAVAILABLE"):
            await outputs_of(client, {"text": "b"}, protocol="message", setup_id=setup_id)
    (line,) = [record.getMessage() for record in caplog.records if "failed: STORAGE_FAILED" in record.getMessage()]
    code = keep.__code__
    assert line.endswith(f"({code.co_filename}:{code.co_firstlineno + 1} in keep)")


# -- registration and readiness ---------------------------------------------------------------------------------------


async def readiness(server: ModuleServer) -> tuple[str, str]:
    """What a health check says of readiness, and why."""
    ours, theirs = trio.testing.memory_stream_pair()

    async def connect() -> trio.abc.Stream:
        return ours

    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.serve_stream, theirs)
        async with rpc.open_channel("memory", connect=connect) as channel:
            call = channel.request(
                "/grpc.health.v1.Health/Check", Cardinality.UNARY_UNARY, HealthCheckRequest, HealthCheckResponse
            )
            async with call as stream:
                await stream.send_message(HealthCheckRequest(service="readiness"), end=True)
                await stream.recv_initial_metadata()
                why = unquote(str(stream.initial_metadata.get("health-why", "")))
                reply = await stream.recv_message()
        nursery.cancel_scope.cancel()
    return reply.status.name, why


async def found(provider: Provided) -> Any:
    return await RegistryServiceStub(provider.channel).get_module(GetModuleRequest(module_id=MODULE_ID))


async def test_a_server_registers_and_takes_it_back(autojump_clock: trio.testing.MockClock) -> None:
    async with provided(now=wall_clock) as provider:
        server = ModuleServer(module(echo), settings=REMOTE, provider=provider.connect)
        async with server.running(port=0) as address:
            await trio.sleep(1)
            row = await found(provider)
            assert (row.address, row.port, row.version) == ("sample.mesh", int(address.rpartition(":")[2]), "1.2")
            assert row.status is ModuleStatus.ACTIVE
            assert await readiness(server) == ("SERVING", "")
            await trio.sleep(300)
            assert (await found(provider)).status is ModuleStatus.ACTIVE  # ten leases later
            await server.drain(0)
            assert (await found(provider)).status is ModuleStatus.READY


@pytest.mark.parametrize("fails", [False, True], ids=["left", "failed"])
async def test_a_program_that_leaves_its_server_takes_it_back(
    autojump_clock: trio.testing.MockClock, fails: bool
) -> None:
    async with provided(now=wall_clock) as provider:
        server = ModuleServer(module(echo), settings=REMOTE, provider=provider.connect)
        with suppress(ValueError):
            async with server.running(port=0):
                await trio.sleep(1)
                if fails:
                    raise ValueError("of the program around it")
        assert (await found(provider)).status is ModuleStatus.READY


async def test_a_server_whose_siblings_serve_on_takes_nothing_back(autojump_clock: trio.testing.MockClock) -> None:
    async with provided(now=wall_clock) as provider:
        server = ModuleServer(module(echo), settings=REMOTE, provider=provider.connect)
        async with server.running(port=0):
            await trio.sleep(1)
            await server.drain(0, withdraw=False)
        assert (await found(provider)).status is ModuleStatus.ACTIVE


async def test_a_server_whose_provider_is_away_is_left_soon(autojump_clock: trio.testing.MockClock) -> None:
    async with provided(now=wall_clock) as provider:
        network = Network(provider)
        server = ModuleServer(module(echo), settings=REMOTE, provider=network.connect)
        async with server.running(port=0):
            await trio.sleep(1)
            await network.fail()
            left_at = trio.current_time()
        assert trio.current_time() - left_at < WITHDRAW_WITHIN + 1


async def test_a_server_whose_registry_hangs_is_left_soon_and_tells(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(*_: Any) -> bool:
        await trio.sleep_forever()
        return True

    monkeypatch.setattr(GrpcRegistry, "deregister", hang)
    async with provided(now=wall_clock) as provider:
        server = ModuleServer(module(echo), settings=REMOTE, provider=provider.connect)
        async with server.running(port=0):
            await trio.sleep(1)
            left_at = trio.current_time()
        assert trio.current_time() - left_at < WITHDRAW_WITHIN + 1
    assert "could not be deregistered within 2 s" in caplog.text


def server_of(network: Network, host: str) -> ModuleServer:
    settings = replace(REMOTE, server=replace(REMOTE.server, advertise_host=host))
    return ModuleServer(module(echo), settings=settings, provider=network.connect)


async def test_a_server_that_is_replaced_takes_nothing_back_from_its_successor(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with provided(now=wall_clock) as provider:
        old, new = (server_of(Network(provider), host) for host in ("old.mesh", "new.mesh"))
        async with old.running(port=0):
            await trio.sleep(1)
            async with new.running(port=0):
                await trio.sleep(15)
                row = await found(provider)
                assert (row.address, row.status) == ("new.mesh", ModuleStatus.ACTIVE)
                await old.drain(0)
                assert (await found(provider)).status is ModuleStatus.ACTIVE
                await trio.sleep(100)
                row = await found(provider)
                assert (row.address, row.status) == ("new.mesh", ModuleStatus.ACTIVE)


async def test_of_two_servers_of_a_module_the_one_that_lives_is_found(autojump_clock: trio.testing.MockClock) -> None:
    async with provided(now=wall_clock) as provider:
        network = Network(provider)
        one, two = server_of(Network(provider), "one.mesh"), server_of(network, "two.mesh")
        async with one.running(port=0):
            await trio.sleep(1)
            async with two.running(port=0):
                await trio.sleep(30)
                row = await found(provider)
                assert (row.address, row.status) == ("two.mesh", ModuleStatus.ACTIVE)
                network.away = True
                for stream in list(provider.streams):  # it dies without a word
                    await trio.aclose_forcefully(stream)
                await trio.sleep(60)
                row = await found(provider)
                assert (row.address, row.status) == ("one.mesh", ModuleStatus.ACTIVE)


class OwnNetwork(Network):
    """The way of one server alone."""

    async def connect(self) -> trio.abc.Stream:
        stream = await super().connect()
        self.streams = [*getattr(self, "streams", []), stream]
        return stream

    async def fail(self) -> None:
        self.away = True
        for stream in self.streams:
            await trio.aclose_forcefully(stream)


@pytest.mark.parametrize("dies", [True, False])
async def test_when_one_of_two_servers_goes_the_other_one_is_found_at_once(
    autojump_clock: trio.testing.MockClock, dies: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "dk_trio.provider")
    async with provided(now=wall_clock) as provider:
        network = OwnNetwork(provider)
        one, two = server_of(OwnNetwork(provider), "one.mesh"), server_of(network, "two.mesh")
        async with one.running(port=0), two.running(port=0):
            await trio.sleep(500)
            row = await found(provider)
            assert (row.address, row.status) == ("two.mesh", ModuleStatus.ACTIVE)
            assert "is found at" not in caplog.text
            await (network.fail() if dies else two.drain(0))
            await trio.testing.wait_all_tasks_blocked()
            for _ in range(10):
                row = await found(provider)
                assert (row.address, row.status) == ("one.mesh", ModuleStatus.ACTIVE)
                await trio.sleep(10)
            network.heal()
            assert caplog.text.count("is found at") == 1


@pytest.mark.parametrize(("instance", "left"), [("crew-0", ModuleStatus.READY), ("", ModuleStatus.ACTIVE)])
async def test_a_successor_takes_over_the_lease_of_its_place(
    autojump_clock: trio.testing.MockClock, instance: str, left: ModuleStatus
) -> None:
    """So a module is not found any more once the last one has gone, also if one before it had no time to say so."""
    async with provided(now=wall_clock) as provider:
        for dies in (True, False):
            network = Network(provider)
            server = ModuleServer(module(echo), settings=REMOTE, provider=network.connect)
            async with server.running(host="here", port=1, listeners=[], instance=instance):
                await trio.sleep(1)
                if dies:
                    await network.fail()
                else:
                    await server.drain(0)
        assert (await found(provider)).status is left


async def test_a_server_that_dies_is_not_found_for_long(autojump_clock: trio.testing.MockClock) -> None:
    async with provided(now=wall_clock) as provider:
        network = Network(provider)
        server = ModuleServer(module(echo), settings=REMOTE, provider=network.connect)
        async with server.running(port=0):
            await trio.sleep(1)
            await network.fail()  # as seen from the provider
            await trio.sleep(60)
            assert (await found(provider)).status is ModuleStatus.READY
            network.heal()
            await trio.sleep(30)
            assert (await found(provider)).status is ModuleStatus.ACTIVE


async def test_a_provider_that_is_away_at_the_start(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with provided(now=wall_clock) as provider:
        network = Network(provider)
        network.away = True
        server = ModuleServer(module(echo), settings=REMOTE, provider=network.connect)
        async with server.running(port=0):
            await trio.sleep(100)
            state, why = await readiness(server)
            assert state == "NOT_SERVING"
            assert "provider:50051" in why
            network.heal()
            await trio.sleep(13)  # the longest pause between two connections, and no other one after that
            assert await readiness(server) == ("SERVING", "")
            await network.fail()
            await trio.sleep(100)
            assert (await readiness(server))[0] == "SERVING"  # jobs may not even notice
    assert "registering modules:sample failed, it is tried again" in caplog.text
    assert "registered modules:sample at sample.mesh:" in caplog.text


async def test_a_provider_that_has_forgotten_everything(autojump_clock: trio.testing.MockClock) -> None:
    async with provided(now=wall_clock) as first, provided(now=wall_clock) as second:
        network = Network(first)
        server = ModuleServer(module(echo), settings=REMOTE, provider=network.connect)
        async with server.running(port=0):
            await trio.sleep(1)
            await network.fail()
            network.provider = second
            network.heal()
            await trio.sleep(30)
            assert (await found(second)).status is ModuleStatus.ACTIVE


async def test_health_checks_name_what_the_server_keeps_up(autojump_clock: trio.testing.MockClock) -> None:
    async with remote(echo) as (_, client, network, setup_id):

        async def services() -> dict[str, str]:
            outputs = await outputs_of(client, {}, protocol="healthcheck_services", setup_id=setup_id)
            return {row["name"]: row["status"] for row in outputs[1]["root"]["services"]}

        well = await services()
        assert (well["storage"], well["signals out"], well["signals in"]) == ("healthy", "healthy", "healthy")

        async def job() -> None:
            async with client.start({"count": 100}, protocol="message", setup_id=setup_id) as outputs:
                async for _ in outputs:
                    pass

        async with trio.open_nursery() as nursery:
            nursery.start_soon(job)
            await trio.sleep(1)
            await network.fail()
            await trio.sleep(60)
            ill = await services()
            nursery.cancel_scope.cancel()
        assert ill["storage"] == "unhealthy"


def test_settings_of_local_mode_make_no_ends() -> None:
    settings = replace(REMOTE, services=replace(REMOTE.services, mode="local"))
    server = ModuleServer(module(echo), settings=settings)
    assert server.statistics().provider is None
