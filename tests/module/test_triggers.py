"""Handlers of one protocol are told apart by input type; what could only fail at a call is refused at the start."""

import abc
import inspect
import types
from typing import Any, ClassVar, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field

from dk_trio.errors import InvalidInputError, InvalidSetupError, ModuleDefinitionError, UnknownProtocolError
from dk_trio.module import DataModel, DataTrigger, ModuleDefinition, SetupModel, ToolModule, TriggerHandler, TrioModule

from .sample import Input, Message, Number, Output, Settings, module_class, module_with, send_one, session_of


class Text(DataTrigger):
    protocol: Literal["say"] = "say"
    text: str


class Loud(Text):
    volume: int


class Picture(DataTrigger):
    protocol: Literal["say"] = "say"
    url: str


class Loose(DataTrigger):
    text: str = ""


def handler(protocol: str = "say", name: str = "Handler", base: Any = TriggerHandler, **attributes: Any) -> Any:
    async def handle(self: Any, input_data: Any, setup_data: Any, context: Any) -> None:
        await context.send({"protocol": "took", "handler": name, "type": type(input_data).__name__})

    namespace = {"protocol": protocol, "handle": handle, **attributes}
    made = types.new_class(name, (base,), exec_body=lambda body: body.update(namespace))
    made.__qualname__ = name
    return made


def module_of(*handlers: Any, base: Any = TrioModule) -> Any:
    module = module_class(base, "Module")
    for each in handlers:
        module.register(each)
    return module


def refused(*handlers: Any, base: Any = TrioModule) -> ModuleDefinitionError:
    with pytest.raises(ModuleDefinitionError) as caught:
        ModuleDefinition.of(module_of(*handlers, base=base))
    # Whatever is refused, the message says where it stands.
    assert f"{__file__}:" in caught.value.message
    return caught.value


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


# --- refused at the start --------------------------------------------------------------------------------------------


def test_two_handlers_of_one_input_type() -> None:
    with pytest.raises(ModuleDefinitionError, match="Module has two handlers for protocol 'say'") as caught:
        module_of(handler(name="First", input_format=Text), handler(name="Second", base=TriggerHandler[Text | Picture]))
    text = caught.value.message
    assert "input type Text: First (" in text
    assert text.count(f"{__file__}:") == 2


def test_the_line_of_a_handler_is_told() -> None:
    class OnSay(TriggerHandler[Text]):
        protocol = "shout"

        async def handle(self, input_data: Any, setup_data: Any, context: Any) -> None: ...

    with pytest.raises(ModuleDefinitionError) as caught:
        module_of(OnSay)
    line = inspect.getsourcelines(OnSay)[1]
    assert f"OnSay handles protocol 'shout', but its input Text has say ({__file__}:{line})" in caught.value.message


def test_a_second_class_of_the_same_name_is_told_by_its_own_line() -> None:
    module = module_class(TrioModule, "Module")

    @module.register
    class OnSay(TriggerHandler[Text]):
        protocol = "say"

        async def handle(self, input_data: Any, setup_data: Any, context: Any) -> None: ...

    first = OnSay.handle.__code__.co_firstlineno
    with pytest.raises(ModuleDefinitionError) as caught:

        @module.register
        class OnSay(TriggerHandler[Text]):
            protocol = "say"

            async def handle(self, input_data: Any, setup_data: Any, context: Any) -> None: ...

    lines = [int(part.split(")")[0]) for part in caught.value.message.split(f"{__file__}:")[1:]]
    assert lines[0] <= first < lines[1]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Loose, "names Loose as its input, which has no Literal protocol"),
        (Settings, "Settings as its input, which has"),
    ],
)
def test_an_input_type_without_a_literal_protocol(kind: Any, message: str) -> None:
    with pytest.raises(ModuleDefinitionError, match=message):
        module_of(handler(input_format=kind))


