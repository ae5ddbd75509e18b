"""The pytest plugin: its fixtures here, and in projects of others, with and without pytest-trio."""

import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from types import SimpleNamespace
from typing import Any

import pytest
import trio
import trio.testing
from tests.module.sample import Message, module_with, send_one

from dk_trio import ModuleClient, Settings, testing
from dk_trio.settings import TaskSettings
from dk_trio.testing import FakeProvider, LeakWatch, MemoryServer, plugin

SAMPLE = module_with(send_one, metadata={"module_id": "modules:sample"})
OTHER = module_with(send_one, metadata={"module_id": "modules:other"})


@pytest.fixture
def dk_module() -> Any:
    return SAMPLE


class TestFixtures:
    async def test_a_client_of_the_module(self, dk_client: ModuleClient, virtual_clock: trio.testing.MockClock) -> None:
        async with dk_client.start({"text": "hi"}, protocol="message") as outputs:
            assert [output.root.text async for output in outputs.typed(SAMPLE.output_format)] == ["hi"]

    async def test_they_belong_together(self, dk_server: MemoryServer, dk_client: ModuleClient) -> None:
        assert dk_server.client is dk_client

    async def test_a_server_is_local_for_a_test_that_asks_for_no_provider(self, dk_server: MemoryServer) -> None:
        assert dk_server.server.settings.services.mode == "local"

    async def test_a_server_works_with_the_provider_of_a_test_that_asks_for_one(
        self, dk_server: MemoryServer, dk_provider: FakeProvider, virtual_clock: trio.testing.MockClock
    ) -> None:
        await dk_provider.put_setup({"prefix": "> "}, module_id=SAMPLE)
        result = await dk_server.run_job({"text": "hi"}, protocol="message")
        assert [message.text for message in result.typed(Message)] == ["> hi"]

    @pytest.fixture
    async def prepared(self, dk_provider: FakeProvider) -> FakeProvider:
        await dk_provider.put_setup({"prefix": "# "}, module_id=SAMPLE)
        return dk_provider

    async def test_a_fixture_may_ask_for_the_provider(self, dk_server: MemoryServer, prepared: FakeProvider) -> None:
        result = await dk_server.run_job({"text": "hi"}, protocol="message")
        assert [message.text for message in result.typed(Message)] == ["# hi"]

    async def test_an_hour_is_nothing(
        self, virtual_clock: trio.testing.MockClock, dk_server: MemoryServer, assert_no_leaks: LeakWatch
    ) -> None:
        began = trio.current_time()
        await trio.sleep(3600)
        assert trio.current_time() == began + 3600

    def test_a_test_that_is_not_async_may_watch_for_leaks(self, assert_no_leaks: LeakWatch) -> None:
        assert assert_no_leaks.left() == []


class TestOverridden:
    @pytest.fixture
    def dk_module(self) -> Any:
        return [SAMPLE, OTHER]

    @pytest.fixture
    def dk_settings(self) -> Settings:
        return Settings(tasks=TaskSettings(max_concurrent_tasks=3))

    async def test_modules_and_settings(self, dk_server: MemoryServer) -> None:
        assert list(dk_server.server.modules) == ["sample", "other"]
        assert dk_server.server.statistics().admission.slots == 3


class TestSetups:
    @pytest.fixture
    def dk_setups(self) -> Any:
        return {"setups:default": {"prefix": "! "}}

    async def test_setups(self, dk_server: MemoryServer, virtual_clock: trio.testing.MockClock) -> None:
        result = await dk_server.run_job({"text": "hi"}, protocol="message")
        assert [message.text for message in result.typed(Message)] == ["! hi"]


# -- projects of others -------------------------------------------------------------------------------------------

MODULE = """
    from typing import Literal
    from dk_trio import DataModel, DataTrigger, ToolModule, TriggerHandler

    class Nap(DataTrigger):
        protocol: Literal["nap"] = "nap"
        hours: float = 1

    class Sleeper(ToolModule[DataModel[Nap], DataModel[Nap]]):
        pass

    @Sleeper.register
    class OnNap(TriggerHandler[Nap]):
        protocol = "nap"

        async def handle(self, input_data, setup_data, context):
            import trio

            await trio.sleep(input_data.hours * 3600)
            await context.send(input_data)
"""

CONFTEST = """
    import pytest

    @pytest.fixture
    def dk_module():
        from sleeper import Sleeper

        return Sleeper
"""


def outcome_of(folder: Path, tests: str, *arguments: str) -> str:
    """Run pytest on a project of its own, in a process of its own; what it writes."""
    for name, text in (("sleeper.py", MODULE), ("conftest.py", CONFTEST), ("test_sleeper.py", tests)):
        (folder / name).write_text(dedent(text))
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    without = [
        argument
        for name in ("anyio", "cacheprovider", "hypothesispytest", "xdist")
        for argument in ("-p", f"no:{name}")
    ]
    command = [sys.executable, "-W", "error", "-m", "pytest", "-W", "error", *without, "-q", "-rA", *arguments]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    return done.stdout + done.stderr


