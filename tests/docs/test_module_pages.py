"""The pages on jobs, admission, configuration and operations say what the code does."""

import inspect
import math
import os
import re
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import come_back_later
import importer
import observed
import polyglot
import pytest
import shouter
import stop_job
import stored_setups
import trio
import trio.testing
import yaml
from grpclib import GRPCError
from tests.cli.processes import serving
from tests.docs import job_troubles as troubles
from tests.docs.test_troubleshooting import HEADINGS
from tests.module.sample import module_with
from tests.module.served import outputs_of, served
from tests.test_layering import PACKAGE, RANK

from dk_trio import ModuleClient, ModuleServer, Settings
from dk_trio.admission import RETRY_AFTER_MAX, RETRY_AFTER_MIN, RETRY_AFTER_UNKNOWN, Admission
from dk_trio.jobs import KEPT
from dk_trio.lifecycle import SessionOptions, State
from dk_trio.pb.agentic_mesh_protocol.module.v1 import ModuleStatus
from dk_trio.pb.google.rpc import ErrorInfo, RetryInfo
from dk_trio.pb.grpc.health.v1 import HealthCheckRequest, HealthStub
from dk_trio.provider import ProviderOptions
from dk_trio.provider._server import CUT_GRACE
from dk_trio.provider._server import DEFAULT_GRACE as provider_grace  # noqa: N811
from dk_trio.rpc.server import VITAL_RPCS
from dk_trio.server import DEFAULT_GRACE, LIVENESS, MODULE_SERVICE, READINESS
from dk_trio.servicer import LAST_WORDS
from dk_trio.services.local.setup import CONFIGURED_MAX
from dk_trio.services.setup import PAGE_MAX
from dk_trio.services.setup_cache import SetupCache
from dk_trio.services.stores._postgres import _VERSION_MIN
from dk_trio.services.stores.postgres import READERS
from dk_trio.services.stores.signals import ENDED_KEPT, IDLE_KEPT
from dk_trio.session import ABANDON_AFTER
from dk_trio.settings import LifecycleSettings, ServerSettings, TaskSettings
from dk_trio.statuses import ERROR_DOMAIN

ROOT = Path(__file__).parents[2]
JOBS, ADMISSION, CONFIGURATION, OPERATIONS, INDEX = (
    (ROOT / "docs" / f"{name}.md").read_text() for name in ("jobs", "admission", "configuration", "operations", "index")
)
JOB_TIMES, LIFECYCLE = SessionOptions(), LifecycleSettings()


def rows(page: str, head: str) -> list[list[str]]:
    """The cells of a table, by the start of its first line."""
    table = page[page.index(f"| {head}") :].partition("\n\n")[0]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table.splitlines()[2:]]


def manifests() -> dict[tuple[str, str], Any]:
    """What the Kubernetes example makes, by kind and name."""
    text = (ROOT / "examples" / "deployment" / "kubernetes.yaml").read_text()
    return {(it["kind"], it["metadata"]["name"]): it for it in yaml.safe_load_all(text)}


def prose(page: str) -> str:
    """The text without its line ends."""
    return page.replace("\n", " ")


def blocks(page: str) -> list[str]:
    return re.findall(r"^```text\n(.*?)^```", page, re.MULTILINE | re.DOTALL)


def test_the_layers_on_the_front_page() -> None:
    lines = [line[:27].strip().split(", ") for line in blocks(INDEX)[0].splitlines()]
    names = [name for line in lines for name in line]
    assert [RANK[name] for name in names] == sorted((RANK[name] for name in names), reverse=True)
    assert all(len({RANK[name] for name in line}) == 1 for line in lines)
    there = {path.stem for path in PACKAGE.iterdir() if not path.name.startswith("_") and path.name != "py.typed"}
    assert sorted(names) == sorted(there & RANK.keys())


# -- the life of a job ------------------------------------------------------------------------------------------------


def test_every_state_is_explained() -> None:
    assert [name for first, _ in rows(JOBS, "state |") for name in re.findall(r"`(\w+)`", first)] == [
        state.value for state in State
    ]


