"""Profiles of jobs: one file each that names the author's functions, and no job that fails or waits for its profile."""

import json
import logging
import pstats
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
from tests.module.sample import module_with
from tests.module.served import outputs_of, served

from dk_trio import ModuleClient, Settings
from dk_trio.errors import ConfigurationError, MissingPackageError
from dk_trio.observe import Observed, profilers
from dk_trio.observe.profilers import Profilers
from dk_trio.settings import ObserveSettings

NAMES = ["pyinstrument", "viztracer", "yappi"]


def settings_of(name: str, directory: Path) -> ObserveSettings:
    return replace(ObserveSettings(), profiler=name, profile_output_dir=directory)  # type: ignore[arg-type]


@asynccontextmanager
async def profiled(name: str, directory: Path, handler: Any) -> AsyncIterator[ModuleClient]:
    """A server whose jobs are profiled; their files are there when the block has ended."""
    pytest.importorskip(name)
    part = Profilers(settings_of(name, directory))
    async with part.opened(Observed()), served(module_with(handler), hooks=part.hooks) as (_, client):
        yield client


def a_step_of_the_author() -> int:
    return sum(map(len, map(str, range(100_000))))  # one call, whoever counts them


def another_step() -> int:
    return a_step_of_the_author()


async def answer(self: object, data: Any, setup: object, context: Any) -> None:
    (a_step_of_the_author if data.text == "first" else another_step)()
    await trio.lowlevel.checkpoint()
    await context.send({"root": {"protocol": "message", "text": "done"}})


async def job_of(client: ModuleClient, text: str = "first") -> str:
    outputs = await outputs_of(client, {"text": text}, protocol="message")
    assert outputs[-1]["root"]["protocol"] == "end_of_stream"
    return str(outputs[0]["root"]["job_id"])


def functions(path: Path) -> set[str]:
    """Names of functions in a profile."""
    if path.suffix == ".pstats":
        stats: Any = pstats.Stats(str(path))
        return {name for _, _, name in stats.stats}
    if path.suffix == ".json":
        return {event["name"].split(" ")[0] for event in json.loads(path.read_text(encoding="utf-8"))["traceEvents"]}
    text = path.read_text(encoding="utf-8")
    return {name for name in ("a_step_of_the_author", "another_step") if name in text}


@pytest.mark.parametrize("name", NAMES)
async def test_a_file_for_each_job_names_the_authors_functions(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "dk_trio.profiler")
    with trio.fail_after(60):
        async with profiled(name, tmp_path, answer) as client:
            first = await job_of(client)
        async with profiled(name, tmp_path, answer) as client:
            second = await job_of(client, "second")
    files = {path.name.partition("_")[0]: path for path in tmp_path.iterdir()}
    assert files.keys() == {first, second}
    assert "a_step_of_the_author" in functions(files[first])
    assert "another_step" not in functions(files[first])
    assert {"a_step_of_the_author", "another_step"} <= functions(files[second])
    assert f"job {first}: profile {files[first]}" in caplog.text


@pytest.mark.parametrize("name", ["pyinstrument", "yappi"])
async def test_jobs_at_the_same_time_have_profiles_of_their_own(name: str, tmp_path: Path) -> None:
    both = trio.Event()
    here = set()

    async def meets(self: object, data: Any, setup: object, context: Any) -> None:
        here.add(data.text)
        if len(here) == 2:
            both.set()
        await both.wait()
        await answer(self, data, setup, context)

    ids: dict[str, str] = {}
    with trio.fail_after(60):
        async with profiled(name, tmp_path, meets) as client, trio.open_nursery() as nursery:

            async def one(text: str) -> None:
                ids[text] = await job_of(client, text)

            nursery.start_soon(one, "first")
            nursery.start_soon(one, "second")
    files = {path.name.partition("_")[0]: path for path in tmp_path.iterdir()}
    assert "another_step" not in functions(files[ids["first"]])
    assert "another_step" in functions(files[ids["second"]])


