"""The seven schema RPCs: what they answer for a module that has everything, and for one that has nothing."""

from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

import pytest
import trio
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from jsonschema import Draft202012Validator
from pydantic import BaseModel, Field
from tests.module.sample import module_class, module_with, send_one
from tests.module.served import outputs_of, served

from dk_trio import DataModel, DataTrigger, ModuleClient, SetupModel, TriggerHandler, TrioModule
from dk_trio.module.setup import Dynamic
from dk_trio.services.cost import CostConfig, CostType

CALLS: list[str] = []


async def models() -> list[str]:
    CALLS.append("models")
    return ["small", "large"]


async def hosts() -> list[str]:
    raise OSError("no network")


class Options(BaseModel):
    depth: int = 1


class Ask(DataTrigger):
    """Asks a question."""

    protocol: Literal["ask"] = "ask"
    text: str = Field(json_schema_extra={"ui:widget": "textarea"})
    options: Options = Options()


class Answer(DataTrigger):
    protocol: Literal["answer"] = "answer"
    text: str


class Setup(SetupModel):
    model: Annotated[str, Dynamic(enum=models, fresh_for=60)] = "small"
    host: Annotated[str, Dynamic(enum=hosts)] = "localhost"
    upload: str = Field(default="", json_schema_extra={"config": True})
    index: str = Field(default="", json_schema_extra={"ui:widget": "hidden"})


class Secret(BaseModel):
    token: str = Field(json_schema_extra={"ui:widget": "password"})


PRICE = CostConfig(cost_name="tokens", cost_type=CostType.TOKEN_INPUT, unit="token", rate=0.5)


class Everything(TrioModule[DataModel[Ask], DataModel[Answer], Setup, Secret]):
    services_config_params = {"cost": {"config": {"tokens": PRICE}}}


@Everything.register
class OnAsk(TriggerHandler[Ask, Setup, Answer]):
    protocol = "ask"
    description = "Answers a question"

    async def handle(self, input_data: Ask, setup_data: Setup, context: Any) -> AsyncIterator[Answer]:
        await context.cost.add("tokens", "tokens", len(input_data.text))
        yield Answer(text=f"{setup_data.model} {setup_data.index}")


class Nothing(TrioModule):
    input_format = DataModel[Ask]
    select_format = None

    async def run(self, input_data: Any, setup_data: Any) -> None: ...


async def documents(client: ModuleClient, *, llm_format: bool) -> dict[str, dict[str, Any]]:
    return {
        "input": await client.input_schema(llm_format=llm_format),
        "output": await client.output_schema(llm_format=llm_format),
        "setup": await client.setup_schema(llm_format=llm_format),
        "config": await client.config_setup_schema(llm_format=llm_format),
        "secret": await client.secret_schema(llm_format=llm_format),
        "cost": await client.cost_schema(llm_format=llm_format),
        "select": await client.select_schema(),
    }


@pytest.mark.parametrize("llm_format", [False, True])
async def test_every_document_is_a_valid_schema(autojump_clock: object, llm_format: bool) -> None:
    async with served(Everything) as (_, client):
        found = await documents(client, llm_format=llm_format)
    for name in ("input", "output", "setup", "config", "secret", "select"):
        schema = found[name]["json_schema"] if llm_format or name == "select" else found[name]
        Draft202012Validator.check_schema(schema)
        assert schema["properties"], name
        if llm_format:
            assert "ui:" not in str(schema)
            assert "$ref" not in str({key: value for key, value in schema.items() if key != "$defs"})


async def test_the_input_has_health_checks_and_cost_limits(autojump_clock: object) -> None:
    async with served(Everything) as (_, client):
        schema = await client.input_schema()
    validator = Draft202012Validator(schema)
    for protocol in ("healthcheck_ping", "healthcheck_services", "healthcheck_status"):
        assert validator.is_valid({"root": {"protocol": protocol}})
    assert validator.is_valid({"root": {"protocol": "ask", "text": "a"}, "cost_limits": None})
    limit = {"limit_type": "amount", "max_value": 3}
    assert validator.is_valid({"root": {"protocol": "ask", "text": "a"}, "cost_limits": [limit]})
    assert not validator.is_valid({"root": {"protocol": "ask", "text": "a"}, "cost_limits": [{"max_value": -1}]})
    assert not validator.is_valid({"root": {"protocol": "tell"}})


async def test_a_form_has_config_fields_and_a_job_hidden_ones(autojump_clock: object) -> None:
    async with served(Everything) as (_, client):
        found = await documents(client, llm_format=True)
        assert set(found["config"]["json_schema"]["properties"]) == {"model", "host", "upload"}
        assert set(found["setup"]["json_schema"]["properties"]) == {"model", "host", "index", "resolved_tools"}
        assert found["secret"]["ui_schema"] == {"token": {"ui:widget": "password"}}
        content = await client.config_setup({"model": "large", "upload": "f"}, setup_id="setups:a")
        assert content == {"model": "large", "host": "localhost", "index": "", "resolved_tools": {}}


