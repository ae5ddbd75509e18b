"""kill -9 and SIGSTOP of a client, a provider, a server and a worker in the middle of jobs, and what the others see."""

import signal
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trio
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from tests.cli.crowd import Caller, calling, connected, until_jobs_are
from tests.cli.processes import PATIENCE, providing, serving
from tests.sizes import size

from dk_trio import ModuleClient, rpc
from dk_trio.cli._exits import exit_of_status
from dk_trio.pb.agentic_mesh_protocol.registry.v1 import GetModuleRequest, ModuleStatus, RegistryServiceStub
from dk_trio.pb.agentic_mesh_protocol.task_manager.v1 import SendSignalsRequest, Task, TaskManagerServiceStub

from .scripts import BARE, SCRIPTED, called, free_port, numbers_of, ran, script, signals_in, until

NEVER = "wait /nowhere/at/all"

# In seconds and not in minutes; in no less, as a loaded machine stands still for some.
QUICK = {
    "SERVER_GRPC_OPTIONS_KEEPALIVE_TIME": "1000",
    "SERVER_GRPC_OPTIONS_KEEPALIVE_TIMEOUT": "5000",
    "DIGITALKIN_GRPC_KEEPALIVE_TIME_MS": "1000",
    "DIGITALKIN_GRPC_KEEPALIVE_TIMEOUT_MS": "5000",
    "DIGITALKIN_GRPC_MIN_PING_INTERVAL_MS": "0",
    "DIGITALKIN_GRPC_INITIAL_RECONNECT_MS": "50",
    "DIGITALKIN_GRPC_MIN_RECONNECT_MS": "50",
    "DIGITALKIN_GRPC_MAX_RECONNECT_MS": "100",
    "DIGITALKIN_GRPC_QUERY_TIMEOUT": "3",
    "DIGITALKIN_GRPC_TIMEOUT": "3",
    "DIGITALKIN_HEARTBEAT_INTERVAL": "0.1",
    "DIGITALKIN_MAX_CONCURRENT_RPCS": "1000",
}
# A night has them at other moments.
repeated = pytest.mark.parametrize("run", range(size(1, 8)))
SETUPS = ("--setup", "setups.json")
MEMORY = {"DIGITALKIN_DATA_DIR": ":memory:"}


@pytest.fixture(autouse=True)
def in_a_directory_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path(SETUPS[1]).write_text('{"setups:default": {}}')


# --- a client --------------------------------------------------------------------------------------------------------


@repeated
async def test_clients_that_are_killed_or_stopped_give_their_slots_back(run: int) -> None:
    """Who is killed closes its connection; who is stopped answers no ping."""
    slots = {"DIGITALKIN_MAX_CONCURRENT_TASKS": "2"}
    async with (
        serving(SCRIPTED, **QUICK, **MEMORY, **slots) as server,
        connected(server.address) as bystander,
        called(server.address, "say", NEVER) as killed,
        called(server.address, "say", NEVER) as stopped,
    ):
        stopped.process.send_signal(signal.SIGSTOP)
        killed.process.kill()
        await until_jobs_are(bystander, {"CANCELED": 2})
        async with calling(bystander, (2, script("say", NEVER)), end=True):
            await until_jobs_are(bystander, {"CANCELED": 2, "PROCESSING": 2})
        stopped.process.send_signal(signal.SIGCONT)
        assert await stopped.wait() == exit_of_status(Status.UNAVAILABLE)
        assert numbers_of(stopped) == [0]


# --- a provider ------------------------------------------------------------------------------------------------------


async def active(stub: RegistryServiceStub) -> int:
    """Wait until the module is served; the port that it is at."""
    with trio.fail_after(PATIENCE):
        while True:
            with suppress(GRPCError):  # nobody has registered it yet
                module = await stub.get_module(GetModuleRequest(module_id="modules:scripted"))
                if module.status is ModuleStatus.ACTIVE:
                    return module.port
            await trio.sleep(0.05)