async def test_viztracer_traces_one_job_at_a_time_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    inner: list[str] = []
    clients: list[ModuleClient] = []

    async def calls(self: object, data: Any, setup: object, context: Any) -> None:
        if data.text == "first":
            inner.append(await job_of(clients[0], "second"))
        await answer(self, data, setup, context)

    with trio.fail_after(60):
        async with profiled("viztracer", tmp_path, calls) as client:
            clients.append(client)
            outer = await job_of(client)
    assert [path.name.partition("_")[0] for path in tmp_path.iterdir()] == [outer]
    assert f"job {inner[0]} is not profiled: viztracer traces another one" in caplog.text


@pytest.mark.parametrize("name", NAMES)
async def test_a_job_that_fails_has_its_profile_too(name: str, tmp_path: Path) -> None:
    async def fails(self: object, data: Any, setup: object, context: Any) -> None:
        a_step_of_the_author()
        raise ValueError("no")

    with trio.fail_after(60):
        async with profiled(name, tmp_path, fails) as client:
            with pytest.raises(Exception, match="no"):
                await job_of(client)
    [path] = tmp_path.iterdir()
    assert "a_step_of_the_author" in functions(path)


async def test_a_profile_that_cannot_be_written_costs_the_job_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with trio.fail_after(60):
        async with profiled("yappi", tmp_path / "gone", answer) as client:
            (tmp_path / "gone").rmdir()
            job = await job_of(client)
    assert f"the profile of job {job} could not be written" in caplog.text


async def test_a_profiler_that_does_not_start_costs_the_job_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: object) -> None:
        raise OSError("no counters on this machine")

    monkeypatch.setattr(profilers._Yappi, "start", broken)
    with trio.fail_after(60):
        async with profiled("yappi", tmp_path, answer) as client:
            job = await job_of(client)
    assert f"job {job} is not profiled: yappi does not start" in caplog.text


async def test_profiles_that_wait_are_bounded(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("yappi")
    monkeypatch.setattr(profilers, "MAX_WAITING", 1)
    part = Profilers(settings_of("yappi", tmp_path))
    async with served(module_with(answer), hooks=part.hooks) as (_, client):  # nobody writes
        await job_of(client)
        job = await job_of(client)
    assert f"the profile of job {job} is lost: 1 others wait to be written" in caplog.text


@pytest.mark.parametrize(("name", "where"), [("viztracer", "VizTracer.stop"), ("yappi", "get_func_stats")])
def test_a_profiler_that_fails_at_the_end_of_a_job_profiles_the_next(
    name: str, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(name)
    profiler = profilers._loaded(name)
    stop = profiler.start()
    with monkeypatch.context() as patch:
        patch.setattr(f"{name}.{where}", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            stop()
    path = tmp_path / f"profile.{profiler.suffix}"
    profiler.start()()(path)
    assert path.exists()
    if name == "yappi":
        assert not sys.modules["yappi"].is_running()


def test_yappi_keeps_the_numbers_of_so_many_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("yappi")
    monkeypatch.setattr(profilers, "MAX_TAGS", 2)
    yappi = profilers._Yappi()
    first = yappi.start()
    yappi.start()()
    with pytest.raises(profilers.Busy, match="numbers of 2 jobs"):
        yappi.start()
    first()
    yappi.start()()


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_package_is_named_at_the_start(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingPackageError) as caught:
        Profilers(settings_of(name, tmp_path))
    assert f"DIGITALKIN_PROFILER={name} needs the package {name}" in caught.value.text
    assert "pip install 'dk-trio[profiling]'" in caught.value.text


def test_a_directory_that_cannot_be_used_is_an_error_of_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match=r"DIGITALKIN_PROFILE_OUTPUT_DIR=.*file cannot be used: File exists"):
        Profilers(settings_of("yappi", tmp_path / "file"))


def test_an_observation_profiles_when_it_is_asked_to(tmp_path: Path) -> None:
    from dk_trio.observe import Observation

    settings = Settings()
    assert "Profilers" not in repr(Observation(settings))
    observe = replace(settings.observe, profiler="yappi", profile_output_dir=tmp_path)
    assert "Profilers" in repr(Observation(replace(settings, observe=observe)))
