"""ModuleServer on a socket: address, health, drain. What jobs do is tested over memory."""

from typing import Any

import pytest
import trio
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from dk_trio import ModuleClient, ModuleServer, Settings, rpc
from dk_trio.errors import ListenError, ModuleDefinitionError

from .sample import module_class, module_with, send_one
from .served import DAY, outputs_of, served

# Seconds for what goes over a real socket.
PATIENCE = 20


def readiness(server: ModuleServer) -> dict[str, bool]:
    return dict(server.health.statistics().services)


async def test_it_serves_for_the_length_of_a_block() -> None:
    server = ModuleServer(module_with(send_one))
    assert readiness(server)["readiness"] is False
    with trio.fail_after(PATIENCE):
        async with server.running(port=0) as address:
            assert readiness(server) == {
                "": True,
                "liveness": True,
                "readiness": True,
                "agentic_mesh_protocol.module.v1.ModuleService": True,
            }
            async with ModuleClient.connect(address) as client:
                assert len(await outputs_of(client, {"protocol": "message"})) == 3
        assert readiness(server)["readiness"] is False
        assert "0 running, 0 queued, 1 ended" in repr(server)


async def test_an_exception_of_the_block_comes_out_as_it_was() -> None:
    with trio.fail_after(PATIENCE), pytest.raises(KeyError) as caught:
        async with ModuleServer(module_with(send_one)).running(port=0):
            raise KeyError("x")
    assert caught.value.args == ("x",)


async def test_the_settings_give_the_address() -> None:
    settings = Settings.from_environment({"SERVER_CHANNEL_HOST": "localhost", "SERVER_CHANNEL_PORT": "0"})
    with trio.fail_after(PATIENCE):
        async with ModuleServer(module_with(send_one), settings=settings).running() as address:
            assert address.startswith("localhost:")
            assert not address.endswith(":0")


async def test_a_free_port_is_the_same_on_every_address(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Any] = []

    async def on_all_interfaces(port: int, *, host: str) -> Any:
        opened[:] = await trio.open_tcp_listeners(port, host=None)  # as a name with two addresses does
        return opened

    monkeypatch.setattr(rpc, "open_tcp_listeners", on_all_interfaces)
    with trio.fail_after(PATIENCE):
        async with ModuleServer(module_with(send_one)).running(host="localhost", port=0) as address:
            assert {listener.socket.getsockname()[1] for listener in opened} == {int(address.rpartition(":")[2])}


async def test_a_port_in_use() -> None:
    with trio.fail_after(PATIENCE):
        async with ModuleServer(module_with(send_one)).running(port=0) as address:
            port = int(address.rpartition(":")[2])
            with pytest.raises(ListenError, match=f"port {port} on 127.0.0.1 is in use"):
                async with ModuleServer(module_with(send_one)).running(port=port):
                    pass


async def test_an_address_of_another_machine() -> None:
    with trio.fail_after(PATIENCE), pytest.raises(ListenError, match="is not an address of this machine"):
        async with ModuleServer(module_with(send_one)).running(host="192.0.2.1", port=0):  # RFC 5737: nobody's
            pass


async def test_a_host_that_can_be_no_name() -> None:
    with trio.fail_after(PATIENCE), pytest.raises(ListenError, match=r"The host 'a\.\.b' is not a name"):
        async with ModuleServer(module_with(send_one)).running(host="a..b", port=0):
            pass


def test_an_incomplete_module_is_refused_at_once() -> None:
    with pytest.raises(ModuleDefinitionError, match="can do nothing"):
        ModuleServer(module_class())


async def test_the_limit_of_the_settings(autojump_clock: object) -> None:
    async def sleeps(self: Any, input_data: Any, setup_data: Any, context: Any) -> None:
        await trio.sleep_forever()

    settings = Settings.from_environment({"DIGITALKIN_MAX_CONCURRENT_RPCS": "1"})
    async with (
        served(module_with(sleeps), settings=settings) as (_, client),
        client.start({"protocol": "message"}) as outputs,
    ):
        await anext(outputs)
        with pytest.raises(GRPCError) as caught:
            await outputs_of(client, {"protocol": "message"})
    assert caught.value.status is Status.RESOURCE_EXHAUSTED
    assert "1 RPCs are in progress" in str(caught.value.message)


@pytest.mark.parametrize(("grace", "ends"), [(30, True), (5, False)])
async def test_a_drain_waits_and_then_cuts(autojump_clock: object, grace: float, ends: bool) -> None:
    cleaned: list[float] = []

    async def handle(self: Any, input_data: Any, setup_data: Any, context: Any) -> None:
        await trio.sleep(20)

    async def cleanup(self: Any) -> None:
        await trio.sleep(2)
        cleaned.append(trio.current_time())

    async with served(module_with(handle, cleanup=cleanup)) as (server, client):
        started = trio.current_time()
        async with client.start({"protocol": "message"}) as outputs, trio.open_nursery() as nursery:
            await anext(outputs)
            nursery.start_soon(server.drain, grace)
            if ends:
                assert [output["root"]["protocol"] async for output in outputs] == ["end_of_stream"]
            else:
                with pytest.raises(GRPCError) as caught:
                    await anext(outputs)
                assert caught.value.status is Status.UNAVAILABLE
            assert readiness(server)["readiness"] is False
        # The drain is over only when the cleanup is.
        assert cleaned == [pytest.approx(started + min(20, grace) + 2, abs=1)]
        assert trio.current_time() < started + DAY
        statistics = server.statistics().jobs
        assert (statistics.succeeded, statistics.cancelled) == ((1, 0) if ends else (0, 1))
