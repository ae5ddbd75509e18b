"""A clean model has fewer fields than the author's class, and everything else of it."""

import copy
import gc
import pickle
import weakref
from typing import Annotated, Any, ClassVar, Generic, Self, TypeVar

import pytest
from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    computed_field,
    field_serializer,
    field_validator,
    model_validator,
)

from dk_trio.module import SetupModel
from dk_trio.module.setup import DroppedFieldError, clean_model

CONFIG: Any = {"config": True}
HIDDEN: Any = {"ui:widget": "hidden"}


class Base(SetupModel):
    """How it is used."""

    default_unit: ClassVar[str] = "m"
    name: Annotated[str, Field(min_length=2)] = "ab"
    size: int = 1
    limit: int = Field(default=10, json_schema_extra=CONFIG)
    token: str = Field(default="none", json_schema_extra=HIDDEN)
    seed: int = Field(default=0, json_schema_extra={"config": True, "ui:widget": "hidden"})
    _calls: int = PrivateAttr(default=0)

    @property
    def loud(self) -> str:
        return self.name.upper()

    @computed_field  # type: ignore[prop-decorator]
    @property
    def double(self) -> int:
        return 2 * self.size

    @classmethod
    def of(cls, name: str) -> Self:
        return cls(name=name)

    def called(self) -> int:
        self._calls += 1
        return self._calls

    @field_validator("name", "limit", mode="before")
    @classmethod
    def not_forbidden(cls, value: Any) -> Any:
        if value in {"forbidden", 13}:
            raise ValueError("forbidden")
        return value

    @field_serializer("limit", "size")
    def as_text(self, value: int) -> str:
        return f"{value}{self.default_unit}"

    @model_validator(mode="after")
    def size_is_positive(self) -> Self:
        if self.size < 0:
            raise ValueError("size is negative")
        return self

    @model_validator(mode="after")
    def size_within_limit(self) -> Self:
        if self.size > self.limit:
            raise ValueError("size is above limit")
        return self


class Derived(Base):
    colour: str = Field(default="red", json_schema_extra=CONFIG)
    shade: str = "dark"

    def both(self) -> str:
        return f"{self.loud} {self.shade}"


def form(model: Any) -> Any:
    return clean_model(model, config_fields=True, hidden_fields=False)


def runtime(model: Any) -> Any:
    return clean_model(model, config_fields=False, hidden_fields=True)


@pytest.mark.parametrize(
    ("config", "hidden", "expected"),
    [
        (True, False, {"name", "size", "limit"}),
        (False, True, {"name", "size", "token", "resolved_tools"}),
        (True, True, {"name", "size", "limit", "token", "seed", "resolved_tools"}),
        (False, False, {"name", "size"}),
    ],
)
async def test_which_fields_a_side_sees(config: bool, hidden: bool, expected: set[str]) -> None:
    clean = await Base.get_clean_model(config_fields=config, hidden_fields=hidden)
    assert set(clean.model_fields) == expected
    assert set(clean.model_json_schema()["properties"]) == expected
    assert set(clean().model_dump()) == expected | {"double"}


@pytest.mark.parametrize("side", [form, runtime])
def test_methods_properties_and_private_attributes_are_the_authors(side: Any) -> None:
    made = side(Base).of("cd")
    assert isinstance(made, Base)
    assert (made.loud, made.called(), made.called(), made.double, made.default_unit) == ("CD", 1, 2, 2, "m")
    assert made.model_dump()["size"] == "1m"
    assert side(Base).__name__ == "Base"
    assert side(Base).__doc__ == "How it is used."


@pytest.mark.parametrize("side", [form, runtime])
def test_validators_are_the_authors(side: Any) -> None:
    for wrong in ({"name": "a"}, {"name": "forbidden"}, {"size": -1}):
        with pytest.raises(ValidationError):
            side(Base).model_validate(wrong)


def test_a_rule_about_a_dropped_field_is_skipped_and_holds_where_the_field_is() -> None:
    assert runtime(Base)(size=11, limit=13).size == 11
    with pytest.raises(ValidationError, match="size is above limit"):
        form(Base)(size=11)
    with pytest.raises(ValidationError, match="forbidden"):
        form(Base)(limit=13)


def test_reading_a_dropped_field_says_why_it_is_not_there() -> None:
    with pytest.raises(DroppedFieldError, match=r"Base\.limit is a config field.*run_config_setup"):
        _ = runtime(Base)().limit
    with pytest.raises(AttributeError, match=r"Base\.token is a hidden field"):
        _ = form(Base)().token
    assert getattr(runtime(Base)(), "limit", "absent") == "absent"


def test_the_authors_class_stays_as_it_was() -> None:
    runtime(Base)
    assert Base(limit=12).limit == 12
    assert set(Base.model_fields) >= {"limit", "token", "seed"}


@pytest.mark.parametrize("side", [form, runtime])
def test_two_levels_of_inheritance(side: Any) -> None:
    made = side(Derived)(name="xy", shade="pale")
    assert isinstance(made, Derived)
    assert made.both() == "XY pale"
    assert ("colour" in side(Derived).model_fields) is (side is form)


T = TypeVar("T")