def test_times_of_a_job() -> None:
    times = " ".join(cells[1] for cells in rows(JOBS, "while |"))
    assert f"`DIGITALKIN_STREAM_DRAIN_TIMEOUT`: {LIFECYCLE.stream_drain_timeout:g} s" in times
    assert f"`DIGITALKIN_COMPLETION_TIMEOUT`: {LIFECYCLE.completion_timeout:g} s" in times
    assert f"`DIGITALKIN_CLEANUP_GRACE`: {LIFECYCLE.cleanup_grace:g} s" in times
    assert rows(JOBS, "while |")[-1][1] == f"{ABANDON_AFTER:g} s"
    assert LIFECYCLE.execution_timeout is None
    assert f"After {JOB_TIMES.cleanup_grace:g} s of grace and {ABANDON_AFTER:g} s more" in prose(JOBS)
    assert f"The last {KEPT:,} jobs" in prose(JOBS)
    assert f"`{ERROR_DOMAIN}`" in prose(JOBS)


@pytest.mark.parametrize("ends", [True, False])
async def test_importer_writes_what_it_has(ends: bool, autojump_clock: trio.testing.MockClock) -> None:
    importer.store.clear()
    async with served(importer.Importer) as (server, client):
        with trio.move_on_after(math.inf if ends else 35):
            await outputs_of(client, {"count": 5}, protocol="import")
        await trio.sleep(2)  # the cleanup of a job whose caller has gone goes on
        assert server.statistics().jobs.running == 0
    assert importer.store == list(range(5 if ends else 3))


async def test_stop_job(autojump_clock: trio.testing.MockClock, capsys: pytest.CaptureFixture[str]) -> None:
    async with served(importer.Importer) as (_, client), trio.open_nursery() as nursery:
        nursery.start_soon(partial(outputs_of, client, {"count": 1000}, protocol="import"))
        assert await stop_job.stop_after(client, 3) is ModuleStatus.STOPPED
        assert len(await stop_job.unfinished(client)) == 1
        nursery.cancel_scope.cancel()
    said = re.sub(r"[0-9a-f-]{36}", "...", capsys.readouterr().out)
    assert said == "CANCELLED: Job ... was stopped: StopModule was called.\n"


# -- admission --------------------------------------------------------------------------------------------------------


async def test_the_text_of_a_refusal(autojump_clock: trio.testing.MockClock) -> None:
    admission = Admission(TaskSettings(max_concurrent_tasks=200, max_queued_tasks=3600))
    assert blocks(ADMISSION)[1] == f"{admission._queue_full(5).text}\n"
    assert blocks(ADMISSION)[2].removesuffix("\n") in blocks(ADMISSION)[3]  # the incident, see below


async def test_the_details_of_a_refusal(autojump_clock: trio.testing.MockClock) -> None:
    settings = Settings(tasks=TaskSettings(max_concurrent_tasks=1, backpressure_strategy="reject"))
    async with served(module_with(troubles.wait), settings=settings) as (_, client), trio.open_nursery() as nursery:
        nursery.start_soon(partial(outputs_of, client, {}, protocol="message"))
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(GRPCError) as caught:
            await outputs_of(client, {}, protocol="message")
        nursery.cancel_scope.cancel()
    info, retry = caught.value.details
    assert isinstance(info, ErrorInfo)
    assert isinstance(retry, RetryInfo)
    fields = [field.strip("`") for _, field, *_ in rows(ADMISSION, "detail |")]
    assert fields == ["reason", *(f'metadata["{key}"]' for key in info.metadata), "retry_delay"]
    bounds = f"{RETRY_AFTER_MIN:g} to {RETRY_AFTER_MAX:g} s, and {RETRY_AFTER_UNKNOWN:g} s before any has ended"
    assert bounds in rows(ADMISSION, "detail |")[-1][2]