@repeated
async def test_a_provider_that_stops_and_dies_costs_no_job_and_no_signal(tmp_path: Path, run: int) -> None:
    port, data = free_port(), tmp_path / "data"
    provider = ("--data-dir", str(data))
    async with (
        providing(*provider, port=port) as first,
        serving(SCRIPTED, *SETUPS, "--provider", first.address, **QUICK) as server,
        connected(server.address) as client,
        rpc.open_channel(first.address, options=rpc.ChannelOptions(wait_for_ready=True)) as channel,
    ):
        registry, tasks = RegistryServiceStub(channel, timeout=PATIENCE), TaskManagerServiceStub(channel)
        await active(registry)
        ends: dict[str, tuple[str, str]] = {}
        go_on = tmp_path / "go-on"

        async def ends_with(status: Status, *steps: str) -> None:
            caller = await ran(client, *steps)
            assert caller.status is status, caller
            ends[caller.job_id] = ("start", "stop")

        # Its setup is known then.
        await ends_with(Status.OK, "keep", "say")
        async with calling(client, (1, script("say", f"wait {go_on}", "keep", "say")), (1, script("say", NEVER))) as (
            lives_on,
            cancelled,
        ):
            first.process.send_signal(signal.SIGSTOP)
            await ends_with(Status.OK, "say")
            began = trio.current_time()
            failed = await ran(client, "keep", "say")
            assert failed.status in {Status.UNAVAILABLE, Status.DEADLINE_EXCEEDED}
            assert trio.current_time() - began < PATIENCE / 2
            first.process.send_signal(signal.SIGCONT)
            await ends_with(Status.OK, "say")

            first.process.kill()
            await first.wait()
            await ends_with(Status.OK, "say")
            async with providing(*provider, port=port) as second:
                assert await active(registry) == int(server.address.rpartition(":")[2])
                go_on.touch()
                await until(lambda: lives_on.status is not None)
                assert lives_on.status is Status.OK, lives_on
                assert lives_on.numbers == [0, 1]
                signal_ = Task(
                    task_id=cancelled.job_id,
                    mission_id="missions:m",
                    setup_id="setups:s",
                    setup_version_id="setup_versions:v",
                    action="cancel",
                    cancellation_reason="none",
                    created_at=datetime.now(UTC),
                )
                await tasks.send_signals(SendSignalsRequest(tasks=[signal_]), timeout=PATIENCE)
                await until(lambda: cancelled.status is not None)
                assert cancelled.status is Status.CANCELLED
                server.process.send_signal(signal.SIGTERM)
                assert await server.wait() == 0
                second.process.send_signal(signal.SIGTERM)
                assert await second.wait() == 0
    found = signals_in(data)
    assert not [line for line in server.lines["stderr"] if "lost" in line]
    for job in [*ends, lives_on.job_id, failed.job_id, cancelled.job_id]:
        said = [action for action, _ in found[job] if not action.startswith("ack")]
        asked = ["cancel"] if job == cancelled.job_id else []
        assert said == ["start", *asked, "stop"], (job, found[job])


# --- a server --------------------------------------------------------------------------------------------------------


@repeated
async def test_a_server_that_stops_is_found_out_and_one_that_dies_is_replaced(run: int) -> None:
    probing = rpc.ChannelOptions(keepalive_time=1, keepalive_timeout=5, min_ping_interval=0, retry=None)
    async with (
        providing("--data-dir", "data") as provider,
        serving(SCRIPTED, *SETUPS, "--provider", provider.address, **QUICK) as server,
        connected(server.address) as patient,
        ModuleClient.connect(server.address, options=probing) as client,
        rpc.open_channel(provider.address) as channel,
    ):
        registry = RegistryServiceStub(channel, timeout=PATIENCE)
        assert await active(registry) == int(server.address.rpartition(":")[2])
        in_time = Caller()

        async def with_a_deadline() -> None:
            with pytest.raises(GRPCError) as caught:
                async with patient.start({"root": script("say", NEVER)}, timeout=9) as outputs:
                    async for _ in outputs:
                        pass
            in_time.status = caught.value.status

        async with calling(client, (1, script("say", NEVER))) as (caller,), trio.open_nursery() as nursery:
            nursery.start_soon(with_a_deadline)
            await until_jobs_are(patient, {"PROCESSING": 2})
            server.process.send_signal(signal.SIGSTOP)
        assert (caller.status, in_time.status) == (Status.UNAVAILABLE, Status.DEADLINE_EXCEEDED)
        await trio.sleep(0.5)  # for the server it began a moment later, and has to be over when it goes on
        server.process.send_signal(signal.SIGCONT)
        async with connected(server.address) as other:
            await until_jobs_are(other, {"CANCELED": 1, "EXPIRED": 1})
            async with calling(other, (1, script("say", NEVER))) as (caller,):
                server.process.kill()
            assert caller.status is Status.UNAVAILABLE
        async with serving(SCRIPTED, *SETUPS, "--provider", provider.address, **QUICK) as successor:
            port = int(successor.address.rpartition(":")[2])
            with trio.fail_after(PATIENCE):
                while await active(registry) != port:  # noqa: ASYNC110 - of another process
                    await trio.sleep(0.05)
            async with connected(successor.address) as client:
                assert (await ran(client, "keep", "say")).status is Status.OK


# --- a worker --------------------------------------------------------------------------------------------------------


@repeated
async def test_a_module_that_ends_its_worker_takes_only_that_along(run: int) -> None:
    async with (
        serving(BARE, "--workers", "2", "--grace", "0") as server,
        connected(server.address) as client,
        connected(server.address) as other,
        calling(other, (1, script("say", NEVER)), end=True) as (bystander,),
    ):
        assert (await ran(client, "exit 3")).status is Status.INTERNAL
        caller = await ran(client, "say", "sleep 0.2", "os-exit 3")
        assert caller.status is Status.UNAVAILABLE
        assert caller.numbers == [0]
        await server.wait_for("another one starts")
        await server.wait_for(" serves")
        assert bystander.status is None
        assert (await ran(client, "say")).status is Status.OK
        assert server.process.returncode is None
