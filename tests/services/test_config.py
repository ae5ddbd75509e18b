"""Strategies and their parameters: what is wrong with them shows when the server starts."""

from typing import Any

import pytest
import trio

from dk_trio.errors import ModuleDefinitionError, ServiceError
from dk_trio.services.channels import ChannelCache
from dk_trio.services.config import OF_THE_SERVER, SERVICES, JobServices, ServicesConfig, SharedServices, probe
from dk_trio.services.local.platform import LocalPlatform
from dk_trio.services.strategy import BaseStrategy, ServicesMode, ServicesStrategy

IDS = ("missions:m", "setups:s", "setup_versions:v")


class Local(BaseStrategy):
    def __init__(self, mission_id: str, setup_id: str, setup_version_id: str, *, path: str, job_id: str = "") -> None:
        super().__init__(mission_id, setup_id, setup_version_id)
        self.path = path
        self.job_id = job_id


class Remote(BaseStrategy):
    def __init__(self, mission_id: str, setup_id: str, setup_version_id: str, *, host: str) -> None:
        super().__init__(mission_id, setup_id, setup_version_id)
        self.host = host


BOTH = {"storage": ServicesStrategy(local=Local, remote=Remote)}
PARAMS = {"storage": {"path": "p", "host": "h", "client_config": object()}}


def test_one_dict_of_parameters_serves_both_modes() -> None:
    local = ServicesConfig(BOTH, PARAMS).make("storage", IDS, {"job_id": "j", "platform": None})
    assert (type(local), local.path, local.job_id, local.mission_id) == (Local, "p", "j", "missions:m")
    remote = ServicesConfig(BOTH, PARAMS, mode=ServicesMode.REMOTE).make("storage", IDS, {"job_id": "j"})
    assert (type(remote), remote.host) == (Remote, "h")


def test_a_parameter_of_the_module_goes_before_what_the_server_offers() -> None:
    config = ServicesConfig(BOTH, {"storage": {"path": "p", "job_id": "mine"}})
    assert config.make("storage", IDS, {"job_id": "j"}).job_id == "mine"


def test_a_constructor_that_takes_anything_gets_the_modules_parameters() -> None:
    class Open:
        def __init__(self, *ids: str, **parameters: Any) -> None:
            self.ids, self.parameters = ids, parameters

    config = ServicesConfig({"cost": ServicesStrategy(local=Open)}, {"cost": {"a": 1}})
    made = config.make("cost", IDS, {"job_id": "j"})
    assert (made.ids, made.parameters) == (IDS, {"a": 1})


@pytest.mark.parametrize(
    ("strategies", "params", "texts"),
    [
        ({}, {"storrage": {}}, ["'storrage'", "storage"]),
        (BOTH, {"storage": {"path": "p", "paht": "q"}}, ["'paht'", "Local and Remote", "host, path"]),
        (BOTH, {"storage": {"host": "h"}}, ["lacks path", "Local"]),
        ({"storage": Local}, {}, ["ServicesStrategy(local="]),
        ({"storage": ServicesStrategy(local=len)}, {}, ["not a class"]),  # type: ignore[arg-type]
        ({"storage": ServicesStrategy(local=object)}, {}, ["three ids", "BaseStrategy"]),
    ],
)
def test_what_cannot_work_is_refused_at_start(strategies: Any, params: Any, texts: list[str]) -> None:
    with pytest.raises(ModuleDefinitionError) as caught:
        ServicesConfig(strategies, params, owner="Mine")
    assert "Mine" in caught.value.text
    for text in texts:
        assert text in caught.value.text


@pytest.mark.parametrize("mode", list(ServicesMode))
def test_every_service_has_a_strategy_in_both_modes(mode: ServicesMode) -> None:
    params: dict[str, Any] = {"storage": {"config": {}}, "cost": {"config": {}}}
    offered = {"platform": LocalPlatform(), "channels": ChannelCache(), "providers": NoProviders()}
    config = ServicesConfig({}, params, mode=mode)
    for name in (*SERVICES, *OF_THE_SERVER):
        strategy = config.make(name, IDS, offered)
        assert type(strategy).__name__.startswith("Default" if mode is ServicesMode.LOCAL else ("Grpc", "Default"))


class NoProviders:
    """Calls that nobody makes."""

    locks = None

    def query(self, client_config: object) -> None:
        assert client_config is None


def test_a_service_without_its_parameters_says_so_when_it_is_used() -> None:
    config = ServicesConfig(owner="Mine")
    with pytest.raises(ServiceError) as caught:
        config.make("storage", IDS, {"platform": None})
    assert 'services_config_params = {"storage": {"config": ...}}' in caught.value.text
    remote = ServicesConfig(params={"storage": {"config": {}}}, mode=ServicesMode.REMOTE, owner="Mine")
    with pytest.raises(ServiceError, match="uses storage, but GrpcStorage has no providers"):
        remote.make("storage", IDS, {})


def services(*strategies: tuple[str, type]) -> JobServices:
    config = ServicesConfig({name: ServicesStrategy(local=cls) for name, cls in strategies})
    shared: Any = SharedServices(platform=None, channels=None)  # type: ignore[arg-type]  # nobody asks for them
    return JobServices(config=config, shared=shared, ids=IDS, offered={"job_id": "j"})


async def test_a_service_is_made_once_and_closed_once(caplog: pytest.LogCaptureFixture) -> None:
    closed = []

    class Noted(BaseStrategy):
        async def close(self) -> None:
            closed.append(type(self).__name__)
            if type(self) is Cost:
                raise ValueError("cannot close")

    class Cost(Noted): ...

    class Storage(Noted): ...

    class Bare:
        def __init__(self, *ids: str) -> None: ...

    job = services(("storage", Storage), ("cost", Cost), ("registry", Bare))
    assert not job.used
    assert job.get("storage") is job.get("storage")
    job.get("registry")
    job.get("cost")
    await job.close()
    await job.close()
    assert sorted(closed) == ["Cost", "Storage"]
    assert "service cost of job j: close failed" in caplog.text
    assert not job.used


async def test_every_flush_gets_its_turn_once() -> None:
    events = []

    async def fails() -> None:
        events.append("fails")
        raise OSError("full")

    async def works() -> None:
        events.append("works")
        job.at_end("c", exits)  # as one that makes use of a history does

    async def exits() -> None:
        events.append("exits")
        raise SystemExit(3)

    job = services()
    job.at_end("a", fails)
    job.at_end("b", works)
    job.at_end("a", works)
    with pytest.raises(BaseExceptionGroup) as caught:
        await job.flush()
    assert [str(error) for error in caught.value.exceptions] == ["full", "3"]
    assert (sorted(events[:2]), events[2:]) == (["fails", "works"], ["exits"])
    await job.flush()
    assert len(events) == 3


async def test_probes_run_at_the_same_time(autojump_clock: object) -> None:
    class Slow(BaseStrategy):
        async def check_health(self) -> None:
            await trio.sleep(3)

    class Hangs(BaseStrategy):
        async def check_health(self) -> None:
            await trio.sleep_forever()

    job = services(("storage", Slow), ("cost", Slow), ("registry", Hangs))
    late: set[str] = set()
    with trio.fail_after(86400):
        async with trio.open_nursery() as nursery:
            names = ["storage", "cost", "registry"]
            assert await probe(job, names, timeout=5, nursery=nursery, late=late) == {
                "storage": "",
                "cost": "",
                "registry": "no answer within 5 s",
            }
    assert late == set()
    assert trio.current_time() == 5