async def test_come_back_later(autojump_clock: trio.testing.MockClock) -> None:
    settings = Settings(tasks=TaskSettings(max_concurrent_tasks=1))
    async with served(importer.Importer, settings=settings) as (server, client), trio.open_nursery() as nursery:
        nursery.start_soon(partial(outputs_of, client, {"count": 10}, protocol="import"))
        await trio.testing.wait_all_tasks_blocked()
        outputs = await come_back_later.run_job(client, {"protocol": "import", "count": 1})
        assert outputs[-1]["root"]["protocol"] == "end_of_stream"
        jobs, rpcs = server.statistics().jobs, server.statistics().rpc.rpcs_started
    assert jobs.succeeded == 2
    assert jobs.refused >= 1
    assert rpcs == jobs.succeeded + jobs.refused  # the channel has repeated none by itself


def test_capacity_planning() -> None:
    jobs, seconds = 3704, 229
    for slots, rounds, makespan, wait in rows(ADMISSION, "slots |"):
        turns = math.ceil(jobs / int(slots))
        assert (rounds, makespan, wait) == (str(turns), f"{turns * seconds:,} s", f"{(turns - 1) * seconds:,} s")
    assert f"{jobs:,} jobs at once, each of {seconds} s. With 200 slots that is 19 rounds, 4,351 s" in prose(ADMISSION)
    assert f"that does not run at once: {jobs - 200:,}" in prose(ADMISSION)


def test_the_incident_as_it_is_shown() -> None:
    """The words are those of a small burst; the numbers follow from the sizes. `tests/examples` runs the whole."""

    def shape(text: str) -> list[str]:
        return list(dict.fromkeys(re.sub(r"\s+", " ", re.sub(r"\d[\d,.]*", "N", line)) for line in text.splitlines()))

    command = [sys.executable, "-u", ROOT / "examples" / "incident.py"]
    small = "--jobs 47 --slots 10 --queue 40 --seconds 229".split()
    done = subprocess.run(
        [*command, *small], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True, timeout=60
    )
    shown = blocks(ADMISSION)[3]
    assert shape(shown) == shape(done.stdout)

    jobs, slots, queue, seconds = 3704, 200, 3600, 229
    assert f"{jobs} jobs of {seconds} s, {slots} slots, a queue of {queue}\n" in shown
    told = re.findall(r"^ +(\d+) s +(\d+) running +(\d+) queued +(\d+) completed +(\d+) rejected", shown, re.MULTILINE)
    assert [row[0] for row in told] == [*map(str, range(0, 4351, 500)), "0"]
    for at, *row in told[1:-1]:
        completed = int(at) // seconds * slots
        assert list(map(int, row)) == [slots, jobs - completed - slots, completed, 0]
    assert f"  {jobs} completed; 4,351 virtual seconds" in shown
    assert f"  {jobs - slots} RESOURCE_EXHAUSTED, {slots} completed; {seconds} virtual seconds" in shown


@pytest.mark.parametrize("preset", rows(ADMISSION, "preset |"), ids=lambda preset: preset[0])
def test_presets_of_the_tuning_guide(preset: list[str]) -> None:
    _, rpcs, slots, queue, rule = preset
    environ = {"MAX_CONCURRENT_RPCS": rpcs, "MAX_CONCURRENT_TASKS": slots, "MAX_QUEUED_TASKS": queue}
    warnings = Settings.from_environment({f"DIGITALKIN_{name}": value for name, value in environ.items()}).warnings
    wanted = re.search(r"\d+ or more", "".join(warnings))
    assert rule == (f"broken: set {wanted[0]}" if wanted else "kept")


async def test_the_front_door_when_it_is_full(autojump_clock: trio.testing.MockClock) -> None:
    assert f"still get in, up to {VITAL_RPCS} of them" in prose(ADMISSION)
    settings = Settings(server=ServerSettings(max_concurrent_rpcs=1))
    async with served(module_with(troubles.wait), settings=settings) as (_, client), trio.open_nursery() as nursery:
        nursery.start_soon(partial(outputs_of, client, {}, protocol="message"))
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(GRPCError, match="which is the limit of this server"):
            await client.input_schema(timeout=1)
        (job_id,) = await client.jobs(timeout=1)
        await HealthStub(client.channel).check(HealthCheckRequest(), timeout=1)
        await client.status(job_id, timeout=1)
        await client.stop(job_id, timeout=1)
        nursery.cancel_scope.cancel()


