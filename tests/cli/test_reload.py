"""`serve --reload`: what runs after an edit, and what goes on as if there had been none.

Files are imported in a thread, for which a virtual clock does not wait, so these tests run on the real one. Nothing in
them waits for time.
"""

import gc
import logging
import sys
import threading
import weakref
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import trio
import trio.testing
from tests.module.served import outputs_of

from dk_trio import ModuleClient, ModuleServer, Settings, rpc
from dk_trio.cli import _reload
from dk_trio.cli._load import load_module
from dk_trio.cli._reload import Reloader
from dk_trio.settings import ServicesSettings

from .processes import PATIENCE, here

NAME = "reloaded_module"
SOURCE = """
from typing import Literal

import trio
from dk_trio.module import DataModel, DataTrigger, SetupModel, TriggerHandler, TrioModule

GO_ON = trio.Event()


class Message(DataTrigger):
    protocol: Literal["message"] = "message"
    text: str = ""
    wait: bool = False


class Input(DataModel[Message]):
    pass


class Setup(SetupModel):
    prefix: str = ""


class Reloaded(TrioModule[Input, DataModel[Message], Setup]):
    name = "reloaded"
    description = "the first"
    metadata = {"module_id": "modules:reloaded", "version": "1"}


@Reloaded.register
class Handler(TriggerHandler):
    protocol = "message"

    async def handle(self, input_data, setup_data, context):
        if input_data.wait:
            await context.send(Message(text="begun"))
            await GO_ON.wait()
        await context.send(Message(text=setup_data.prefix + "old"))
"""
SECOND = SOURCE.replace('"old"', '"new"').replace("the first", "the second").replace('"version": "1"', '"version": "2"')
LOGGED = "dk_trio.reload"


