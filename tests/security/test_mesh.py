"""A provider and a module behind mTLS and tokens, over sockets, with all that goes between them; and grpcio."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import grpc
import pytest
import trio
import trio.testing
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from tests.module.remote_kit import MISSION, MODULE_ID, Message, Setup, module, say

from dk_trio import ModuleClient, ModuleServer, Settings, rpc
from dk_trio.errors import ConfigurationError
from dk_trio.module import ModuleContext
from dk_trio.pb.agentic_mesh_protocol.registry.v1 import GetModuleRequest, RegistryServiceStub
from dk_trio.pb.agentic_mesh_protocol.setup.v1 import CreateSetupRequest, SetupServiceStub, SetupStatus, SetupVersion
from dk_trio.pb.agentic_mesh_protocol.storage.v1 import ListRecordsRequest, StorageServiceStub
from dk_trio.pb.agentic_mesh_protocol.task_manager.v1 import SendSignalsRequest, Task, TaskManagerServiceStub
from dk_trio.pb.google.protobuf import Struct
from dk_trio.provider import Provider
from dk_trio.security import Security
from dk_trio.services.channels import ChannelCache
from dk_trio.services.local.platform import LocalPlatform
from dk_trio.services.stores.sqlite import SqliteDatabase
from dk_trio.settings import SecuritySettings, ServerSettings, ServicesSettings

from .kit import GOOD, OLD, PATIENCE, Files, calling, serving, status, until


async def keep_and_wait(self: Any, data: Message, setup: Setup, context: ModuleContext) -> None:
    record = await context.storage.store("notes", data.text, {"text": setup.prefix + data.text})
    await say(context, record.record_id)
    await trio.sleep_forever()


@asynccontextmanager
async def mesh(files: Files, token: str = GOOD) -> AsyncIterator[tuple[Provider, str, ModuleServer, str]]:
    """A provider that wants `GOOD`, and a module that shows it `token` and wants `OLD`, on free ports."""
    guard = Security(files.settings(mutual=True, auth_token=GOOD))
    provider = Provider(SqliteDatabase(None), security=guard)
    with trio.fail_after(PATIENCE):
        async with provider.running(port=0) as its_address:
            settings = Settings(
                security=files.settings(mutual=True, auth_token=OLD, client_token=token),
                services=ServicesSettings(mode="remote", provider=its_address, data_dir=None),
                server=ServerSettings(advertise_host="127.0.0.1"),
            )
            server = ModuleServer(module(keep_and_wait), settings=settings)
            async with server.running(port=0) as address:
                yield provider, its_address, server, address


async def test_registration_setups_storage_and_signals_go_over_mtls_with_a_token(files: Files) -> None:
    as_provider_wants = files.settings(mutual=True, client_token=GOOD)
    as_module_wants = files.settings(mutual=True, client_token=OLD)
    async with (
        mesh(files) as (provider, its_address, server, address),
        calling(its_address, as_provider_wants) as channel,
        calling(address, as_module_wants) as to_module,
    ):
        created = await SetupServiceStub(channel).create_setup(
            CreateSetupRequest(
                name="sample",
                organisation_id="organisations:o",
                owner_id="users:u",
                module_id=MODULE_ID,
                current_setup_version=SetupVersion(version="1", content=Struct.from_dict({"prefix": "> "})),
                status=SetupStatus.READY,
            )
        )
        assert created.setup is not None
        await until(lambda: dict(server.health.statistics().services)["readiness"])
        registered = await RegistryServiceStub(channel).get_module(GetModuleRequest(module_id=MODULE_ID))
        assert f"{registered.address}:{registered.port}" == address
        client = ModuleClient(to_module)
        with pytest.raises(GRPCError) as caught:
            async with client.start(
                {"text": "n1"}, protocol="message", setup_id=created.setup.id, mission_id=MISSION
            ) as outputs:
                async for output in outputs:
                    if output["root"]["protocol"] == "message":
                        cancel = Task(task_id=outputs.job_id, mission_id=MISSION, action="cancel")
                        await TaskManagerServiceStub(channel).send_signals(SendSignalsRequest(tasks=[cancel]))
        assert caught.value.status is Status.CANCELLED
        found = await StorageServiceStub(channel).list_records(ListRecordsRequest(context=MISSION, collection="notes"))
        assert [record.data and record.data.to_dict() for record in found.records] == [{"text": "> n1"}]
        assert provider.statistics().security.calls_refused == {}
        assert provider.statistics().rpc.handshakes_failed == {}


async def test_a_module_with_a_wrong_token_is_not_ready_and_says_why(
    files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    async with mesh(files, token="w" * 32) as (provider, _, server, _):
        await until(lambda: provider.statistics().security.calls_refused.get("wrong_token", 0) > 2)
        assert not dict(server.health.statistics().services)["readiness"]
        assert "UNAUTHENTICATED" in server._link.health()["registration"]  # type: ignore[union-attr]
    told = [record for record in caplog.records if "calls from 127.0.0.1 are refused" in record.getMessage()]
    assert len(told) == 1
    assert "w" * 32 not in caplog.text


async def test_a_token_that_would_leave_in_plaintext_keeps_a_module_from_starting() -> None:
    settings = Settings(
        security=SecuritySettings(client_token=GOOD),
        services=ServicesSettings(mode="remote", provider="provider.mesh:50051", data_dir=None),
    )
    with pytest.raises(ConfigurationError, match=r"would go to provider\.mesh:50051 in plaintext"):
        ModuleServer(module(keep_and_wait), settings=settings)


def by_grpcio(address: str, files: Files, *, cert: bool, token: str) -> tuple[grpc.StatusCode, str]:
    """One call, as a program of another make sends it."""
    pem, key = files.client
    credentials = grpc.ssl_channel_credentials(
        files.ca.read_bytes(),
        key.read_bytes() if cert else None,
        pem.read_bytes() if cert else None,
    )
    credentials = grpc.composite_channel_credentials(credentials, grpc.access_token_call_credentials(token))
    with grpc.secure_channel(address, credentials) as channel:
        try:
            call = channel.unary_unary("/test.Service/unary").with_call(b"", timeout=PATIENCE)[1]
            return call.code(), call.details()
        except grpc.RpcError as error:
            return error.code(), error.details()


async def test_grpcio_over_mtls_with_a_token(files: Files) -> None:
    security = Security(files.settings(mutual=True, auth_token=GOOD))
    async with serving(security) as (server, address):
        address = address.replace("127.0.0.1", "localhost")

        async def ask(**how: Any) -> tuple[grpc.StatusCode, str]:
            return await trio.to_thread.run_sync(lambda: by_grpcio(address, files, **how))

        assert (await ask(cert=True, token=GOOD))[0] is grpc.StatusCode.OK
        code, text = await ask(cert=True, token=OLD)
        assert code is grpc.StatusCode.UNAUTHENTICATED
        assert "the bearer token is none of this server's" in text
        code, _ = await ask(cert=False, token=GOOD)
        assert code is grpc.StatusCode.UNAVAILABLE
    assert security.statistics().calls_refused == {"wrong_token": 1}
    assert set(server.statistics().handshakes_failed) == {"no_certificate"}


async def test_plaintext_that_leaves_the_machine_is_told_once_for_each_server(
    caplog: pytest.LogCaptureFixture,
) -> None:
    cache = ChannelCache()
    async with cache.opened():
        for host in ("10.0.0.7", "10.0.0.7", "10.0.0.8", "127.0.0.1"):
            (await cache.lease(host, 50055, options=rpc.ChannelOptions(connections=len(caplog.records) + 1))).release()
    assert [record.getMessage().split(" are ")[0] for record in caplog.records] == [
        "calls to 10.0.0.7:50055",
        "calls to 10.0.0.8:50055",
    ]


async def test_a_cache_speaks_the_tls_of_its_owner_unless_it_is_told_otherwise(files: Files) -> None:
    settings = files.settings(mutual=True)
    security = Security(settings)
    cache = ChannelCache(security=security.client)
    async with serving(security) as (_, address), cache.opened():
        for ssl_context, code in ((None, Status.UNIMPLEMENTED), (False, Status.UNAVAILABLE)):
            once = rpc.ChannelOptions(retry=rpc.RetryPolicy(max_attempts=1))
            lease = await cache.lease_target(address, ssl_context=ssl_context, options=once)
            assert (await status(lease.channel, method="/test.Service/nothing"))[0] is code
            lease.release()


async def test_a_token_is_not_shown_to_modules_of_the_same_process(autojump_clock: trio.testing.MockClock) -> None:
    """They want none, and what they were shown they might pass on."""
    seen: list[Any] = []

    async def look(self: Any, data: Message, setup: Setup, context: ModuleContext) -> None:
        seen.append(context.request_metadata.authorization)

    async def call(self: Any, data: Message, setup: Setup, context: ModuleContext) -> None:
        async with context.communication.start_module(
            "callee.mesh", 50055, {"protocol": "message"}, "setups:s", MISSION, metadata=context.request_metadata
        ) as answers:
            async for _ in answers:
                pass

    platform = LocalPlatform()
    named = partial(module, services_config_params={})
    local = ServicesSettings(data_dir=None)
    own = Settings(services=local, security=SecuritySettings(auth_token=OLD, client_token=GOOD))
    callee = ModuleServer(named(look, metadata={"module_id": "modules:callee"}), settings=own, platform=platform)
    caller = ModuleServer(named(call, metadata={"module_id": "modules:caller"}), settings=own, platform=platform)
    with trio.fail_after(86400):
        async with platform.opened(), callee.opened(), caller.opened(), trio.open_nursery() as nursery:
            with platform.registry.serving(
                callee.modules["callee"].info("callee.mesh", 50055),
                connect=callee.modules["callee"].connect,
            ):

                async def connect() -> trio.abc.Stream:
                    ours, theirs = trio.testing.memory_stream_pair()
                    nursery.start_soon(caller.serve_stream, theirs)
                    return ours

                async with rpc.open_channel("memory", connect=connect) as channel:
                    client = ModuleClient(channel)
                    metadata = {"authorization": f"Bearer {OLD}", "x-kept": "1"}
                    async with client.start({"protocol": "message"}, metadata=metadata) as outputs:
                        async for _ in outputs:
                            pass
                nursery.cancel_scope.cancel()
    assert seen == [None]
