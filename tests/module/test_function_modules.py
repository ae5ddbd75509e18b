"""One function is a module: its annotations say what a class would."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel

from dk_trio.cli._load import load_module
from dk_trio.errors import ModuleDefinitionError
from dk_trio.lifecycle import Reason
from dk_trio.module import (
    ArchetypeModule,
    DataModel,
    DataTrigger,
    ModuleContext,
    ModuleDefinition,
    SetupModel,
    ToolModule,
    TrioModule,
)

from .sample import Input, Message, Number, Output, Settings, protocols_of, session_of
from .served import outputs_of, served


class Plain(BaseModel):
    prefix: str = "plain"


class Loose(DataTrigger):
    text: str = ""


@ToolModule.from_function
async def shout(text: Message, setup: Settings, context: ModuleContext) -> AsyncIterator[Message]:
    """Says every word louder.

    More about it.
    """
    for word in text.text.split():
        yield Message(text=setup.prefix + word.upper(), count=len(context.session.job_id))


@ArchetypeModule.from_function(name="double", description="Doubles.", metadata={"module_id": "modules:double"})
async def twice(value: Number) -> Number:
    return Number(value=2 * value.value)


async def run(module: Any, root: dict[str, Any], **arguments: Any) -> list[dict[str, Any]]:
    outputs: list[dict[str, Any]] = []
    outcome = await session_of(module, root, outputs, **arguments).run()
    assert outcome.reason is Reason.COMPLETED, outcome.error
    return [output["root"] for output in outputs[1:-1]]


async def test_what_a_generator_yields_is_sent(autojump_clock: object) -> None:
    outputs = await run(shout, {"text": "a b"}, setup={"prefix": "!"})
    assert [(output["protocol"], output["text"], output["count"]) for output in outputs] == [
        ("message", "!A", 2),
        ("message", "!B", 2),
    ]


async def test_what_a_function_returns_is_sent(autojump_clock: object) -> None:
    assert [output["value"] for output in await run(twice, {"value": 2})] == [4]


async def test_a_function_may_send_by_itself(autojump_clock: object) -> None:
    @TrioModule.from_function
    async def direct(context: ModuleContext, value: Number) -> None:
        await context.send({"protocol": "number", "value": value.value})

    assert await run(direct, {"value": 3}) == [{"protocol": "number", "value": 3}]
    assert direct.output_format is None


def test_the_class_says_what_the_function_says() -> None:
    assert issubclass(shout, ToolModule)
    assert (shout.__name__, shout.__qualname__, shout.__module__) == ("shout", "shout", __name__)
    assert (shout.name, shout.description) == ("shout", "Says every word louder.")
    assert shout.setup_format is Settings
    assert shout.output_format.model_fields["root"].annotation is Message
    assert shout.get_registered_protocols_with_info(exclude_utility=True) == {"message": "Says every word louder."}
    assert issubclass(twice, ArchetypeModule)
    assert (twice.name, twice.description, twice.get_module_id()) == ("double", "Doubles.", "modules:double")
    assert twice.setup_format is SetupModel
    assert ModuleDefinition.of(shout).protocols == ("message",)


async def test_several_inputs_are_one_function(autojump_clock: object) -> None:
    @TrioModule.from_function
    async def either(data: Message | Number) -> dict[str, Any]:
        return {"protocol": "took", "type": type(data).__name__}

    assert ModuleDefinition.of(either).protocols == ("message", "number")
    assert (await run(either, {"protocol": "number", "value": 1}))[0]["type"] == "Number"
    assert (await run(either, {"protocol": "message"}))[0]["type"] == "Message"


async def test_parameters_in_any_order_and_kind(autojump_clock: object) -> None:
    @TrioModule.from_function
    async def mixed(
        setup: Plain, data: Message, /, extra: int = 3, *rest: Any, context: ModuleContext, **more: Any
    ) -> AsyncGenerator[Output, None]:
        assert context.session.job_id
        yield Output(root=Message(text=setup.prefix + data.text, count=extra))

    assert mixed.setup_format is Plain
    assert mixed.__qualname__.endswith("<locals>.mixed")
    assert mixed.output_format is Output
    (output,) = await run(mixed, {"text": "x"})
    assert (output["text"], output["count"]) == ("plainx", 3)


async def test_hooks_and_setup_of_the_base_are_inherited(autojump_clock: object) -> None:
    class Base(TrioModule[Input, Output, Settings]):
        async def initialize(self, context: ModuleContext, setup_data: Settings) -> None:
            context.state.prefix = setup_data.prefix

    @Base.from_function
    async def derived(data: Message, context: ModuleContext) -> Message:
        return Message(text=context.state.prefix)

    assert derived.setup_format is Settings
    assert (await run(derived, {}, setup={"prefix": "!"}))[0]["text"] == "!"


async def test_it_is_served_like_any_other(autojump_clock: object) -> None:
    async with served(shout) as (_, client):
        outputs = await outputs_of(client, {"root": {"protocol": "message", "text": "hello"}})
    assert protocols_of(outputs) == ["module_start_info", "message", "end_of_stream"]


async def test_a_caller_that_goes_away_closes_the_generator(autojump_clock: object) -> None:
    ended = []

    @TrioModule.from_function
    async def endless(data: Message) -> AsyncIterator[Message]:
        try:
            while True:
                yield data
        finally:
            ended.append(True)

    async with served(endless) as (_, client), client.start({"root": {"protocol": "message"}}) as outputs:
        async for _ in outputs:
            break
    assert ended == [True]


# --- refused ---------------------------------------------------------------------------------------------------------


async def no_annotation(data) -> Message: ...
async def no_return(data: Message): ...
async def no_input(setup: Settings) -> Message: ...
async def two_inputs(a: Message, b: Number) -> Message: ...
async def two_setups(a: Message, b: Settings, c: Plain) -> Message: ...
async def not_understood(a: Message, b: int) -> Message: ...
async def keyword_not_understood(a: Message, *, b: str) -> Message: ...
async def whole_input(a: Input) -> Message: ...
async def untyped_protocol(a: Loose) -> Message: ...
async def gives_text(a: Message) -> str: ...
async def names_nothing(a: Missing) -> Message: ...  # type: ignore[name-defined]  # noqa: F821
def not_async(a: Message) -> Message: ...


async def yields_wrong(a: Message) -> Message:  # type: ignore[misc]
    yield a


async def yields_text(a: Message) -> AsyncIterable[str]:
    yield ""


async def untyped_output(a: Message) -> Loose: ...


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (no_annotation, "Parameter 'data' of no_annotation .* has no annotation"),
        (no_return, "no_return .* does not say what it gives"),
        (no_input, "no_input .* takes no input"),
        (two_inputs, "takes two inputs: a and b"),
        (two_setups, "takes two setups: b and c"),
        (not_understood, "Parameter 'b' of not_understood .* is a int, which is neither input, setup nor context"),
        (keyword_not_understood, "Parameter 'b' of"),
        (whole_input, "Parameter 'a' of whole_input .* is a Input; a function gets the root"),
        (untyped_protocol, "Loose, the input of untyped_protocol .*, has no Literal protocol"),
        (gives_text, "gives str, which is no output model"),
        (names_nothing, "The annotations of names_nothing .* cannot be read: name 'Missing' is not defined"),
        (not_async, "not_async.* is no async function"),
        (yields_wrong, r"yields_wrong .* yields, so what it gives is AsyncIterator\[...\], not Message"),
        (yields_text, "gives str, which is no output model"),
    ],
)
def test_functions_that_say_too_little(function: Any, message: str) -> None:
    with pytest.raises(ModuleDefinitionError, match=message) as caught:
        TrioModule.from_function(function)
    assert f"{__file__}:{function.__code__.co_firstlineno}" in caught.value.message


def test_an_output_without_a_literal_protocol_is_found_at_the_start() -> None:
    with pytest.raises(ModuleDefinitionError, match="Loose, a root of the output format"):
        ModuleDefinition.of(TrioModule.from_function(untyped_output))


def test_what_is_no_function() -> None:
    for wrong in (3, Message, "text"):
        with pytest.raises(ModuleDefinitionError, match="is no async function"):
            TrioModule.from_function(wrong)  # type: ignore[call-overload]


# --- on the command line ---------------------------------------------------------------------------------------------

FILE = """
from collections.abc import AsyncIterator
from typing import Literal
from dk_trio import DataTrigger, ToolModule

