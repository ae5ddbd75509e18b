"""Handlers of one protocol are told apart by input type; inputs that fit none are refused field by field."""

from typing import Any, ClassVar

import pytest
from pydantic import BaseModel, ConfigDict, Field

from dk_trio.errors import InvalidInputError, InvalidSetupError, ModuleDefinitionError, UnknownProtocolError
from dk_trio.module import DataModel, ModuleDefinition, SetupModel, ToolModule, TriggerHandler, TrioModule

from .handlers import Loud, Picture, Text, handler, module_of
from .sample import Input, Message, Number, Output, Settings, module_class, module_with, send_one, session_of


async def took(module: Any, root: dict[str, Any]) -> tuple[str, str]:
    outputs: list[dict[str, Any]] = []
    await session_of(module, root, outputs).run()
    taken = outputs[1]["root"]
    return taken["handler"], taken["type"]


# --- several handlers of one protocol ---------------------------------------------------------------------------------


async def test_handlers_of_one_protocol_are_told_apart_by_input_type(autojump_clock: object) -> None:
    module = module_of(
        handler(name="OnText", base=TriggerHandler[Text]), handler(name="OnPicture", input_format=Picture)
    )
    assert await took(module, {"protocol": "say", "text": "x"}) == ("OnText", "Text")
    assert await took(module, {"protocol": "say", "url": "x"}) == ("OnPicture", "Picture")
    assert await took(module, {"url": "x"}) == ("OnPicture", "Picture")


@pytest.mark.parametrize("derived_first", [True, False])
async def test_the_most_specific_handler_wins_in_any_order(derived_first: bool, autojump_clock: object) -> None:
    handlers = [handler(name="OnLoud", input_format=Loud), handler(name="OnText", input_format=Text)]
    module = module_of(*handlers if derived_first else reversed(handlers))
    assert await took(module, {"protocol": "say", "text": "x", "volume": 3}) == ("OnLoud", "Loud")
    assert await took(module, {"protocol": "say", "text": "x"}) == ("OnText", "Text")


async def test_the_input_format_of_the_module_says_what_there_is(autojump_clock: object) -> None:
    both = TrioModule[DataModel[Loud | Picture]]
    module = module_of(handler(name="OnText", input_format=Text), handler(name="Rest"), base=both)
    assert await took(module, {"protocol": "say", "text": "x", "volume": 1}) == ("OnText", "Loud")
    assert await took(module, {"protocol": "say", "url": "x"}) == ("Rest", "Picture")


async def test_a_handler_may_take_several_types(autojump_clock: object) -> None:
    module = module_of(handler(name="Both", base=TriggerHandler[Text | Picture]))
    assert await took(module, {"protocol": "say", "url": "x"}) == ("Both", "Picture")
    assert await took(module, {"protocol": "say", "text": "x"}) == ("Both", "Text")


def test_handlers_keep_the_order_in_which_they_were_registered() -> None:
    handlers = [handler(name=kind.__name__, input_format=kind) for kind in (Picture, Text, Loud)]
    assert module_of(*handlers).triggers() == {"say": tuple(handlers)}


def test_own_handlers_of_a_protocol_replace_all_inherited_ones() -> None:
    base = module_of(
        handler(input_format=Text), handler(input_format=Picture), handler("message", input_format=Message)
    )
    derived = module_class(base, "Derived")
    own = derived.register(handler(input_format=Loud))
    assert derived.triggers()["say"] == (own,)
    assert derived.triggers()["message"] == base.triggers()["message"]
    assert len(base.triggers()["say"]) == 2
    assert set(ModuleDefinition.of(derived).roots) == {"say", "message"}


def test_an_error_is_about_the_type_that_was_meant() -> None:
    module = module_of(
        handler(input_format=Loud), handler(input_format=Picture), handler("message", input_format=Message)
    )
    with pytest.raises(InvalidInputError) as caught:
        ModuleDefinition.of(module).parse_input({"root": {"protocol": "say", "text": "x", "volume": "high"}})
    assert [violation.field for violation in caught.value.violations] in (["input.root.volume"], ["input.root.url"])
    with pytest.raises(InvalidInputError) as caught:
        ModuleDefinition.of(module).parse_input({"root": {"protocol": "message", "count": "x"}, "annotations": 1})
    assert [violation.field for violation in caught.value.violations] == ["input.root.count", "input.annotations"]


# --- violations ------------------------------------------------------------------------------------------------------


def violations(definition: ModuleDefinition, data: dict[str, Any]) -> dict[str, str]:
    with pytest.raises(InvalidInputError) as caught:
        definition.parse_input(data)
    return {violation.field: violation.description for violation in caught.value.violations}


def test_violations_name_field_rule_and_value() -> None:
    definition = ModuleDefinition.of(module_with(send_one))
    found = violations(definition, {"root": {"protocol": "message", "count": "many", "text": 3}})
    assert found["input.root.text"] == "input should be a valid string (got 3)"
    assert "(got 'many')" in found["input.root.count"]