@pytest.fixture
def module(tmp_path: Path) -> Iterator[Path]:
    """The file of a module, whose imports are forgotten at the end."""
    path, before = tmp_path / f"{NAME}.py", [*sys.path]
    path.write_text(SOURCE)
    yield path
    sys.path[:] = before
    for name, loaded in [*sys.modules.items()]:
        if str(getattr(loaded, "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


@asynccontextmanager
async def reloading(
    path: Path, settings: Settings | None = None, **arguments: Any
) -> AsyncIterator[tuple[ModuleServer, ModuleClient, Reloader]]:
    """A server of a module over memory, and its reloader; nobody watches the files."""
    settings = settings or replace(Settings(), services=ServicesSettings(data_dir=None))
    server = ModuleServer(load_module(str(path)), settings=settings, **arguments)
    with trio.fail_after(PATIENCE):
        async with server.opened(), trio.open_nursery() as nursery:

            async def connect() -> trio.abc.Stream:
                ours, theirs = trio.testing.memory_stream_pair()
                nursery.start_soon(server.serve_stream, theirs)
                return ours

            async with rpc.open_channel("memory", connect=connect) as channel:
                yield server, ModuleClient(channel), Reloader(server, {"reloaded": str(path)})
            nursery.cancel_scope.cancel()


async def said(client: ModuleClient, **arguments: Any) -> str:
    outputs = await outputs_of(client, {"protocol": "message"}, **arguments)
    text: str = outputs[1]["root"]["text"]
    return text


async def test_a_new_call_gets_the_new_answer(module: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, LOGGED)
    async with reloading(module) as (server, client, reloader):
        assert await said(client) == "old"
        module.write_text(SECOND)
        assert await reloader.apply([module])
        assert await said(client) == "new"
        assert f"{module} reloaded in " in caplog.text
        assert f"({module.name}); jobs that finish on the code before: 0" in caplog.text
        assert server.statistics().jobs.succeeded == 2


async def test_a_running_call_ends_with_the_code_that_it_began_with(module: Path) -> None:
    async with reloading(module) as (_, client, reloader):
        before = sys.modules[NAME]
        async with client.start({"protocol": "message", "wait": True}) as outputs:
            await anext(outputs)
            assert (await anext(outputs))["root"]["text"] == "begun"
            module.write_text(SECOND)
            assert await reloader.apply([module])
            assert await said(client) == "new"
            before.GO_ON.set()
            assert (await anext(outputs))["root"]["text"] == "old"
            assert (await anext(outputs))["root"]["protocol"] == "end_of_stream"


async def test_a_running_call_can_be_asked_for_and_stopped_after_it(module: Path) -> None:
    async with reloading(module) as (server, client, reloader):
        async with client.start({"protocol": "message", "wait": True}) as outputs:
            job_id = (await anext(outputs))["root"]["job_id"]
            module.write_text(SECOND)
            assert await reloader.apply([module])
            assert [*(await client.jobs())] == [job_id]
            await client.stop(job_id)
        assert server.statistics().jobs.running == 0


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        ("def (", "SyntaxError"),
        ("import nothing_of_that_name", "No module named 'nothing_of_that_name'"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("x = 1", "holds no module class"),
        (SOURCE.replace("@Reloaded.register", ""), "has no triggers"),
        (SOURCE.replace("modules:reloaded", "modules:other"), "is 'modules:other' now and was 'modules:reloaded'"),
        (SOURCE.replace('prefix: str = ""', "prefix: int"), "In "),
    ],
    ids=["syntax", "import", "exit", "class", "triggers", "id", "setup"],
)
async def test_code_that_cannot_be_served_is_told_and_the_old_code_serves_on(
    module: Path, caplog: pytest.LogCaptureFixture, broken: str, told: str
) -> None:
    setups = module.with_name("setups.json")
    setups.write_text('{"setups:s": {"prefix": ""}}')
    async with reloading(module, setup_file=setups) as (_, client, reloader):
        before = sys.modules[NAME]
        module.write_text(broken)
        assert not await reloader.apply([module])
        (line,) = [record.getMessage() for record in caplog.records if record.name == LOGGED]
        assert f"{module} was not reloaded ({module.name}), the code before serves on: " in line
        assert told in line
        assert "\n" not in line
        assert sys.modules[NAME] is before  # for what it imports later, and what is looked up in it by name
        assert await said(client) == "old"
        module.write_text(SECOND)
        assert await reloader.apply([module])
        assert await said(client) == "new"


async def test_the_line_of_the_author_is_told(module: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with reloading(module) as (_, _, reloader):
        module.write_text(SOURCE + "\nprint(undefined)\n")
        assert not await reloader.apply([module])
        number = len(SOURCE.splitlines()) + 2
        assert (
            f"NameError: name 'undefined' is not defined ({module}, line {number}: \"print(undefined)\")" in caplog.text
        )


async def test_a_file_that_it_imports_counts_and_one_that_it_does_not_import_does_not(module: Path) -> None:
    package = module.parent / "reloaded_words"
    package.mkdir()  # without `__init__.py`, which is a package too
    word, other = package / "word.py", module.with_name("other.py")
    word.write_text("WORD = 'old'")
    other.write_text("")
    module.write_text(SOURCE.replace('"old"', "WORD") + "\nfrom reloaded_words.word import WORD\n")
    async with reloading(module) as (_, client, reloader):
        assert await said(client) == "old"
        assert not await reloader.apply([other])
        word.write_text("WORD = 'new'")  # as long as before, and in the same second
        assert await reloader.apply([word])
        assert await said(client) == "new"


async def test_a_file_that_was_missing_mends_an_import(module: Path) -> None:
    word = module.with_name("reloaded_word.py")
    async with reloading(module) as (_, client, reloader):
        module.write_text(SOURCE.replace('"old"', "WORD") + "\nfrom reloaded_word import WORD\n")
        assert not await reloader.apply([module])
        word.write_text("WORD = 'found'")
        assert await reloader.apply([], added=[word])
        assert await said(client) == "found"


async def test_schemas_and_the_registry_of_the_process_follow(module: Path) -> None:
    async with reloading(module) as (server, client, reloader):
        assert "wait" in str(await client.input_schema())
        info = server.platform.registry.served("reloaded")
        assert info is not None
        assert (info.version, info.documentation) == ("1", "the first")
        second = SECOND.replace("wait: bool", "patient: bool").replace("input_data.wait", "input_data.patient")
        module.write_text(second)
        assert await reloader.apply([module])
        assert "patient" in str(await client.input_schema())
        found = server.platform.registry.served("reloaded")
        assert found is not None
        assert (found.version, found.documentation, found.address) == ("2", "the second", info.address)
        health = (await outputs_of(client, {"protocol": "healthcheck_status"}))[1]
        assert health["uptime_seconds"] >= 0


async def test_a_setup_that_was_configured_stays(module: Path) -> None:
    async with reloading(module) as (_, client, reloader):
        await client.config_setup({"prefix": "> "}, setup_id="setups:mine")
        assert await said(client, setup_id="setups:mine") == "> old"
        module.write_text(SECOND)
        assert await reloader.apply([module])
        assert await said(client, setup_id="setups:mine") == "> new"


async def test_other_modules_of_the_process_call_the_new_code_over_their_old_connections(module: Path) -> None:
    async with (
        reloading(module) as (server, _, reloader),
        rpc.open_channel("memory", connect=server.modules["reloaded"].connect) as channel,
    ):
        client = ModuleClient(channel)
        assert await said(client) == "old"
        module.write_text(SECOND)
        assert await reloader.apply([module])
        assert await said(client) == "new"


async def test_changes_are_seen_where_they_happen(module: Path) -> None:
    async with reloading(module) as (server, client, reloader), trio.open_nursery() as nursery:
        nursery.start_soon(reloader.run)
        taken = trio.Event()

        async def wait() -> None:
            await server.modules["reloaded"].changed()
            taken.set()

        nursery.start_soon(wait)
        while not taken.is_set():
            module.write_text(SECOND)  # again, should nobody have watched yet
            with trio.move_on_after(1):
                await taken.wait()
        assert await said(client) == "new"
        nursery.cancel_scope.cancel()


def test_several_processes_do_not_reload(module: Path) -> None:
    done = here("serve", str(module), "--reload", "--workers", "2")
    assert done.returncode == 2
    assert b"--reload loads code in one process, and there would be 2: add --workers 1." in done.stderr


async def test_an_import_that_hangs_is_told_and_holds_up_neither_calls_nor_the_end(
    module: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    gate: Any = ModuleType("gate_of_an_import")
    gate.open = threading.Event()
    monkeypatch.setitem(sys.modules, gate.__name__, gate)
    monkeypatch.setattr(_reload, "SLOW", 0.01)
    try:
        async with reloading(module) as (_, client, reloader), trio.open_nursery() as nursery:
            module.write_text(f"import {gate.__name__}\n{gate.__name__}.open.wait()\n{SECOND}")
            nursery.start_soon(reloader.apply, [module])
            while "still being loaded" not in caplog.text:  # noqa: ASYNC110  a line of the log
                await trio.sleep(0.001)
            assert await said(client) == "old"
            nursery.cancel_scope.cancel()
        assert sys.modules[NAME].Reloaded.description == "the first"
    finally:
        gate.open.set()
        while trio.to_thread.current_default_thread_limiter().borrowed_tokens:  # noqa: ASYNC110  a thread
            await trio.sleep(0.001)


async def test_a_defect_while_code_is_taken_leaves_the_server_as_it_was(
    module: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fails(*_: object) -> None:
        raise LookupError("a defect")

    async with reloading(module) as (server, client, reloader):
        module.write_text(SECOND)
        with monkeypatch.context() as patch:
            patch.setattr(server, "replace", fails)
            assert not await reloader.apply([module])
        assert "was not reloaded" in caplog.text
        assert await said(client) == "old"
        assert await reloader.apply([module])
        assert await said(client) == "new"


async def test_code_of_before_is_gone_with_its_last_call(module: Path) -> None:
    async with reloading(module) as (_, client, reloader):
        code = []
        tasks = modules = 0
        for number in range(6):
            module.write_text(SOURCE.replace('"old"', f'"{number}"'))
            assert await reloader.apply([module])
            assert await said(client) == str(number)
            code.append(weakref.ref(sys.modules[NAME].Reloaded))
            if number == 3:
                tasks, modules = tasks_now(), len(sys.modules)
        gc.collect()
        assert [reference() is None for reference in code] == [True] * 5 + [False]
        assert (tasks_now(), len(sys.modules)) == (tasks, modules)


def tasks_now() -> int:
    return trio.lowlevel.current_statistics().tasks_living