class Text(DataTrigger):
    protocol: Literal["text"] = "text"
    text: str

@ToolModule.from_function
async def {name}(text: Text) -> AsyncIterator[Text]:
    yield text
"""


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[[str, str], Any]]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)

    def load(target: str, text: str) -> Any:
        Path(target.split(":", maxsplit=1)[0]).write_text(text)
        return load_module(target)

    yield load
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_a_file_with_one_function_is_served_by_its_name(load: Callable[[str, str], Any]) -> None:
    module = load("one_function.py", FILE.format(name="repeat"))
    assert ModuleDefinition.of(module).name == "repeat"
    both = FILE.format(name="first") + FILE.format(name="second")
    assert load("two_functions.py:second", both).name == "second"


def test_type_of_what_is_decorated() -> None:
    decorated: type[TrioModule[Any, Any, Any, Any]] = shout
    maker: Callable[[Callable[..., Awaitable[Any]]], type[TrioModule[Any, Any, Any, Any]]]
    maker = ToolModule.from_function(name="x")
    assert issubclass(maker(untyped_protocol_free), TrioModule)
    assert issubclass(decorated, TrioModule)


async def untyped_protocol_free(a: Message) -> DataModel[Message] | None: ...


def test_literal_with_several_values() -> None:
    class Either(DataTrigger):
        protocol: Literal["a", "b"]

    async def function(data: Any) -> Message: ...

    function.__annotations__["data"] = Either
    assert ModuleDefinition.of(TrioModule.from_function(function)).protocols == ("a", "b")
