"""The same module on Trio."""

from typing import Annotated, ClassVar, Literal

import trio
from pydantic import BaseModel, Field

from dk_trio import (
    CostConfig,
    DataModel,
    DataTrigger,
    Dynamic,
    ModuleContext,
    ModuleDiscoverer,
    SetupModel,
    TrioModule,
)

FEEDS = {"world": ["north", "south"], "local": ["town"]}  # stands for a catalogue on the network


async def regions() -> list[str]:
    await trio.sleep(0.01)
    return list(FEEDS)


class Ask(DataTrigger):
    """Ask for the headlines about a topic."""

    protocol: Literal["headlines"] = "headlines"
    topic: str


class Headline(DataTrigger):
    """One headline."""

    protocol: Literal["headline"] = "headline"
    text: str


class NewsSetup(SetupModel):
    region: Annotated[str, Dynamic(enum=regions)] = Field(default="world", json_schema_extra={"config": True})
    feeds: list[str] = Field(default_factory=list, json_schema_extra={"ui:widget": "hidden"})


class NewsSecret(BaseModel):
    token: str = ""


class Interest(BaseModel):
    times: int


class News(TrioModule[DataModel[Ask], DataModel[Headline], NewsSetup, NewsSecret]):
    name = "news"
    description = "Headlines about what a reader is interested in."
    metadata: ClassVar[dict] = {"module_id": "modules:news", "version": "2.0.0"}
    input_format = DataModel[Ask]
    output_format = DataModel[Headline]
    setup_format = NewsSetup
    secret_format = NewsSecret
    triggers_discoverer = ModuleDiscoverer(packages=["migration.triggers"])
    services_config_params: ClassVar[dict] = {
        "storage": {"config": {"interests": Interest}},
        "cost": {"config": {"feed": CostConfig(cost_name="feed", cost_type="API_CALL", unit="read", rate=0.5)}},
    }

    async def initialize(self, context: ModuleContext, setup_data: NewsSetup) -> None:
        context.state.open_feeds = list(setup_data.feeds)

    async def run_config_setup(self, context: ModuleContext, config_setup_data: NewsSetup) -> NewsSetup:
        await trio.sleep(0.01)
        config_setup_data.feeds = FEEDS[config_setup_data.region]
        return config_setup_data

    async def cleanup(self) -> None:
        await trio.sleep(0.01)
        self.context.state.open_feeds.clear()