class Boxed(SetupModel, Generic[T]):
    value: T
    items: list[T] = Field(default_factory=list)
    hint: T | None = Field(default=None, json_schema_extra=CONFIG)


def test_generic_setups() -> None:
    clean = runtime(Boxed[int])
    assert clean(value="3").value == 3
    assert set(clean.model_fields) == {"value", "items", "resolved_tools"}
    with pytest.raises(ValidationError):
        clean(value="three")


class Aliased(SetupModel):
    model_config = ConfigDict(populate_by_name=True)
    first: str = Field(default="", alias="firstName")
    second: str = Field(default="", alias="secondName", json_schema_extra=CONFIG)


def test_aliases() -> None:
    assert runtime(Aliased).model_validate({"firstName": "a", "secondName": "b"}).first == "a"
    assert set(form(Aliased).model_json_schema()["properties"]) == {"firstName", "secondName"}


@pytest.mark.parametrize("extra", ["forbid", "allow"])
def test_the_other_sides_keys_are_neither_an_error_nor_an_extra(extra: Any) -> None:
    class Strict(SetupModel):
        model_config = ConfigDict(extra=extra)
        plain: int = 0
        secret: int = Field(default=0, validation_alias=AliasChoices("hush", "psst"), json_schema_extra=CONFIG)

    made = runtime(Strict).model_validate({"plain": 1, "secret": 2, "psst": 3})
    assert made.model_dump() == {"resolved_tools": {}, "plain": 1}
    if extra == "forbid":
        with pytest.raises(ValidationError):
            runtime(Strict).model_validate({"other": 1})


def test_unknown_keys_are_ignored() -> None:
    assert runtime(Base).model_validate({"of_an_older_version": 1}).name == "ab"


def test_wrap_and_before_validators_of_the_model() -> None:
    class Wrapped(SetupModel):
        plain: int = 0
        shift: int = Field(default=0, json_schema_extra=CONFIG)

        @model_validator(mode="before")
        @classmethod
        def doubled(cls, data: Any) -> Any:
            return {**data, "plain": data.get("plain", 0) * 2}

        @model_validator(mode="wrap")
        @classmethod
        def shifted(cls, data: Any, proceed: Any) -> Any:
            made = proceed(data)
            made.plain += made.shift
            return made

    assert form(Wrapped)(plain=2, shift=1).plain == 5
    assert runtime(Wrapped).model_validate({"plain": 2, "shift": 1}).plain == 4


class Node(SetupModel):
    label: str = ""
    children: list["Node"] = Field([])
    note: str = Field(default="", json_schema_extra=CONFIG)


def test_recursive_setups() -> None:
    made = runtime(Node).model_validate({"children": [{"label": "x", "children": [{}]}]})
    assert made.children[0].label == "x"
    assert "note" not in runtime(Node).model_fields


def test_forward_references_that_are_defined_later() -> None:
    class Early(SetupModel):
        later: "Later | None" = None
        plain: int = Field(default=1, json_schema_extra=CONFIG)

    class Later(BaseModel):
        number: int

    Early.model_rebuild()
    assert runtime(Early).model_validate({"later": {"number": "2"}}).later.number == 2


def test_an_init_of_the_authors_own() -> None:
    class Initialised(SetupModel):
        plain: int
        secret: int = Field(default=0, json_schema_extra=CONFIG)

        def __init__(self, **data: Any) -> None:
            super().__init__(**{"plain": 7, **data})

    assert runtime(Initialised)().plain == 7
    assert runtime(Initialised).model_validate({}).plain == 7


def test_nothing_to_drop_gives_the_authors_class() -> None:
    class Plain(SetupModel):
        text: str = ""

    assert runtime(Plain) is Plain
    assert form(Plain) is not Plain  # resolved_tools is hidden


async def test_the_same_class_each_time_also_from_a_clean_one() -> None:
    clean = await Derived.get_clean_model(config_fields=False, hidden_fields=True)
    assert clean is await Derived.get_clean_model(config_fields=False, hidden_fields=True)
    assert clean is await form(Derived).get_clean_model(config_fields=False, hidden_fields=True)
    assert clean is not await Base.get_clean_model(config_fields=False, hidden_fields=True)


def test_classes_are_not_kept_alive() -> None:
    def define() -> weakref.ref[type]:
        class Passing(SetupModel):
            text: str = Field(default="", json_schema_extra=CONFIG)

        return weakref.ref(runtime(Passing))

    gone = define()
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("side", [form, runtime])
def test_instances_travel_to_other_processes(side: Any) -> None:
    made = side(Derived)(name="xy")
    made.called()
    arrived = pickle.loads(pickle.dumps(made))
    assert type(arrived) is type(made)
    assert arrived == made == copy.deepcopy(made)
    assert arrived.called() == 2


def test_the_signature_has_the_fields_of_this_side() -> None:
    assert "limit" not in runtime(Base).__signature__.parameters
    assert "limit" in form(Base).__signature__.parameters


def test_a_plain_model_has_sides_too() -> None:
    class Plain(BaseModel):
        secret: int = Field(default=0, json_schema_extra=CONFIG)

    assert not runtime(Plain).model_fields