def test_a_project_in_trio_mode(tmp_path: Path) -> None:
    told = outcome_of(
        tmp_path,
        """
        import os, threading, time
        import pytest, trio
        from dk_trio.testing import run_job
        from sleeper import Sleeper

        async def test_hours(dk_client, virtual_clock, assert_no_leaks):
            async with dk_client.start({"hours": 8}) as outputs:
                assert len([output async for output in outputs]) == 3

        async def test_job(virtual_clock):
            result = await run_job(Sleeper, {"hours": 24}, time_limit=1e6)
            assert (result.ok, result.seconds) == (True, 86400)

        async def test_task(virtual_clock, assert_no_leaks):
            trio.lowlevel.spawn_system_task(trio.sleep_forever, name="the daemon")

        async def test_file(assert_no_leaks):
            os.open("sleeper.py", os.O_RDONLY)

        @pytest.mark.usefixtures("assert_no_leaks")
        def test_thread():
            threading.Thread(target=threading.Event().wait, name="the idler", daemon=True).start()

        async def test_deadlock(virtual_clock):
            await trio.sleep_forever()

        class TestNothing:
            @pytest.fixture
            def dk_module(self, request):
                from dk_trio.testing.plugin import dk_module
                return dk_module._get_wrapped_function()()

            async def test_nothing(self, dk_client):
                pass
        """,
        "-o",
        "trio_mode=true",
    )
    for name in ("hours", "job"):
        assert f"PASSED test_sleeper.py::test_{name}\n" in told
    assert "1 left behind:\n  task the daemon" in told
    assert "sleeper.py\n" in told.partition("file descriptor ")[2]
    assert "1 left behind:\n  thread the idler" in told
    assert "every task waits for ever" in told
    assert "test_deadlock - sleep_forever" in told or "sleep_forever at test_sleeper.py" in told
    assert "dk_server does not know what to serve: write a fixture dk_module" in told
    assert "1 failed, 5 passed, 4 errors" in told, told


def test_a_project_that_marks_its_tests(tmp_path: Path) -> None:
    told = outcome_of(
        tmp_path,
        """
        import pytest

        @pytest.mark.trio
        async def test_marked(dk_client, dk_provider, virtual_clock, assert_no_leaks):
            from sleeper import Sleeper

            await dk_provider.put_setup({}, module_id=Sleeper)
            async with dk_client.start({"hours": 8}) as outputs:
                assert len([output async for output in outputs]) == 3

        async def test_unmarked(dk_client):
            pass

        def test_synchronous(dk_provider):
            pass
        """,
    )
    assert "PASSED test_sleeper.py::test_marked\n" in told
    assert told.count("\nthe fixtures of dk-trio are for tests that pytest-trio runs: make it `async def`, and") == 2
    assert "1 passed, 2 errors" in told, told


def test_a_project_without_pytest_trio(tmp_path: Path) -> None:
    told = outcome_of(
        tmp_path,
        """
        import sys
        import pytest

        def test_nothing_is_loaded():
            ours = {name for name in sys.modules if name.startswith("dk_trio")}
            assert ours == {"dk_trio", "dk_trio.lazy", "dk_trio.testing", "dk_trio.testing.plugin"}

        async def test_async(dk_client):
            pass

        def test_synchronous(dk_settings, dk_setups, assert_no_leaks, virtual_clock):
            assert dk_settings is dk_setups is None
            assert virtual_clock.current_time() == 0

        def test_by_hand():
            from dk_trio.testing import run, run_job
            from sleeper import Sleeper

            assert run(run_job, Sleeper, {"hours": 1}).seconds == 3600
        """,
        "-p",
        "no:trio",
    )
    assert "\nthe fixtures of dk-trio need pytest-trio: pip install 'dk-trio[testing]'\n" in told
    assert "3 passed, 1 error" in told, told


def test_every_fixture_is_explained() -> None:
    fixtures = {name: value for name, value in vars(plugin).items() if name.startswith("dk_")}
    fixtures |= {name: getattr(plugin, name) for name in ("virtual_clock", "assert_no_leaks")}
    assert len(fixtures) == 8
    for name, fixture in fixtures.items():
        assert fixture.__doc__ or fixture.__wrapped__.__doc__, name
        assert f"| `{name}` | " in plugin.__doc__


def test_assertions_of_the_package_are_not_rewritten(pytestconfig: pytest.Config) -> None:
    """Where it is installed as others have it, and not from a clone, pytest would."""
    hook = SimpleNamespace(_must_rewrite={"dk_trio", "other"})
    for rewrite_hook in (hook, SimpleNamespace()):  # the second is that of --assert=plain
        plugin.pytest_addoption(SimpleNamespace(rewrite_hook=rewrite_hook))
    assert hook._must_rewrite == {"other"}
    assert "dk_trio" not in pytestconfig.pluginmanager.rewrite_hook._must_rewrite


def test_names_are_loaded_when_they_are_used() -> None:
    code = """if True:
        import sys
        import dk_trio.testing as kit
        ours = {name for name in sys.modules if name.startswith("dk_trio")}
        assert ours == {"dk_trio", "dk_trio.lazy", "dk_trio.testing"}
        assert set(kit.__all__) <= set(dir(kit))
        kit.virtual_clock()
        assert "dk_trio.server" not in sys.modules
    """
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    with pytest.raises(AttributeError, match=r"module 'dk_trio\.testing' has no attribute 'mock'"):
        _ = testing.mock
