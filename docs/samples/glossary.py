"""A module with everything that its class can say: four formats, metadata, and what its services need."""

from typing import Literal

from pydantic import BaseModel

from dk_trio import CostConfig, DataModel, DataTrigger, ModuleContext, SetupModel, ToolModule, TriggerHandler


class Learn(DataTrigger):
    """Keep the meaning of a word."""

    protocol: Literal["learn"] = "learn"
    word: str
    meaning: str


class Define(DataTrigger):
    """Say what a word means."""

    protocol: Literal["define"] = "define"
    word: str


class Definition(DataTrigger):
    protocol: Literal["definition"] = "definition"
    word: str
    meaning: str


class GlossarySetup(SetupModel):
    unknown: str = "nobody knows"


class GlossarySecret(BaseModel):
    api_key: str = ""


class Entry(BaseModel):
    meaning: str


class Glossary(ToolModule[DataModel[Learn | Define], DataModel[Definition], GlossarySetup, GlossarySecret]):
    name = "glossary"
    description = "Keeps words and what they mean."
    metadata = {"module_id": "modules:glossary", "version": "1.2.0", "tags": ["language"]}
    services_config_params = {
        "storage": {"config": {"entries": Entry}},
        "cost": {"config": {"lookup": CostConfig(cost_name="lookup", cost_type="API_CALL", unit="lookup", rate=0.001)}},
    }

    async def initialize(self, context: ModuleContext, setup_data: GlossarySetup) -> None:
        context.state.looked_up = 0

    async def cleanup(self) -> None:
        self.context.callbacks.logger.info("%d lookups", self.context.state.looked_up)


@Glossary.register
class OnLearn(TriggerHandler[Learn, GlossarySetup, Definition]):
    protocol = "learn"

    async def handle(self, input_data: Learn, setup_data: GlossarySetup, context: ModuleContext) -> None:
        await context.storage.upsert("entries", input_data.word, {"meaning": input_data.meaning}, scope="setup")
        await context.send(Definition(word=input_data.word, meaning=input_data.meaning))


@Glossary.register
class OnDefine(TriggerHandler[Define, GlossarySetup, Definition]):
    protocol = "define"

    async def handle(self, input_data: Define, setup_data: GlossarySetup, context: ModuleContext) -> None:
        context.state.looked_up += 1
        await context.cost.add(input_data.word, "lookup", 1)
        record = await context.storage.read("entries", input_data.word, scope="setup")
        meaning = record.data.meaning if record else setup_data.unknown
        await context.send(Definition(word=input_data.word, meaning=meaning))
