"""A server ends while its provider hangs: each last word has its bound, and a second signal its effect."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import trio
import trio.testing
from grpclib.exceptions import GRPCError
from tests.provider.kit import Provided, provided

from dk_trio import ModuleClient, ModuleServer, rpc
from dk_trio.lifecycle import Reason
from dk_trio.pb.agentic_mesh_protocol.registry.v1 import GetModuleRequest, ModuleStatus, RegistryServiceStub
from dk_trio.registration import WITHDRAW_WITHIN
from dk_trio.server import DrainReport
from dk_trio.signals._remote import CLOSE_TIMEOUT

from .remote_kit import MODULE_ID, REMOTE, module, stored_setup, told, wait, wall_clock
from .served import outputs_of

# What closing connections adds: a peer that does not close gets a moment for it.
SHORT = 1.5
GRACE = 3.0


class Line:
    """The way to a provider, on which nothing comes through from some moment on; no connection breaks."""

    def __init__(self, provider: Provided) -> None:
        self.provider = provider
        self.how = ""
        self._ends: list[trio.StapledStream[Any, Any]] = []

    async def connect(self) -> trio.abc.Stream:
        if self.how == "does not connect":
            await trio.sleep_forever()
        if self.how == "refuses":
            raise OSError("the provider is away")
        stream = await self.provider.connect()
        self._ends.append(stream)
        if self.how:
            self._cut_off(stream)
        return stream

    def hang(self, how: str) -> None:
        self.how = how
        for stream in self._ends:
            self._cut_off(stream)

    def _cut_off(self, stream: trio.StapledStream[Any, Any]) -> None:
        stream.send_stream.send_all_hook = None  # what pumps it to the other end
        stream.send_stream.close_hook = None


@contextmanager
def signals_at_the_end() -> Iterator[list[int]]:
    """What has been left to Python's own handling: it would have ended the process."""
    left: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: left.append(number))
    try:
        yield left
    finally:
        signal.signal(signal.SIGTERM, before)


async def serve_and_end(
    line: Line, how: str = "silent", *, again_after: tuple[float, ...] = ()
) -> tuple[float, DrainReport, ModuleServer]:
    """Serve one job that never ends; SIGTERM, and more of them; how long the end took, and what it was."""
    server = ModuleServer(module(wait), settings=REMOTE, provider=line.connect)
    setup_id = await stored_setup(line.provider, {"prefix": "> "})
    reports: list[DrainReport] = []
    ended = 0.0

    async with trio.open_nursery() as nursery:

        async def serve(task_status: trio.TaskStatus[str]) -> None:
            reports.append(await server.serve(host="127.0.0.1", port=0, grace=GRACE, on_ready=task_status.started))
            nonlocal ended
            ended = trio.current_time()

        async def connect() -> trio.abc.Stream:
            ours, theirs = trio.testing.memory_stream_pair()
            server._nursery.start_soon(server.serve_stream, theirs)
            return ours

        async def job(client: ModuleClient) -> None:
            with pytest.raises(GRPCError, match="shutting down"):
                await outputs_of(client, {}, protocol="message", setup_id=setup_id)

        await nursery.start(serve)
        await trio.sleep(1)
        async with rpc.open_channel("memory", connect=connect) as channel, trio.open_nursery() as callers:
            callers.start_soon(job, ModuleClient(channel))
            await trio.sleep(1)
            line.hang(how)
            begun = trio.current_time()
            signal.raise_signal(signal.SIGTERM)
            for seconds in again_after:
                await trio.sleep_until(begun + seconds)
                signal.raise_signal(signal.SIGTERM)
    (report,) = reports
    return ended - begun, report, server


@pytest.mark.parametrize("how", ["silent", "does not connect", "refuses"])
async def test_a_provider_that_hangs_holds_the_end_up_for_so_long_and_no_longer(
    autojump_clock: trio.testing.MockClock, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with provided(now=wall_clock) as provider:
        with signals_at_the_end() as left:
            took, report, server = await serve_and_end(Line(provider), how)
    assert GRACE < took < GRACE + CLOSE_TIMEOUT + SHORT  # the registry's last word is said while jobs drain
    assert (report.finished, report.cut, report.stuck) == (0, 1, 0)
    assert server.statistics().jobs.ended == {Reason.SHUTDOWN: 1}
    assert left == []
    assert "could not be deregistered" in caplog.text
    assert "is lost: the exchange was closed" in caplog.text


@pytest.mark.parametrize(
    ("again_after", "most"),
    [
        ((0.5,), 0.5 + WITHDRAW_WITHIN + CLOSE_TIMEOUT),  # jobs drain, the registry is told
        ((GRACE + 2,), GRACE + 2),  # what waits is being sent
        ((0.5, 4.0), 4.0),  # both
    ],
)
async def test_each_further_signal_ends_a_wait(
    autojump_clock: trio.testing.MockClock,
    again_after: tuple[float, ...],
    most: float,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with provided(now=wall_clock) as provider:
        with signals_at_the_end() as left:
            took, report, _ = await serve_and_end(Line(provider), again_after=again_after)
    assert again_after[0] <= took < most + SHORT
    assert (report.finished, report.cut, report.stuck) == (0, 1, 0)
    assert left == []
    assert "is lost: the exchange was closed" in caplog.text


async def test_a_provider_that_answers_hears_everything(autojump_clock: trio.testing.MockClock) -> None:
    """Also when a second signal has cut the jobs."""
    async with provided(now=wall_clock) as provider:
        line = Line(provider)
        line.hang = lambda _: None  # type: ignore[method-assign]
        took, report, server = await serve_and_end(line, again_after=(0.5,))
        row = await RegistryServiceStub(provider.channel).get_module(GetModuleRequest(module_id=MODULE_ID))
        said = await told(line)  # type: ignore[arg-type]  # a network that has a provider
    assert took < 0.5 + SHORT
    assert report.cut == 1
    assert row.status is ModuleStatus.READY
    assert [(task.action, task.cancellation_reason) for task in said] == [("start", "none"), ("stop", "shutdown")]
    assert server.statistics().provider.signals.outbound.lost == 0  # type: ignore[union-attr]