def test_an_input_type_of_the_module_without_a_literal_protocol() -> None:
    error = refused(handler(input_format=Text), base=TrioModule[DataModel[Text | Loose]])
    assert "Loose, a root of DataModel" in error.message


def test_an_input_type_that_the_module_does_not_have() -> None:
    error = refused(
        handler(name="OnText", input_format=Text),
        handler(name="OnPicture", input_format=Picture),
        base=TrioModule[DataModel[Text]],
    )
    assert "No input can reach OnPicture" in error.message
    assert "it takes Picture, which is not a root of DataModel[Text]" in error.message


def test_a_handler_whose_inputs_all_go_to_others() -> None:
    error = refused(
        handler(name="OnText", input_format=Text),
        handler(name="OnLoud", input_format=Loud),
        base=TrioModule[DataModel[Loud]],
    )
    assert "No input can reach OnText" in error.message
    assert "all of that goes to OnLoud" in error.message


def test_a_handler_behind_a_type_with_the_same_fields() -> None:
    class Same(Text):
        pass

    error = refused(handler(name="OnText", input_format=Text), handler(name="OnSame", input_format=Same))
    assert "No input can reach OnText" in error.message
    assert "Text has the same fields as Same (" in error.message
    assert "which is tried first and goes to OnSame" in error.message


def test_a_type_that_no_handler_takes() -> None:
    error = refused(handler(input_format=Text), base=TrioModule[DataModel[Text | Picture]])
    assert "No handler of protocol 'say' takes Picture" in error.message


@pytest.mark.parametrize(
    "protocol", ["healthcheck_ping", "healthcheck_services", "healthcheck_status", "end_of_stream", "module_start_info"]
)
def test_reserved_protocols(protocol: str) -> None:
    with pytest.raises(ModuleDefinitionError, match=f"protocol '{protocol}', which every module answers") as caught:
        module_of(handler(protocol))
    assert f"{__file__}:" in caught.value.message
    kind: Any = type(
        "Own",
        (DataTrigger,),
        {"__annotations__": {"protocol": Literal[protocol]}, "__module__": __name__},  # type: ignore[valid-type]
    )

    async def run(self: Any, input_data: Any, setup_data: Any) -> None: ...

    module = module_class(TrioModule[DataModel[kind]], "Direct", run=run)
    with pytest.raises(ModuleDefinitionError, match="Own, a root of"):
        ModuleDefinition.of(module)


def test_an_output_without_a_literal_protocol() -> None:
    error = refused(handler("message"), base=TrioModule[DataModel[Message], DataModel[Message | Loose]])
    assert "Loose, a root of the output format of Module, has no Literal protocol" in error.message


# --- type arguments --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("base", "message"),
    [
        (TrioModule[Settings, Input, Output], "input format Settings of Module has no root"),  # type: ignore[type-var]
        (TrioModule[Input, Settings, Output], "output format Settings of Module has no root|setup_format is Output"),  # type: ignore[type-var]
        (TrioModule[Input, Output, Message], "setup_format is Message, which is an input or output"),
        (TrioModule[int], "input format of Module is int, which is not a model class"),  # type: ignore[type-var]
        (TrioModule[Message], "input format Message of Module has no root"),  # type: ignore[type-var]
        (TrioModule[Input, int], "output format of Module is int"),  # type: ignore[type-var]
        (TrioModule[Input, Output, int], "setup_format is int, which is not a model class"),  # type: ignore[type-var]
    ],
)
def test_wrong_type_arguments_of_a_module(base: Any, message: str) -> None:
    module = module_class(base, "Module")
    module.register(handler("message"))
    with pytest.raises(ModuleDefinitionError, match=message) as caught:
        ModuleDefinition.of(module)
    assert "input, output, setup, secret" in caught.value.hint


