"""One of several workers keeps nothing by itself: refused when it starts where that is known, else at the first use."""

from typing import Literal

import pytest
import trio
from pydantic import BaseModel
from trio.testing import MockClock

from dk_trio import DataModel, DataTrigger, ModuleContext, ModuleServer, SetupModel, TrioModule
from dk_trio.errors import ConfigurationError
from dk_trio.workers.link import UnkeptPlatform


class Note(BaseModel):
    text: str


class Write(DataTrigger):
    protocol: Literal["write"] = "write"


class Keeper(TrioModule[DataModel[Write], DataModel[Write], SetupModel]):
    name = "keeper"
    services_config_params = {"storage": {"config": {"notes": Note}}}

    async def run(self, input_data: DataModel[Write], setup_data: SetupModel, context: ModuleContext) -> None: ...


async def test_a_module_that_keeps_records_is_not_served(autojump_clock: MockClock) -> None:
    with trio.fail_after(86400):
        async with UnkeptPlatform().opened() as platform:
            with pytest.raises(ConfigurationError, match="cannot keep data by themselves") as caught:
                async with ModuleServer(Keeper, platform=platform).opened():
                    pass
    assert "--provider" in caught.value.text


async def test_what_nobody_could_know_before_is_refused_at_its_first_use(autojump_clock: MockClock) -> None:
    with trio.fail_after(86400):
        async with UnkeptPlatform().opened() as platform:
            with pytest.raises(ConfigurationError, match="cannot keep data by themselves"):
                await platform.files.get("missions:m", "files:a")
            assert not platform.database.exists
