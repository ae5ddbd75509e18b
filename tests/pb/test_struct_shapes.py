"""Structs in shapes that no encoder of ours writes: they are read, or refused, as google.protobuf does it."""

from __future__ import annotations

import pytest

from dk_trio.pb import DecodeError
from dk_trio.pb.google.protobuf import Struct

from .canonical import canonical

ONE = b"\x11\x00\x00\x00\x00\x00\x00\xf0\x3f"
YES = b"\x20\x01"
NAME = "google.protobuf.Struct"


def field(tag: int, body: bytes) -> bytes:
    size = len(body)
    return bytes((tag, size)) + body if size < 128 else bytes((tag, size & 127 | 128, size >> 7)) + body


def member(key: bytes, value: bytes) -> bytes:
    return field(10, field(10, key) + field(18, value))


def elements(*values: bytes) -> bytes:
    return field(50, b"".join(field(10, value) for value in values))


def structs(levels: int, inner: bytes) -> bytes:
    for _ in range(levels):
        inner = member(b"a", field(42, inner))
    return inner


def lists(levels: int) -> bytes:
    inner = b""
    for _ in range(levels):
        inner = elements(inner)
    return member(b"a", inner)


TEXT = field(26, b"x")
UNKNOWN = b"\x82\x01\x01z"  # field 16, whose tag takes two bytes


@pytest.mark.parametrize(
    ("data", "content"),
    [
        pytest.param(member(b"a", TEXT + YES), {"a": True}, id="text and then a bool: the last wins"),
        pytest.param(member(b"a", ONE + TEXT), {"a": "x"}, id="number and then text"),
        pytest.param(
            member(b"a", field(42, member(b"b", ONE)) + field(42, member(b"c", YES))),
            {"a": {"b": 1.0, "c": True}},
            id="two structs in one value are united",
        ),
        pytest.param(
            member(b"a", elements(ONE) + elements(YES)), {"a": [1.0, True]}, id="two lists in one value are joined"
        ),
        pytest.param(
            member(b"a", elements(ONE) + TEXT + elements(YES)), {"a": [True]}, id="lists with text between are not"
        ),
        pytest.param(member(b"a", field(50, UNKNOWN + field(10, ONE))), {"a": [1.0]}, id="unknown field of a list"),
        pytest.param(member(b"a", elements(b"")), {"a": [None]}, id="an element without content"),
    ],
)
def test_odd_shapes_are_read(oracle, data, content) -> None:
    assert Struct.FromString(data).to_dict() == content
    message = oracle[NAME]
    assert message.FromString(bytes(Struct.from_dict(content))) == canonical(message.FromString(data), looked_into=True)


def test_an_unknown_field_fits_where_no_member_does(oracle) -> None:
    data = structs(33, UNKNOWN)
    oracle[NAME].FromString(data)
    assert str(Struct.FromString(data).to_dict()).count("{") == 34


@pytest.mark.parametrize(
    ("data", "text"),
    [
        pytest.param(member(b"a", field(50, b"\x0a\x05\x20\x01")), "byte", id="element"),
        pytest.param(member(b"a", field(50, b"\x85\x01")) + b"\x10\x05", "byte", id="list"),
        pytest.param(member(b"a", b"\x11"), "byte", id="number"),
        pytest.param(b"\x0a\x20" + member(b"a", ONE), "byte", id="entry"),
        pytest.param(b"\x8a\x00\x20" + member(b"a", ONE), "byte", id="entry with a long tag"),
        pytest.param(field(10, field(10, b"a") + b"\x12\x40" + YES), "byte", id="value"),
        pytest.param(b"\x15", "byte", id="unknown field of a struct"),
        pytest.param(structs(33, b"\x15"), "byte", id="unknown field of the deepest struct"),
        pytest.param(lists(50), "nested deeper", id="lists too deep"),
        pytest.param(structs(32, lists(2)), "nested deeper", id="a list too deep"),
        pytest.param(structs(33, member(b"a", ONE)), "nested deeper", id="a member too deep"),
        pytest.param(structs(34, b""), "nested deeper", id="a struct too deep"),
    ],
)
def test_what_is_cut_off_or_too_deep_is_refused(oracle, data, text) -> None:
    with pytest.raises(Exception, match="Error parsing message"):
        oracle[NAME].FromString(data)
    with pytest.raises(DecodeError, match=text):
        Struct.FromString(data).to_dict()


def test_lists_are_bounded_alike_in_both_directions() -> None:
    deepest = Struct.FromString(lists(49)).to_dict()
    assert Struct.FromString(bytes(Struct.from_dict(deepest))).to_dict() == deepest
    content: list = []
    for _ in range(49):
        content = [content]
    with pytest.raises(ValueError, match="nested too deep"):
        bytes(Struct.from_dict({"a": content}))


def test_a_model_is_refused_with_how_to_send_it() -> None:
    class Model:
        def model_dump(self) -> None: ...

    with pytest.raises(TypeError, match=r"Model has no place .* send model_dump\(mode='json'\)"):
        bytes(Struct.from_dict({"fine": None, "list": [1], "a": Model()}))
