"""Stored setups through a server: which setup a job runs with, at once and after a restart."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import trio
from grpclib.const import Status

from dk_trio import ModuleServer, ServicesStrategy
from dk_trio.errors import SetupNotFoundError, SetupServiceError
from dk_trio.services import DefaultSetup, LocalPlatform, SetupData
from dk_trio.services.local.registry import DefaultRegistry
from dk_trio.services.strategy import BaseStrategy

from .sample import module_with
from .served import served
from .service_kit import assert_refused, configure, does_as_told, serving, start, told_of

STORES: dict[str, Any] = {"services_config_params": {"setup": {"store_configured": True}}}
SAMPLE = {"name": "stored", "module_id": "Sample", "setup_id": "setups:s"}


async def text(client: Any, setup_id: str = "setups:s") -> str:
    told = await start(client, "hi", setup_id=setup_id)
    assert told.status is Status.OK, told.message
    return told.texts[1]


# --- which setup a job runs with -------------------------------------------------------------------------------------


async def test_the_next_job_runs_with_what_is_stored_now(autojump_clock: object) -> None:
    async with serving() as (server, client):
        assert await text(client) == "hi"
        setups = DefaultSetup(platform=server.platform)
        made = await setups.create_setup(**SAMPLE, content={"prefix": "1 "})
        assert await text(client) == "1 hi"
        assert await text(client, "s") == "1 hi"
        assert made.current_setup_version is not None
        await setups.update_setup_version(made.current_setup_version.id, content={"prefix": "2 "})
        assert await text(client) == "2 hi"
        third = await setups.create_setup_version("s", version="3", content={"prefix": "3 "})
        assert await text(client) == "2 hi"
        await setups.update_setup("s", current_setup_version_id=third.id)
        async with client.start({"protocol": "message", "text": "hi"}, setup_id="setups:s") as outputs:
            info, message, _ = [output["root"] async for output in outputs]
        assert (info["setup_version_id"], message["text"]) == (third.id, "3 hi")
        await setups.delete_setup("s")
        assert await text(client) == "hi"


async def test_configured_then_file_then_stored_then_default(autojump_clock: object, tmp_path: Path) -> None:
    path = tmp_path / "setups.json"
    path.write_text(json.dumps({"setups:s": {"prefix": "file "}}))
    async with served(module_with(does_as_told), setup_file=path) as (server, client):
        setups = DefaultSetup(platform=server.platform)
        await setups.create_setup(**SAMPLE, content={"prefix": "stored "})
        await setups.create_setup(**SAMPLE | {"setup_id": "other"}, content={"prefix": "stored "})
        assert [await text(client, each) for each in ("s", "other", "third")] == ["file hi", "stored hi", "hi"]
        await configure(client, {"prefix": "configured "}, setup_id="setups:s")
        await configure(client, {"prefix": "configured "}, setup_id="setups:other")
        assert [await text(client, each) for each in ("s", "other")] == ["configured hi"] * 2
        # Whoever stores it after it was configured says something newer. What the file says is not the store's matter.
        for each in ("s", "other"):
            await setups.update_setup(each, name="changed")
        assert [await text(client, each) for each in ("s", "other")] == ["configured hi", "stored hi"]


async def test_a_setup_of_another_module_does_not_count(
    autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving() as (server, client):
        setups = DefaultSetup(platform=server.platform)
        await configure(client, {"prefix": "mine "})
        await setups.create_setup(**SAMPLE | {"module_id": "modules:other"}, content={"prefix": "theirs "})
        assert await text(client) == "mine hi"
        await setups.create_setup(name="n", module_id="modules:other", setup_id="o", content={"prefix": "theirs "})
        for _ in range(2):
            assert await text(client, "setups:o") == "hi"
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warning == "setup 'setups:o' is stored for the module 'modules:other', and does not count for 'Sample'"


@pytest.mark.parametrize("setup_id", ["", "setups:"])
async def test_a_caller_that_names_no_setup_gets_the_default(autojump_clock: object, setup_id: str) -> None:
    async with serving() as (_, client):
        assert await text(client, setup_id) == "hi"


async def test_what_cannot_be_run_with_is_told(autojump_clock: object) -> None:
    async with serving() as (server, client):
        setups = DefaultSetup(platform=server.platform)
        await setups.create_setup(**SAMPLE)
        told = await start(client)
        assert_refused(told, Status.NOT_FOUND, "SETUP_NOT_FOUND", "Setup 'setups:s' is stored without a version")
        assert "create_setup_version" in told.message
        await setups.create_setup_version("s", version="1", content={"prefix": 3})
        assert_refused(await start(client), Status.INVALID_ARGUMENT, "INVALID_SETUP", "prefix")


async def test_a_module_that_stores_nothing_leaves_no_trace(autojump_clock: Any, tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    async with served(module_with(does_as_told), data_dir=data_dir) as (_, client):
        assert await text(client) == "hi"
        await configure(client, {"prefix": "> "})
        assert await text(client) == "> hi"
        assert trio.current_time() == 0  # a thread would have let the clock jump
    assert not data_dir.exists()


async def test_a_directory_of_another_process_makes_setups_unavailable(tmp_path: Path) -> None:
    directory = tmp_path / "Sample"
    with trio.fail_after(30):
        async with LocalPlatform(directory).opened() as owner:
            await owner.database.open()
            async with served(module_with(does_as_told), data_dir=tmp_path) as (_, client):
                told = await start(client)
    assert_refused(told, Status.UNAVAILABLE, "SETUP_UNAVAILABLE", f"{directory} is in use by the process")
    assert "DIGITALKIN_DATA_DIR" in told.message


# --- configured setups that are stored -------------------------------------------------------------------------------


async def test_a_module_may_have_what_it_configures_stored(autojump_clock: object) -> None:
    async with serving(**STORES) as (server, client):
        await configure(client, {"prefix": "> "})
        setup = await DefaultSetup(platform=server.platform).get_setup("setups:s")
        version = setup.current_setup_version
        assert version is not None
        assert (setup.name, setup.module_id) == ("Sample", "Sample")
        assert (version.id, version.version, version.content["prefix"]) == ("setup_versions:7", "7", "> ")
        assert await text(client) == "> hi"
        await configure(client, {"prefix": "again "}, id="setup_versions:8", version="8")
        assert await text(client) == "again hi"
        found = await DefaultRegistry("m", "s", "v", platform=server.platform).get_setup("s")
        assert found is not None
        assert (found.module_id, found.setup_version_id, found.setup_version) == ("Sample", "setup_versions:8", "8")
        assert found.config["prefix"] == "again "


@pytest.mark.parametrize("hooks", [{}, STORES], ids=["by default", "stored"])
async def test_what_is_stored_is_the_modules_choice(autojump_clock: object, hooks: dict[str, Any]) -> None:
    async with serving(**hooks) as (server, client):
        await configure(client, {"prefix": "> "})
        assert server.platform.database.exists == bool(hooks)
        found = await DefaultRegistry("m", "s", "v", platform=server.platform).get_setup("s")
        assert found is not None
        assert found.module_id == "Sample"


async def test_a_stored_configuration_outlives_the_process(tmp_path: Path) -> None:
    module = module_with(does_as_told, **STORES)
    with trio.fail_after(30):
        async with served(module, data_dir=tmp_path) as (_, client):
            await configure(client, {"prefix": "kept "})
        async with served(module, data_dir=tmp_path) as (_, client):
            told = await start(client, "hi")
    assert told.texts[1] == "kept hi"
    assert told.protocols == ["module_start_info", "message", "end_of_stream"]


async def test_of_configurations_at_the_same_time_the_jobs_run_with_the_stored_one(autojump_clock: object) -> None:
    async with serving(**STORES) as (server, client):
        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(configure, client, {"prefix": f"{number} "})
        setup = await DefaultSetup(platform=server.platform).get_setup("s")
        assert setup.current_setup_version is not None
        assert await text(client) == f"{setup.current_setup_version.content['prefix']}hi"


async def test_a_stored_configuration_goes_before_the_file_until_the_end_of_the_process(
    autojump_clock: object, tmp_path: Path
) -> None:
    path = tmp_path / "setups.json"
    path.write_text(json.dumps({"setups:s": {"prefix": "file "}}))
    async with served(module_with(does_as_told, **STORES), setup_file=path) as (_, client):
        await configure(client, {"prefix": "configured "})
        assert await text(client) == "configured hi"


async def test_a_configuration_that_cannot_be_stored_has_not_happened(autojump_clock: object) -> None:
    async with serving(**STORES) as (server, client):
        await configure(client, {"prefix": "old "})
        told = await told_of(configure(client, {"prefix": "new "}, setup_id="setups:other"))
        assert (told.status, told.reason) == (Status.ALREADY_EXISTS, "SETUP_EXISTS")
        assert "'setup_versions:7' is one of the setup 'setups:s', not of 'setups:other'" in told.message
        assert "Give each version an id of its own" in told.message
        assert [await text(client, each) for each in ("s", "other")] == ["old hi", "hi"]
        assert (await DefaultSetup(platform=server.platform).list_setups()).total_count == 1


# --- a setup service of the module's own -----------------------------------------------------------------------------


class Elsewhere(BaseStrategy):
    """Setups of a service of another kind, which answers what the test says."""

    answer: Any = None

    async def get_setup(self, setup_id: str) -> SetupData:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.mark.parametrize(
    ("answer", "status"),
    [(SetupNotFoundError("none"), Status.OK), (SetupServiceError("broken", hint="Mend it."), Status.UNAVAILABLE)],
)
async def test_a_strategy_of_ones_own_is_asked(autojump_clock: object, answer: Exception, status: Status) -> None:
    mine = type("Mine", (Elsewhere,), {"answer": answer})
    strategies = {"setup": ServicesStrategy(local=mine)}
    async with serving(services_config_strategies=strategies) as (_, client):
        told = await start(client)
        assert told.status is status
        if status is Status.UNAVAILABLE:
            assert "Whether there is a setup 'setups:s' cannot be told: broken Mend it." in told.message
        await configure(client)  # it does not store what is configured
        assert await text(client) == "> hi"


async def test_a_source_that_was_given_stands_in_place_of_stored_setups(autojump_clock: object) -> None:
    class Given:
        async def get_setup(self, setup_id: str, mission_id: str) -> Any:
            raise SetupNotFoundError(f"not {setup_id}")

    async with serving(setups=Given(), **STORES) as (server, client):
        await DefaultSetup(platform=server.platform).create_setup(**SAMPLE, content={})
        assert_refused(await start(client), Status.NOT_FOUND, "SETUP_NOT_FOUND", "not setups:s")


def test_an_unknown_parameter_is_refused_at_start() -> None:
    module = module_with(does_as_told, services_config_params={"setup": {"store": True}})
    with pytest.raises(
        Exception, match=r"'setup'\] of Sample has 'store', which DefaultSetup and GrpcSetup do not take"
    ) as caught:
        ModuleServer(module)
    assert "store_configured" in caught.value.hint  # type: ignore[attr-defined]