# -- configuration ----------------------------------------------------------------------------------------------------


def test_numbers_of_the_setup_cache() -> None:
    assert f"`DIGITALKIN_SETUP_CACHE_TTL` seconds, {LIFECYCLE.setup_cache_ttl:g}," in prose(CONFIGURATION)
    assert f"`DIGITALKIN_SETUP_CACHE_MAX` setups are kept, {LIFECYCLE.setup_cache_max}." in prose(CONFIGURATION)
    assert f"`DIGITALKIN_CONFIG_SETUP_TIMEOUT` seconds, {LIFECYCLE.config_setup_timeout:g}." in prose(CONFIGURATION)
    patience = inspect.signature(SetupCache).parameters["fetch_timeout"].default
    assert f"A source has {patience:g} seconds" in prose(CONFIGURATION)
    assert f"the last {CONFIGURED_MAX:,}, until the process ends" in prose(CONFIGURATION)


async def test_stored_setups(autojump_clock: trio.testing.MockClock) -> None:
    async with served(polyglot.Polyglot) as (server, client):
        await stored_setups.store(server)
        outputs = await outputs_of(client, {"name": "Ada"}, protocol="greet", setup_id="setups:french")
        assert outputs[1]["root"]["name"] == "bonsoir, Ada"
    assert f"at most {PAGE_MAX:,} entries" in prose(CONFIGURATION)


async def test_polyglot(autojump_clock: trio.testing.MockClock) -> None:
    async with served(polyglot.Polyglot) as (_, client):
        content = await client.config_setup({"language": "fr"}, setup_id="setups:a")
        assert content == {"language": "fr", "word": "bonjour", "resolved_tools": {}}
        outputs = await outputs_of(client, {"name": "Ada"}, protocol="greet", setup_id="setups:a")
        assert outputs[1]["root"]["name"] == "bonjour, Ada"
        with pytest.raises(GRPCError, match="KeyError") as caught:
            await client.config_setup({"language": "tlh"}, setup_id="setups:a")
    assert caught.value.details[0].reason == "CONFIG_SETUP_FAILED"


# -- operations -------------------------------------------------------------------------------------------------------


async def test_health_names(autojump_clock: trio.testing.MockClock) -> None:
    names = {name.strip("`").replace("the empty name", "") for name, _ in rows(OPERATIONS, "name |")}
    assert names == {"", LIVENESS, READINESS, MODULE_SERVICE}
    server = ModuleServer(shouter.Shouter)
    assert [server.health.statistics().services[name] for name in ("", LIVENESS, READINESS)] == [True, True, False]
    async with served(shouter.Shouter) as (server, _):
        assert set(server.health.statistics().services) == names
        assert all(server.health.statistics().services.values())
        await server.drain(0)
        assert not any(server.health.statistics().services.values())


async def test_what_a_stop_looks_like(tmp_path: Path) -> None:
    """The block on the page, from a process: a job that does not end, SIGTERM twice."""
    sample = ROOT / "docs" / "samples" / "importer.py"
    async with (
        serving(str(sample), "--setup", str(setups_in(tmp_path)), "--grace", "600") as server,
        ModuleClient.connect(server.address) as client,
        trio.open_nursery() as nursery,
    ):
        await nursery.start(keep_reading, client)
        server.process.send_signal(signal.SIGTERM)
        await server.wait_for("draining")
        server.process.send_signal(signal.SIGTERM)
        assert await server.wait() == 0
    # Whether there is a directory for the log's file is the machine's matter.
    log = [re.sub(r"^\S+ \S+ ", "", line) for line in server.lines["stderr"] if " dk_trio.logs: " not in line]
    assert blocks(OPERATIONS)[0].splitlines() == ["READY 127.0.0.1:50055", *log]
    assert server.lines["stdout"] == [f"READY {server.address}"]