def test_violations_of_an_unknown_protocol_list_what_exists() -> None:
    definition = ModuleDefinition.of(module_of(handler("message"), handler("number"), base=TrioModule[Input, Output]))
    expected = {"input.root.protocol": "must be one of: message, number (got 'mesage')"}
    assert violations(definition, {"root": {"protocol": "mesage"}}) == expected
    assert violations(definition, {"root": {}}) == {"input.root.protocol": "must be one of: message, number"}
    assert list(violations(definition, {"roots": {}})) == ["input.root"]
    with pytest.raises(UnknownProtocolError):
        definition.parse_input({"root": {"protocol": ["message"]}})


def test_violations_show_no_values_of_objects() -> None:
    class Nested(BaseModel):
        key: str
        other: int

    class Own(SetupModel):
        nested: list[Nested]

    definition = ModuleDefinition.of(module_with(send_one, setup_format=Own))
    with pytest.raises(Exception, match="does not fit") as caught:
        definition.parse_form({"nested": {"key": "s3cret"}}, setup_id="setups:a")
    (violation,) = caught.value.violations  # type: ignore[attr-defined]
    assert violation.field == "content.nested"
    assert "s3cret" not in violation.description + str(caught.value)


def test_violations_are_bounded() -> None:
    class Own(SetupModel):
        many: dict[str, int]

    definition = ModuleDefinition.of(module_with(send_one, setup_format=Own))
    with pytest.raises(InvalidSetupError) as caught:
        definition.parse_setup({"many": {f"{'k' * 10_000}{i}": "x" * 10_000 for i in range(1000)}}, setup_id="setups:a")
    assert len(caught.value.violations) == 10
    assert all(len(each.field) < 300 and len(each.description) < 300 for each in caught.value.violations)
    assert len(caught.value.message) < 3000


def test_cost_limits_beside_the_root_are_not_the_models() -> None:
    class Strict(DataModel[Message]):
        model_config = ConfigDict(extra="forbid")

    limits = [{"name": "tokens", "limit": 5}]
    data = {"root": {"protocol": "message"}, "cost_limits": limits}
    strict = ModuleDefinition.of(module_of(handler("message"), base=TrioModule[Strict]))
    assert strict.parse_input(data).root.protocol == "message"
    assert data["cost_limits"] is limits

    class Own(DataModel[Message]):
        cost_limits: list[dict[str, Any]] = Field(default_factory=list)

    own = ModuleDefinition.of(module_of(handler("message"), base=TrioModule[Own]))
    assert own.parse_input(data).cost_limits == limits


# --- the class as the guides know it ---------------------------------------------------------------------------------


def test_siblings_share_no_parameters() -> None:
    class Base(TrioModule[Input, Output]):
        services_config_params: ClassVar[dict[str, Any]] = {"storage": {"config": {}}}

    class First(Base):
        pass

    class Second(Base):
        pass

    First.services_config_params["storage"]["config"] = {"a": 1}  # type: ignore[index]
    First.services_config_strategies["storage"] = None  # type: ignore[index]
    assert Second.services_config_params == Base.services_config_params == {"storage": {"config": {}}}
    assert "storage" not in Second.services_config_strategies
    assert ToolModule.services_config_strategies == {}


def test_protocols_with_their_descriptions() -> None:
    module = module_of(handler(description="Says it.", input_format=Text), handler("message", input_format=Message))
    own = {"say": "Says it.", "message": "message"}
    assert module.get_registered_protocols_with_info(exclude_utility=True) == own
    known = module.get_registered_protocols_with_info()
    assert known.items() > own.items()
    assert known["healthcheck_ping"] == "Is the module there?"


def test_models_out_of_dicts() -> None:
    class Secret(BaseModel):
        key: str

    class Module(TrioModule[Input, Output, Settings, Secret]):
        pass

    Module.register(handler("message"))
    assert isinstance(Module.create_input_model({"root": {"text": "x", "protocol": "message"}}).root, Message)
    assert Module.create_output_model({"root": {"text": "x"}}).root.text == "x"
    assert Module.create_secret_model({"key": "x"}).key == "x"
    for create, data, field in (
        (Module.create_input_model, {"root": {"protocol": "message", "count": "x"}}, "input.root.count"),
        (Module.create_output_model, {"root": {"count": "x"}}, "output.root.count"),
        (Module.create_secret_model, {"key": 12345}, "secret.key"),
    ):
        with pytest.raises(Exception, match=r"(does|do) not fit") as caught:
            create(data)  # type: ignore[operator]
        assert [violation.field for violation in caught.value.violations] == [field]  # type: ignore[attr-defined]
    assert "12345" not in str(caught.value)
    with pytest.raises(ModuleDefinitionError, match="has no secret_format"):
        module_class().create_secret_model({})


def test_number_is_not_reached_without_a_handler() -> None:
    definition = ModuleDefinition.of(module_with(send_one))
    assert Number in {kind for kinds in definition.roots.values() for kind in kinds}
    with pytest.raises(UnknownProtocolError):
        definition.parse_input({"root": {"protocol": "number", "value": 1}})
