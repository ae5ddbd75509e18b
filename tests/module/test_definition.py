"""A module class is checked once, before it is served; its formats come from its type arguments."""

from typing import Any, Generic, Literal, TypeVar

import pytest
from pydantic import BaseModel

from dk_trio.errors import InvalidInputError, InvalidSetupError, ModuleDefinitionError, UnknownProtocolError
from dk_trio.module import (
    BaseModule,
    DataModel,
    DataTrigger,
    ModuleDefinition,
    SetupModel,
    ToolModule,
    TriggerHandler,
    TrioModule,
)

from .sample import Input, Message, Number, Output, Settings, module_class, module_with, send_one


class Secret(BaseModel):
    key: str = ""


def handler(protocol: str = "message", **attributes: Any) -> Any:
    return type("Handler", (TriggerHandler,), {"protocol": protocol, "handle": send_one, **attributes})


def test_formats_come_from_type_arguments() -> None:
    class Module(TrioModule[Input, Output, Settings, Secret]):
        pass

    assert (Module.input_format, Module.output_format) == (Input, Output)
    assert (Module.setup_format, Module.secret_format) == (Settings, Secret)


def test_later_type_arguments_may_be_left_out() -> None:
    class Module(ToolModule[Input, Output]):
        pass

    assert (Module.input_format, Module.output_format, Module.setup_format) == (Input, Output, SetupModel)


def test_attributes_win_over_type_arguments() -> None:
    class Module(TrioModule[Input, Output, Settings]):
        setup_format = SetupModel

    assert Module.setup_format is SetupModel


def test_formats_are_found_through_generic_classes_between() -> None:
    inner = TypeVar("inner", bound=DataModel[Any])

    class Between(TrioModule[inner, Output, Settings], Generic[inner]):
        pass

    class Module(Between[Input]):
        pass

    class Below(Module):
        pass

    assert (Module.input_format, Module.output_format, Module.setup_format) == (Input, Output, Settings)
    assert Below.input_format is Input


def test_the_name_of_the_guides_is_the_same_class() -> None:
    assert BaseModule is TrioModule


def test_the_registry_belongs_to_the_class() -> None:
    first = module_with(send_one)
    second = module_class()
    assert list(first.triggers()) == ["message"]
    assert second.triggers() == {}


def test_a_derived_class_inherits_and_replaces_triggers() -> None:
    base = module_with(send_one)
    derived = module_class(base)
    assert derived.triggers() == base.triggers()
    own = derived.register(handler())
    assert derived.triggers() == {"message": (own,)}
    assert base.triggers()["message"] != (own,)


def test_two_handlers_for_one_protocol() -> None:
    module = module_with(send_one)
    with pytest.raises(ModuleDefinitionError, match="Sample has two handlers for protocol 'message'"):
        module.register(handler())


@pytest.mark.parametrize("shared", [TrioModule, ToolModule])
def test_registering_on_a_class_that_all_modules_share(shared: Any) -> None:
    with pytest.raises(ModuleDefinitionError, match="shared by all modules"):
        shared.register(handler())


async def short(self: Any, input_data: Any) -> None:
    pass


def plain(self: Any, input_data: Any, setup_data: Any, context: Any) -> None:
    pass


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (type("H", (TriggerHandler,), {"handle": send_one}), "H has no protocol"),
        (type("H", (TriggerHandler,), {"handle": send_one, "protocol": ""}), "H has no protocol"),
        (type("H", (TriggerHandler,), {"protocol": "message"}), "H has no handle method"),
        (type("H", (TriggerHandler,), {"protocol": "message", "handle": plain}), "H.handle is not async"),
        (
            type("H", (TriggerHandler,), {"protocol": "message", "handle": short}),
            r"H.handle\(self, input_data\) cannot be",
        ),
        (object, "not a TriggerHandler"),
    ],
)
def test_a_handler_that_is_not_complete(made: Any, message: str) -> None:
    module = module_class(TrioModule[Input, Output], "Module")
    with pytest.raises(ModuleDefinitionError, match=message):
        module.register(made)


def test_a_protocol_that_the_input_does_not_have() -> None:
    module = module_class(TrioModule[Input, Output], "Module")
    module.register(handler("file"))
    with pytest.raises(ModuleDefinitionError, match="protocol 'file', but no root of Input has it") as caught:
        ModuleDefinition.of(module)
    assert 'Literal["file"]' in caught.value.hint