def setups_in(folder: Path) -> Path:
    path = folder / "setups.json"
    path.write_text('{"setups:default": {}}')
    return path


async def keep_reading(client: ModuleClient, task_status: trio.TaskStatus) -> None:
    with pytest.raises(GRPCError, match="the server is shutting down"):
        async with client.start({"count": 1000}, protocol="import") as outputs:
            await anext(outputs)
            task_status.started()
            async for _ in outputs:
                pass


async def test_how_long_a_stop_may_take(autojump_clock: trio.testing.MockClock) -> None:
    module = module_with(troubles.partial_method(troubles.go_on, 1000))
    async with served(module) as (server, client), trio.open_nursery() as nursery:
        nursery.start_soon(troubles.status_of, client)
        await trio.testing.wait_all_tasks_blocked()
        began = trio.current_time()
        assert len(await server.drain(300)) == 1
        waited = trio.current_time() - began - 300
    assert f"is waited for {waited:g} s after the grace" in prose(OPERATIONS)
    configuring = LAST_WORDS + ABANDON_AFTER + 1
    parts = f"{waited:g} s for the cleanups of jobs and for those that do not end, {configuring:g} s for"
    assert f"{waited + configuring:g} s: {parts}" in prose(OPERATIONS)
    assert f"that of `ConfigSetupModule` {configuring:g} s more" in prose(OPERATIONS)
    assert f"only `cleanup` takes time: {JOB_TIMES.cleanup_grace:g} s" in prose(OPERATIONS)
    assert DEFAULT_GRACE + JOB_TIMES.cleanup_grace + LAST_WORDS <= 30
    pod = manifests()["Deployment", "text-transform"]["spec"]["template"]["spec"]
    [container] = pod["containers"]
    grace = float(container["args"][container["args"].index("--grace") + 1])
    before = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] >= before + grace + waited + configuring


def test_numbers_of_a_provider() -> None:
    page, options, second = prose(OPERATIONS), ProviderOptions(), 1_000_000
    assert f"PostgreSQL {_VERSION_MIN} or newer" in page
    assert READERS == 3
    assert "up to four others read" in page  # one of them scans
    assert f"cover `--grace {provider_grace:g}`, the {CUT_GRACE:g} s for writes" in page
    assert f"0.3 kB, for {options.key_ttl / 3600:g} h" in page
    assert (3600 * second, 7 * 24 * 3600 * second) == (ENDED_KEPT, IDLE_KEPT)
    assert "| an hour; of one that nothing was heard of, a week |" in page


def test_lines_of_the_log_are_real() -> None:
    """Each is a heading of the troubleshooting page or a line of the block above, both of which tests produce."""
    real = [*HEADINGS, *(line.partition(": ")[2] for line in blocks(OPERATIONS)[0].splitlines())]
    for line, *_ in rows(OPERATIONS, "line |"):
        pattern = re.escape(line.strip("`")).replace(r"\.\.\.", ".+")
        assert any(re.fullmatch(pattern, text) for text in real), line


async def test_observed(autojump_clock: trio.testing.MockClock, capsys: pytest.CaptureFixture[str]) -> None:
    async with served(shouter.Shouter) as (server, client):
        await outputs_of(client, {"text": "hello"}, protocol="shout")
        with trio.move_on_after(90):
            await observed.tell(server)
    said = "0 running, 0 waiting, 0 at the gate; 1 succeeded, 0 failed, 0 cancelled, 0 refused; longest wait 0 s"
    assert capsys.readouterr().out.splitlines() == [said] * 2


async def test_observed_ends_with_its_server(capsys: pytest.CaptureFixture[str]) -> None:
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(observed.main, 0)
            await trio.testing.wait_all_tasks_blocked()  # its receiver of signals is open then
            os.kill(os.getpid(), signal.SIGTERM)
    assert capsys.readouterr().out.startswith("0 running")
