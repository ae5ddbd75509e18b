"""Definitions that could only fail at a call are refused at the start, with the place where they stand."""

import abc
import inspect
from typing import Any, Literal

import pytest
from pydantic import ConfigDict, field_validator

from dk_trio.errors import ModuleDefinitionError
from dk_trio.module import DataModel, DataTrigger, ModuleDefinition, SetupModel, TriggerHandler, TrioModule

from .handlers import PLACE, Loud, Picture, Text, handler, module_of
from .sample import Input, Message, Output, Settings, module_class, module_with, send_one


class Loose(DataTrigger):
    text: str = ""


def refused(*handlers: Any, base: Any = TrioModule) -> ModuleDefinitionError:
    with pytest.raises(ModuleDefinitionError) as caught:
        ModuleDefinition.of(module_of(*handlers, base=base))
    # Whatever is refused, the message says where it stands.
    assert PLACE in caught.value.message or f"{__file__}:" in caught.value.message
    return caught.value


# --- handlers --------------------------------------------------------------------------------------------------------


def test_two_handlers_of_one_input_type() -> None:
    with pytest.raises(ModuleDefinitionError, match="Module has two handlers for protocol 'say'") as caught:
        module_of(handler(name="First", input_format=Text), handler(name="Second", base=TriggerHandler[Text | Picture]))
    text = caught.value.message
    assert "input type Text: First (" in text
    assert text.count(PLACE) == 2


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


def test_types_with_the_same_fields_may_differ_in_what_fits_them() -> None:
    class Strict(Text):
        model_config = ConfigDict(extra="forbid")

    class Short(Text):
        @field_validator("text")
        @classmethod
        def short(cls, text: str) -> str:
            assert len(text) < 10
            return text

    for kind in (Strict, Short):
        ModuleDefinition.of(
            module_of(handler(name="OnText", input_format=Text), handler(name="OnOther", input_format=kind))
        )


def test_a_type_that_no_handler_takes() -> None:
    error = refused(handler(input_format=Text), base=TrioModule[DataModel[Text | Picture]])
    assert "No handler of protocol 'say' takes Picture" in error.message


@pytest.mark.parametrize(
    "protocol", ["healthcheck_ping", "healthcheck_services", "healthcheck_status", "end_of_stream", "module_start_info"]
)
def test_reserved_protocols(protocol: str) -> None:
    with pytest.raises(ModuleDefinitionError, match=f"protocol '{protocol}', which every module answers") as caught:
        module_of(handler(protocol))
    assert PLACE in caught.value.message
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
    assert PLACE in caught.value.message


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