def test_a_protocol_without_any_input_type() -> None:
    module = module_class(TrioModule, "Module")
    module.register(handler())
    with pytest.raises(ModuleDefinitionError, match="Protocol 'message' of Module has no input type"):
        ModuleDefinition.of(module)


def test_a_root_whose_protocol_is_any_text() -> None:
    class Loose(DataTrigger):
        text: str = ""

    module = module_class(TrioModule[DataModel[Loose]], "Module")
    module.register(handler())
    with pytest.raises(ModuleDefinitionError, match="no Literal protocol at all"):
        ModuleDefinition.of(module)


def test_a_module_that_can_do_nothing() -> None:
    with pytest.raises(ModuleDefinitionError, match="no triggers and no run"):
        ModuleDefinition.of(module_class())


def test_a_hook_that_is_not_async() -> None:
    module = module_with(send_one, cleanup=lambda self: None)
    with pytest.raises(ModuleDefinitionError, match=r"Sample.cleanup is not async"):
        ModuleDefinition.of(module)


def test_what_is_not_a_module() -> None:
    with pytest.raises(ModuleDefinitionError, match="is not a module class"):
        ModuleDefinition.of(int)


def test_input_formats_of_handlers_make_the_input() -> None:
    module = module_class(TrioModule, "Module")
    module.register(handler(input_format=Message))
    module.register(handler("number", input_format=Number))
    definition = ModuleDefinition.of(module)
    assert isinstance(definition.parse_input({"root": {"protocol": "number", "value": 2}}).root, Number)
    assert isinstance(definition.parse_input({"root": {"protocol": "message", "text": "x"}}).root, Message)


def test_whole_doubles_of_a_struct_become_integers() -> None:
    parsed = ModuleDefinition.of(module_with(send_one)).parse_input({"root": {"protocol": "message", "count": 3.0}})
    assert parsed.root.count == 3
    assert isinstance(parsed.root.count, int)


def test_the_only_protocol_may_be_left_out() -> None:
    definition = ModuleDefinition.of(module_with(send_one))
    assert definition.parse_input({"root": {"text": "x"}}).root.protocol == "message"


def test_an_unknown_protocol_is_named_with_those_that_exist() -> None:
    module = module_with(send_one)
    module.register(handler("number"))
    definition = ModuleDefinition.of(module)
    with pytest.raises(UnknownProtocolError, match="Unknown protocol 'mesage'; Sample knows message, number"):
        definition.parse_input({"root": {"protocol": "mesage"}})
    with pytest.raises(UnknownProtocolError, match=r"root.protocol is missing"):
        definition.parse_input({"root": {}})


@pytest.mark.parametrize("data", [{}, {"text": "x"}, {"root": "text"}, {"root": None}])
def test_an_input_without_a_root(data: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match="has no root object"):
        ModuleDefinition.of(module_with(send_one)).parse_input(data)


def test_every_field_that_does_not_fit_is_named() -> None:
    with pytest.raises(InvalidInputError) as caught:
        ModuleDefinition.of(module_with(send_one)).parse_input(
            {"root": {"protocol": "message", "count": "many", "text": ["x"] * 100}, "annotations": 3}
        )
    text = caught.value.message
    assert "count: input should be a valid integer" in text
    assert "(got 'many')" in text
    assert "annotations" in text
    assert len(text) < 1000


def test_a_setup_that_does_not_fit() -> None:
    with pytest.raises(InvalidSetupError, match=r"Setup 'setups:a' does not fit Sample: prefix: .*\(got 3\)"):
        ModuleDefinition.of(module_with(send_one)).parse_setup({"prefix": 3}, setup_id="setups:a")


def test_the_module_id_of_the_operator_wins() -> None:
    module = module_with(send_one, metadata={"module_id": "modules:own"})
    assert ModuleDefinition.of(module).id == "modules:own"
    assert ModuleDefinition.of(module, module_id="modules:theirs").id == "modules:theirs"
    assert ModuleDefinition.of(module_with(send_one)).id == "unknown"


def test_an_overridden_run_needs_no_triggers() -> None:
    class Direct(TrioModule[DataModel[Message], Output]):
        async def run(self, input_data: Any, setup_data: Any) -> None:
            pass

    definition = ModuleDefinition.of(Direct)
    assert definition.protocols == ("message",)
    assert not definition.run_takes_context


def test_a_literal_with_several_values() -> None:
    class Either(DataTrigger):
        protocol: Literal["a", "b"]

    module = module_class(TrioModule[DataModel[Either], Output], "Module")
    module.register(handler("a"))
    module.register(handler("b"))
    assert ModuleDefinition.of(module).protocols == ("a", "b")
