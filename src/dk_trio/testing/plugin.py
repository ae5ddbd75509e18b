"""The pytest plugin of dk-trio: fixtures for tests of modules. pytest loads it wherever dk-trio is installed.

A test module, or a conftest.py, says once what is served:

    @pytest.fixture
    def dk_module():
        return MyModule

    async def test_an_hour_passes_at_once(dk_client, virtual_clock):
        async with dk_client.start({"protocol": "remind", "minutes": 60}) as outputs:
            ...

| fixture | gives | override it to |
|---|---|---|
| `dk_module` | nothing: override it | say which module class is served, or a list of several |
| `dk_settings` | None: the defaults of `serve_in_memory` | give other settings |
| `dk_setups` | None: no setups but those of the module and the provider | give some, contents by id |
| `dk_provider` | a `FakeProvider`, with which the server then works in remote mode | prepare one |
| `dk_server` | a `MemoryServer` that serves them | serve in another way |
| `dk_client` | its `ModuleClient` | call with other options |
| `virtual_clock` | a clock that jumps; the test itself must name it | |
| `assert_no_leaks` | checks that the test leaves no task, file descriptor or thread behind | |

`dk_provider` is there for tests that ask for it, by name, by `usefixtures` or by a fixture of their own; the server of
all others works locally.

The async ones need pytest-trio, which `pip install 'dk-trio[testing]'` brings, and a test that it runs: marked with
`@pytest.mark.trio`, or with `trio_mode = true` for all. Nothing else of a test run changes, and nothing of dk-trio is
imported before a fixture is used: that would cost time, and a tool that measures coverage would miss it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping, Sequence

    from trio.testing import MockClock

    from dk_trio.client import ModuleClient
    from dk_trio.module import TrioModule
    from dk_trio.settings import Settings

    from . import FakeProvider, LeakWatch, MemoryServer

_TRIO = "trio"  # the name of pytest-trio's plugin, and of its marker


def pytest_addoption(pluginmanager: pytest.PytestPluginManager) -> None:
    """Keep pytest from rewriting the assertions of dk-trio, as it does with each package that a plugin is in.

    They are no tests, and it costs 2 s of each run where Python writes no bytecode, such as in most containers.
    """
    marked: set[str] = getattr(pluginmanager.rewrite_hook, "_must_rewrite", set())
    marked.discard("dk_trio")


@pytest.fixture
def dk_module() -> type[TrioModule[Any, Any, Any, Any]] | Sequence[type[TrioModule[Any, Any, Any, Any]]]:
    """The module class that `dk_server` serves, or a list of several. To be overridden."""
    pytest.fail(
        "dk_server does not know what to serve: write a fixture dk_module that returns your module class", pytrace=False
    )


@pytest.fixture
def dk_settings() -> Settings | None:
    """The settings of `dk_server`; None: the defaults of `serve_in_memory`."""
    return None


@pytest.fixture
def dk_setups() -> Mapping[str, Mapping[str, Any]] | None:
    """The setups of `dk_server`, contents by id; None: what the module's defaults or the provider say."""
    return None


@pytest.fixture
def _dk_trio_runs(request: pytest.FixtureRequest) -> None:
    """Async fixtures depend on this, so that it is said what is missing before pytest finds that something is."""
    if not request.config.pluginmanager.hasplugin(_TRIO):
        pytest.fail("the fixtures of dk-trio need pytest-trio: pip install 'dk-trio[testing]'", pytrace=False)
    if request.node.get_closest_marker(_TRIO) is None:
        pytest.fail(
            "the fixtures of dk-trio are for tests that pytest-trio runs: make it `async def`, and mark it with "
            "@pytest.mark.trio, or set trio_mode = true",
            pytrace=False,
        )


@pytest.fixture
async def dk_provider(request: pytest.FixtureRequest, _dk_trio_runs: None) -> AsyncIterator[FakeProvider | None]:
    """A services-provider in memory; for a test that does not ask for it, None."""
    if not _asked_for("dk_provider", request.node):
        yield None
        return
    from . import FakeProvider

    async with FakeProvider() as provider:
        yield provider


@pytest.fixture
async def dk_server(
    _dk_trio_runs: None, dk_module: Any, dk_settings: Any, dk_setups: Any, dk_provider: Any
) -> AsyncIterator[MemoryServer]:
    """`dk_module`, served in memory for the length of the test."""
    from . import serve_in_memory

    modules = dk_module if isinstance(dk_module, (list, tuple)) else [dk_module]
    async with serve_in_memory(*modules, settings=dk_settings, setups=dk_setups, provider=dk_provider) as served:
        yield served


@pytest.fixture
async def dk_client(_dk_trio_runs: None, dk_server: MemoryServer) -> ModuleClient:
    """A client of `dk_server`."""
    return dk_server.client


@pytest.fixture
def virtual_clock() -> MockClock:
    """Time that jumps to what happens next, for tests that name it as an argument; see `virtual_clock`."""
    from .clock import virtual_clock

    return virtual_clock()


@pytest.fixture
def assert_no_leaks() -> Iterator[LeakWatch]:
    """Check after the test that it has left no file descriptor and no thread behind, and in its run no task.

    Tasks are looked for when the test names it as an argument; `usefixtures` is enough for the others.
    """
    from .leaks import LeakError, LeakWatch

    watch = LeakWatch()
    yield watch
    left = watch.left()
    if left:
        pytest.fail(str(LeakError(left)), pytrace=False)


def _asked_for(name: str, item: Any) -> bool:
    """Whether a test asks for a fixture, by itself or by fixtures that are not ours."""
    info = item._fixtureinfo
    names = [*info.initialnames]
    for each in names:  # it grows meanwhile
        for fixture in info.name2fixturedefs.get(each, ()):
            if fixture.func.__module__ != __name__:
                names += [argument for argument in fixture.argnames if argument not in names]
    return name in names