async def test_what_could_not_be_fetched_is_told_in_the_schema_and_the_log(
    autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    async with served(Everything) as (_, client):
        schema = await client.setup_schema()
    assert schema["properties"]["model"]["enum"] == ["small", "large"]
    assert "enum" not in schema["properties"]["host"]
    assert "no network" in schema["properties"]["host"]["x-dynamic-errors"]["enum"]
    assert "no network" in caplog.text
    assert "host" in caplog.text


async def test_a_fetcher_is_asked_again_when_its_values_are_not_fresh(autojump_clock: object) -> None:
    CALLS.clear()
    async with served(Everything) as (_, client):
        for _ in range(3):
            await client.setup_schema()
            await client.config_setup_schema(llm_format=True)
        assert CALLS == ["models"]
        await trio.sleep(61)
        await client.setup_schema()
        assert CALLS == ["models", "models"]


async def test_prices_and_the_selection(autojump_clock: object) -> None:
    price = {"name": "tokens", "type": "TOKEN_INPUT", "description": None, "unit": "token", "rate": 0.5}
    async with served(Everything) as (_, client):
        assert await client.cost_schema() == {"tokens": price}
        assert await client.cost_schema() == {"tokens": price}
        assert (await client.cost_schema(llm_format=True))["json_schema"] == {"costs": {"tokens": price}}
        select = await client.select_schema()
    assert select["json_schema"]["properties"]["ask"]["description"] == "Answers a question"
    assert select["ui_schema"] == {"ask": {"ui:widget": "checkbox"}}


async def test_what_a_module_does_not_have(autojump_clock: object) -> None:
    async with served(Nothing) as (_, client):
        for call in (client.output_schema, client.secret_schema):
            with pytest.raises(GRPCError, match="Nothing names no") as caught:
                await call()
            assert caught.value.status is Status.UNIMPLEMENTED
        assert await client.cost_schema() == {}
        assert await client.select_schema() == {}
        assert (await client.setup_schema())["properties"].keys() == {"resolved_tools"}


async def test_a_hanging_fetcher_takes_its_own_time_only(autojump_clock: object) -> None:
    class Hanging(SetupModel):
        name: Annotated[str, Dynamic(enum=trio.sleep_forever)] = ""
        other: Annotated[str, Dynamic(enum=models)] = ""

    async with served(module_class(TrioModule[DataModel[Ask], Any, Hanging], run=Nothing.run)) as (_, client):
        started = trio.current_time()
        schema = await client.setup_schema()
        assert trio.current_time() - started == pytest.approx(10)
    assert schema["properties"]["other"]["enum"] == ["small", "large"]
    assert "10 s" in schema["properties"]["name"]["x-dynamic-errors"]["enum"]


async def test_jobs_run_with_the_runtime_model_which_keeps_what_its_author_wrote(autojump_clock: object) -> None:
    class Careful(SetupModel):
        secret_of_the_form: str = Field(json_schema_extra={"config": True})
        prefix: str = ""

        def shout(self) -> str:
            return self.prefix.upper()

    async def handle(self: Any, input_data: Any, setup_data: Careful, context: Any) -> None:
        assert isinstance(setup_data, Careful)
        assert "secret_of_the_form" not in type(setup_data).model_fields
        await context.send({"protocol": "said", "text": setup_data.shout()})

    module = module_with(handle, setup_format=Careful)
    async with served(module) as (_, client):
        with pytest.raises(GRPCError, match="secret_of_the_form") as caught:
            await client.config_setup({"prefix": "a"})
        assert caught.value.status is Status.INVALID_ARGUMENT
        await client.config_setup({"prefix": "a", "secret_of_the_form": "x"}, setup_id="setups:a")
        outputs = await outputs_of(client, {"protocol": "message"}, setup_id="setups:a")
    assert outputs[1]["root"]["text"] == "A"


async def test_cost_limits_in_the_input_bound_the_job(autojump_clock: object) -> None:
    limits = [{"limit_type": "amount", "max_value": 2}]
    async with served(Everything) as (_, client):
        await outputs_of(client, {"root": {"protocol": "ask", "text": "four"}, "cost_limits": limits})
        with pytest.raises(GRPCError) as caught:
            await outputs_of(client, {"root": {"protocol": "ask", "text": "fives"}, "cost_limits": limits})
        assert caught.value.status is Status.FAILED_PRECONDITION
        assert "cost_limits[0].max_value" in str(caught.value.details)
        with pytest.raises(GRPCError) as caught:
            await outputs_of(client, {"root": {"protocol": "ask", "text": "a"}, "cost_limits": [{"max_value": "x"}]})
        assert caught.value.status is Status.INVALID_ARGUMENT
        assert "input.cost_limits" in str(caught.value.details)


async def test_a_module_with_nothing_flagged_is_served_as_ever(autojump_clock: object) -> None:
    async with served(module_with(send_one)) as (_, client):
        assert (await outputs_of(client, {"protocol": "message", "text": "t"}))[1]["root"]["text"] == "t"
