"""What is wrong with the parameters of services, or with the place of their data, shows when the server starts."""

from pathlib import Path
from typing import Any

import pytest
import trio
from tests.module.sample import module_with, send_one
from tests.module.served import served

from dk_trio import ModuleServer, Settings
from dk_trio.errors import ConfigurationError, ModuleDefinitionError
from dk_trio.services import BaseStrategy, ServicesStrategy
from dk_trio.settings import ServicesSettings

STORAGE = {"storage": {"config": {}}}


@pytest.mark.parametrize(
    ("params", "texts"),
    [
        ({"registry": {"modules": [{"id": 3}]}}, ["'registry'", "modules[0]", "module_id"]),
        ({"storage": {"config": {"facts": {"a": 1}}}}, ["'storage'", "'facts'", "MyModel"]),
        ({"storage": {"config": 3}}, ["'storage'", "config is 3"]),
        ({"cost": {"config": {"x": {"rate": 1}}}}, ["'cost'", "config.x.cost_name"]),
        ({"filesystem": {"max_file_size": "big"}}, ["'filesystem'", "max_file_size is 'big'"]),
        ({"user_profile": {"profiles": 3}}, ["'user_profile'", "'int'"]),
    ],
)
def test_a_parameter_that_cannot_be_used(params: dict[str, Any], texts: list[str]) -> None:
    with pytest.raises(ModuleDefinitionError) as caught:
        ModuleServer(module_with(send_one, name="mine", services_config_params=params))
    for text in ["mine", *texts]:
        assert text in caught.value.text


async def test_an_authors_own_strategy_is_not_made_before_a_job_asks_for_it(autojump_clock: object) -> None:
    class Own(BaseStrategy):
        def __init__(self, *ids: str, config: Any) -> None:
            raise AssertionError("was made")

    strategies = {"storage": ServicesStrategy(local=Own)}
    module = module_with(send_one, services_config_strategies=strategies, services_config_params=STORAGE)
    async with served(module):
        pass


async def test_a_directory_in_use_is_told_at_the_start(tmp_path: Path) -> None:
    module = module_with(send_one, name="mine", services_config_params=STORAGE)
    settings = Settings(services=ServicesSettings(data_dir=tmp_path))
    with trio.fail_after(30):
        async with ModuleServer(module, settings=settings).running(port=0):
            with pytest.raises(ConfigurationError, match="mine"):
                async with ModuleServer(module, settings=settings).running(port=0):
                    raise AssertionError("two servers have one directory")
        async with ModuleServer(module, settings=settings).running(port=0):
            pass


async def test_a_module_without_local_data_leaves_no_directory(tmp_path: Path) -> None:
    settings = Settings(services=ServicesSettings(data_dir=tmp_path / "data"))
    with trio.fail_after(30):
        async with ModuleServer(module_with(send_one), settings=settings).running(port=0):
            pass
    assert not (tmp_path / "data").exists()
