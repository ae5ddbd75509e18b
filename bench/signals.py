"""How long signals take, with real processes: out from many jobs at once, and a cancel from the provider to its module.

    python -m bench.signals
    python -m bench.signals --plain   # a provider that answers polls at once, as others do

1. 200 tasks tell 1,000 signals: START, three acknowledgements and STOP each, one after the other, each waited for. Told
   are the SendSignals that it took, and the seconds from telling a signal until the provider has it, on disk.
2. 200 jobs of a module wait; each is cancelled by a signal that is sent to the provider. Told are the seconds from
   sending it until the caller of the job has its status, CANCELLED.

Everything runs on one machine, over loopback, and ends by itself.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path

import trio
from grpclib import GRPCError, Status
from tests.cli.processes import DK_TRIO, ECHO, providing, serving

from dk_trio import ModuleClient, rpc
from dk_trio.pb.agentic_mesh_protocol.setup.v1 import CreateSetupRequest, SetupServiceStub, SetupStatus, SetupVersion
from dk_trio.pb.agentic_mesh_protocol.task_manager.v1 import SendSignalsRequest, Task, TaskManagerServiceStub
from dk_trio.pb.google.protobuf import Struct
from dk_trio.settings import SignalSettings
from dk_trio.signals import RemoteSignals, Signal, SignalAction

TASKS = 200
ACTIONS = (
    SignalAction.START,
    SignalAction.ACK_START,
    SignalAction.ACK_CANCEL,
    SignalAction.ACK_STOP,
    SignalAction.STOP,
)
DEADLINE = 120.0
APART = 0.02  # seconds between two cancels: each finds the module at rest
PLAIN = Path(__file__).parent / "tasks" / "plain_provider.py"


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(share * (len(ordered) - 1)))]


def told(name: str, values: list[float]) -> str:
    p50, p99 = statistics.median(values), percentile(values, 0.99)
    return f"{name}: n={len(values)} p50={p50 * 1000:.1f} ms p99={p99 * 1000:.1f} ms max={max(values) * 1000:.1f} ms"


async def outwards(address: str) -> None:
    taken: dict[str, list[str]] = defaultdict(list)
    latencies: list[float] = []
    async with rpc.open_channel(address) as channel, RemoteSignals(channel, SignalSettings()).opened() as exchange:

        async def job(number: int) -> None:
            for action in ACTIONS:
                begin = trio.current_time()
                await exchange.deliver(
                    Signal(
                        task_id=f"bench-{number}",
                        mission_id="missions:bench",
                        setup_id="setups:bench",
                        setup_version_id="setup_versions:bench",
                        action=action,
                        cancellation_reason="completed" if action is SignalAction.STOP else "none",
                    )
                )
                latencies.append(trio.current_time() - begin)
                taken[f"bench-{number}"].append(action)

        begin = trio.current_time()
        async with trio.open_nursery() as nursery:
            for number in range(TASKS):
                nursery.start_soon(job, number)
        seconds = trio.current_time() - begin
        out = exchange.statistics().outbound
    in_order = all(actions == list(ACTIONS) for actions in taken.values())
    print(told("out, told until durable", latencies))
    print(
        f"     {out.calls} SendSignals for {out.delivered} signals in {seconds * 1000:.0f} ms, "
        f"in order per task: {'yes' if in_order and len(taken) == TASKS else 'NO'}"
    )


async def inwards(address: str, provider: str) -> None:
    async with rpc.open_channel(provider) as channel, ModuleClient.connect(address) as client:
        reply = await SetupServiceStub(channel).create_setup(
            CreateSetupRequest(
                name="echo",
                organisation_id="organisations:bench",
                owner_id="users:bench",
                module_id="modules:bench-echo",
                current_setup_version=SetupVersion(version="1", content=Struct.from_dict({})),
                status=SetupStatus.READY,
            )
        )
        assert reply.setup is not None
        setup_id = reply.setup.id
        sent: dict[int, float] = {}
        latencies: list[float] = []
        ids: dict[int, str] = {}
        all_run = trio.Event()

        async def job(number: int) -> None:
            try:
                async with client.start(
                    {"text": "x", "tail_s": 600}, protocol="message", setup_id=setup_id, mission_id="missions:bench"
                ) as outputs:
                    async for output in outputs:
                        if output["root"]["protocol"] == "message":
                            ids[number] = outputs.job_id
                            if len(ids) == TASKS:
                                all_run.set()
            except GRPCError as error:
                if error.status is not Status.CANCELLED:
                    raise
                latencies.append(trio.current_time() - sent[number])

        async with trio.open_nursery() as nursery:
            for number in range(TASKS):
                nursery.start_soon(job, number)
            await all_run.wait()
            await trio.sleep(2)  # as a cancel finds a module: polled for some time
            for number in range(TASKS):
                task = Task(
                    task_id=ids[number],
                    mission_id="missions:bench",
                    setup_id=setup_id,
                    setup_version_id="setup_versions:bench",
                    action="cancel",
                    cancellation_reason="none",
                    created_at=datetime.now(UTC),
                )
                sent[number] = trio.current_time()
                await TaskManagerServiceStub(channel).send_signals(SendSignalsRequest(tasks=[task]))
                await trio.sleep(APART)
        print(told("in, cancel sent until the caller has CANCELLED", latencies))


async def measure(*, plain: bool) -> None:
    program = [sys.executable, str(PLAIN)] if plain else DK_TRIO
    env = {"DIGITALKIN_MODULE_ID": "modules:bench-echo", "DIGITALKIN_MAX_CONCURRENT_TASKS": str(TASKS)}
    with trio.fail_after(DEADLINE), tempfile.TemporaryDirectory(prefix="dk-signals-") as directory:
        async with (
            providing("--data-dir", directory, program=program) as provider,
            serving(ECHO, "--provider", provider.address, **env) as module,
        ):
            await outwards(provider.address)
            await inwards(module.address, provider.address)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.signals", description=__doc__)
    parser.add_argument("--plain", action="store_true", help="against a provider that does not hold polls")
    trio.run(lambda: measure(plain=parser.parse_args().plain))


if __name__ == "__main__":
    main()
