"""Struct as a class: what it accepts, keeps, refuses and says."""

from __future__ import annotations

import copy
import datetime
import enum
import json
import math
import pickle

import pytest

from dk_trio.pb import DecodeError
from dk_trio.pb import _struct_encode as struct_encode
from dk_trio.pb.agentic_mesh_protocol.module.v1 import StartModuleRequest, StartModuleResponse
from dk_trio.pb.google.protobuf import ListValue, Struct, Value

NESTED = {"a": 1.0, "b": [True, None, "x", {"c": []}], "d": {"e": {"f": "g" * 300}}, "": "empty key", "é": "ü"}


class Colour(enum.StrEnum):
    RED = "red"


class Number(enum.IntEnum):
    ONE = 1


class Shout(str):
    __slots__ = ()


class Ratio(float):
    __slots__ = ()


class Record(dict):
    pass


def test_a_dict_comes_back() -> None:
    data = bytes(Struct.from_dict(NESTED))
    assert Struct.FromString(data).to_dict() == NESTED


def test_from_dict_and_to_dict_do_not_copy() -> None:
    content = {"a": 1}
    made = Struct.from_dict(content)
    assert made.to_dict() is content
    parsed = Struct.FromString(bytes(made))
    parsed.to_dict()["b"] = 2
    assert Struct.FromString(bytes(parsed)).to_dict() == {"a": 1.0, "b": 2.0}


def test_numbers_become_doubles_on_the_wire() -> None:
    back = Struct.FromString(bytes(Struct.from_dict({"i": 3, "big": 2**53 + 1}))).to_dict()
    assert back == {"i": 3.0, "big": float(2**53)}
    assert all(type(value) is float for value in back.values())


def test_not_a_number_and_infinity_travel() -> None:
    back = Struct.FromString(bytes(Struct.from_dict({"n": math.nan, "i": -math.inf}))).to_dict()
    assert math.isnan(back["n"])
    assert back["i"] == -math.inf


def test_an_unread_struct_is_sent_on_as_it_came() -> None:
    # A member, a Value without content, and an unknown field.
    data = b"\x0a\x07\x0a\x01a\x12\x02\x20\x01" + b"\x0a\x05\x0a\x01b\x12\x00" + b"\x10\x05"
    unread = StartModuleResponse.FromString(b"\x12" + bytes((len(data),)) + data)
    assert bytes(unread.output) == data
    assert "not read yet" in repr(unread.output)
    assert unread.output.to_dict() == {"a": True, "b": None}
    assert bytes(unread.output) == b"\x0a\x07\x0a\x01a\x12\x02\x20\x01\x0a\x07\x0a\x01b\x12\x02\x08\x00"


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ({"a": {"b": [1, (2,)]}}, r"Struct\['a'\]\['b'\]\[1\]: tuple .* send a list"),
        ({"a": {1, 2}}, r"Struct\['a'\]: set .* send a list"),
        ({"a": Colour.RED}, r"Struct\['a'\]: .*Colour.RED.* is an enum; send its value"),
        ({"a": [Number.ONE]}, r"Struct\['a'\]\[0\]: .*Number.ONE.* is an enum"),
        ({Colour.RED: 1, "b": (1,)}, "Struct"),
        ({"a": datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)}, r"Struct\['a'\]: datetime has no place"),
        ({"a": b"x"}, r"Struct\['a'\]: bytes has no place"),
        ({"a": {1: 2}}, r"Struct\['a'\]: keys must be str, not int \(1\)"),
        ({"a": object}, r"Struct\['a'\]: type has no place"),
    ],
)
def test_what_json_does_not_have_is_a_type_error_with_the_path(content, text) -> None:
    with pytest.raises(TypeError, match=text):
        bytes(Struct.from_dict(content))
    with pytest.raises(TypeError, match=text):
        bytes(StartModuleRequest(input=Struct.from_dict(content)))


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ({"a": [10**400]}, r"Struct\['a'\]\[0\]: an int of 1329 bits does not fit a double"),
        ({"a": "\ud800"}, r"Struct\['a'\]: text without UTF-8"),
        ({"\ud800": 1}, "text without UTF-8"),
    ],
)
def test_what_has_no_encoding_is_a_value_error_with_the_path(content, text) -> None:
    with pytest.raises(ValueError, match=text):
        bytes(Struct.from_dict(content))


def test_subclasses_of_json_types_are_what_they_derive_from() -> None:
    content = {"a": Shout("x"), "b": Ratio(1.5), "c": Record(d=1), Shout("e"): True}
    assert Struct.FromString(bytes(Struct.from_dict(content))).to_dict() == {
        "a": "x",
        "b": 1.5,
        "c": {"d": 1.0},
        "e": True,
    }


@pytest.mark.parametrize("value", [None, [], "x", 1, ("a", "b")])
def test_only_a_dict_makes_a_struct(value) -> None:
    with pytest.raises(TypeError, match="from a dict, not"):
        Struct.from_dict(value)


def nested(levels: int) -> dict:
    content: dict = {}
    for _ in range(levels):
        content = {"a": content}
    return content


def test_nesting_is_bounded_alike_in_both_directions(oracle) -> None:
    # Each level costs three messages of the hundred.
    deepest = bytes(Struct.from_dict(nested(33)))
    assert Struct.FromString(deepest).to_dict() == nested(33)
    oracle["google.protobuf.Struct"].FromString(deepest)
    with pytest.raises(ValueError, match="nested too deep"):
        bytes(Struct.from_dict(nested(34)))