@pytest.mark.parametrize(
    ("base", "message"),
    [
        (TriggerHandler[Message, Message, Settings], "H names Message as its setup"),
        (TriggerHandler[Message, Settings, Settings], "H names Settings as its output"),
        (TriggerHandler[Settings, Settings, Message], "H names Settings as its input"),
        (TriggerHandler[int, Settings, Message], "H names int as its input, which is not a model"),  # type: ignore[type-var]
        (TriggerHandler[Message, int, Message], "H names int as its setup"),  # type: ignore[type-var]
    ],
)
def test_wrong_type_arguments_of_a_handler(base: Any, message: str) -> None:
    with pytest.raises(ModuleDefinitionError, match=message) as caught:
        module_of(handler("message", name="H", base=base))
    assert "input, setup, output" in caught.value.hint
    assert f"{__file__}:" in caught.value.message


def test_a_handler_that_expects_another_setup() -> None:
    class Other(SetupModel):
        pass

    error = refused(handler("message", base=TriggerHandler[Message, Other]), base=TrioModule[Input, Output, Settings])
    assert "expects the setup Other, but that of Module is Settings" in error.message
    ModuleDefinition.of(
        module_of(
            handler("message", base=TriggerHandler[Message, SetupModel]), base=TrioModule[Input, Output, Settings]
        )
    )


# --- hooks -----------------------------------------------------------------------------------------------------------


async def none(self: Any) -> None: ...
async def one(self: Any, a: Any) -> None: ...
async def two(self: Any, a: Any, b: Any) -> None: ...
async def three(self: Any, a: Any, b: Any, c: Any) -> None: ...
async def four(self: Any, a: Any, b: Any, c: Any, d: Any) -> None: ...
async def keyword(self: Any, a: Any, b: Any, *, c: Any) -> None: ...


async def anything(self: Any, *arguments: Any) -> None: ...


async def optional(self: Any, a: Any, b: Any, c: Any = None) -> None: ...


async def yields(self: Any, a: Any = None, b: Any = None) -> Any:
    yield 1


@pytest.mark.parametrize(
    ("hook", "method"),
    [
        ("initialize", one),
        ("initialize", three),
        ("run", one),
        ("run", four),
        ("run", keyword),
        ("run_config_setup", one),
        ("run_config_setup", three),
        ("cleanup", two),
        ("cleanup", yields),
        ("run", yields),
    ],
)
def test_hooks_that_cannot_be_called(hook: str, method: Any) -> None:
    with pytest.raises(
        ModuleDefinitionError, match=rf"Sample.{hook}(\(.*\) cannot be called| is an async gen)"
    ) as caught:
        ModuleDefinition.of(module_with(send_one, **{hook: method}))
    assert f"{__file__}:{method.__code__.co_firstlineno}" in caught.value.message


@pytest.mark.parametrize(
    ("hooks", "run", "cleanup"),
    [
        ({}, False, False),
        ({"run": two, "cleanup": none}, False, False),
        ({"run": three, "cleanup": one}, True, True),
        ({"run": optional, "cleanup": anything}, True, False),
        ({"run": anything}, False, False),
        ({"run": staticmethod(two)}, True, False),
    ],
)
def test_hooks_with_and_without_a_context(hooks: dict[str, Any], run: bool, cleanup: bool) -> None:
    definition = ModuleDefinition.of(module_with(send_one, **hooks))
    assert (definition.run_takes_context, definition.cleanup_takes_context) == (run, cleanup)


@pytest.mark.parametrize("method", [none, two])
def test_classes_of_which_no_instance_can_be_made(method: Any) -> None:
    with pytest.raises(ModuleDefinitionError, match=r"Handler.__init__\(.*\) cannot be called with \(context\)"):
        module_of(handler("message", __init__=method))
    with pytest.raises(ModuleDefinitionError, match=r"Sample.__init__\(self, a, b\) cannot be called with \(\)"):
        ModuleDefinition.of(module_with(send_one, __init__=two))

    class Base(TriggerHandler[Message], abc.ABC):
        @abc.abstractmethod
        def model_name(self) -> str: ...

    with pytest.raises(ModuleDefinitionError, match="Handler is abstract: it lacks model_name"):
        module_of(handler("message", base=Base))


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