def test_a_dict_that_contains_itself_is_refused() -> None:
    content: dict = {}
    content["self"] = content
    with pytest.raises(ValueError, match=r"Struct\['self'\].*in itself"):
        bytes(Struct.from_dict(content))
    values: list = []
    values.append(values)
    with pytest.raises(ValueError, match="in itself"):
        bytes(Struct.from_dict({"a": values}))


def test_bad_bytes_raise_at_the_first_access() -> None:
    message = StartModuleRequest.FromString(b"\x0a\x05\x0a\x03\x0a\x01\xff\x12\x01x")
    assert message.setup_id == "x"
    for _ in range(2):
        with pytest.raises(DecodeError, match=r"Struct.fields.*not UTF-8") as caught:
            message.input.to_dict()
        assert caught.value.message_type == "Struct"
        assert caught.value.offset == 4
    # Sent on as they came, for whoever can read them.
    assert bytes(message) == b"\x0a\x05\x0a\x03\x0a\x01\xff\x12\x01x"


def test_the_field_twice_is_merged(oracle) -> None:
    first, second = Struct.from_dict({"a": 1, "b": {"x": 1}}), Struct.from_dict({"b": {"y": 2}, "c": 3})
    data = bytes(StartModuleRequest(input=first)) + bytes(StartModuleRequest(input=second))
    merged = StartModuleRequest.FromString(data)
    assert merged.input.to_dict() == {"a": 1.0, "b": {"y": 2.0}, "c": 3.0}
    name = "agentic_mesh_protocol.module.v1.StartModuleRequest"
    assert oracle[name].FromString(data) == oracle[name].FromString(bytes(merged))


def test_many_occurrences_take_linear_time() -> None:
    one = bytes(StartModuleRequest(input=Struct.from_dict({"a": 1})))
    message = StartModuleRequest.FromString(one * 20_000)
    assert message.input.to_dict() == {"a": 1.0}


def test_the_cache_of_keys_is_bounded() -> None:
    bytes(Struct.from_dict({f"key {index}": 1 for index in range(struct_encode.KEY_CACHE_SIZE + 100)}))
    bytes(Struct.from_dict({"k" * 10_000: 1}))
    assert len(struct_encode._keys) <= struct_encode.KEY_CACHE_SIZE
    assert "k" * 10_000 not in struct_encode._keys


def test_equality_is_that_of_the_wire() -> None:
    assert Struct.from_dict({"a": 1}) == Struct.from_dict({"a": 1.0})
    assert Struct.from_dict({"a": 1}) != Struct.from_dict({"a": True})
    assert Struct.from_dict({"a": [math.nan]}) == Struct.from_dict({"a": [math.nan]})
    assert Struct.from_dict({"a": None}) != Struct.from_dict({})
    assert Struct.FromString(bytes(Struct.from_dict(NESTED))) == Struct.from_dict(NESTED)
    assert Struct.from_dict({}) != {}
    with pytest.raises(TypeError, match="unhashable"):
        hash(Struct())


def test_copies_are_separate() -> None:
    made = Struct.from_dict({"a": {"b": 1}})
    shallow, deep = copy.copy(made), copy.deepcopy(made)
    made.to_dict()["a"]["b"] = 2
    made.to_dict()["c"] = 3
    assert shallow.to_dict() == {"a": {"b": 2}}
    assert deep.to_dict() == {"a": {"b": 1}}


def test_pickles_keep_what_is_inside_read_or_unread() -> None:
    unread = Struct.FromString(bytes(Struct.from_dict(NESTED)))
    assert pickle.loads(pickle.dumps(unread)) == unread
    exact = Struct.from_dict({"i": 2**60 + 1})
    assert pickle.loads(pickle.dumps(exact)).to_dict() == {"i": 2**60 + 1}
    request = StartModuleRequest(input=Struct.from_dict({"a": 1}), setup_id="s")
    assert pickle.loads(pickle.dumps(request)) == request


def test_the_surface_of_the_generated_class() -> None:
    made = Struct(
        fields={"a": Value(number_value=1.0), "b": Value(list_value=ListValue(values=[Value(bool_value=True)]))}
    )
    assert made.to_dict() == {"a": 1.0, "b": [True]}
    assert made.fields["a"].number_value == 1.0
    assert made.is_set("fields")
    assert not Struct()
    assert repr(Struct.from_dict({"a": 1})) == "Struct({'a': 1})"
    assert json.loads(StartModuleRequest(input=made).to_json()) == {"input": {"a": 1.0, "b": [True]}}
    assert StartModuleRequest.from_dict({"input": {"a": 1}}).input == Struct.from_dict({"a": 1})
    assert Value(struct_value=made).to_dict() == {"a": 1.0, "b": [True]}


def test_bytes_come_in_any_buffer() -> None:
    data = bytes(Struct.from_dict({"a": 1}))
    for buffer in (bytearray(data), memoryview(data)):
        assert Struct.FromString(buffer) == Struct.from_dict({"a": 1})


def test_it_has_one_field() -> None:
    with pytest.raises(AttributeError, match="members"):
        Struct().is_set("members")


def test_a_struct_cannot_be_subclassed() -> None:
    with pytest.raises(TypeError, match="cannot be subclassed"):
        type("Mine", (Struct,), {})
