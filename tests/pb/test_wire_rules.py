"""The rules of the wire format, one by one: what is accepted, what is refused, and with which words."""

from __future__ import annotations

import pytest
from tests._pb.dk_trio.test.v1 import Choice, Colour, Lists, Maps, Optionals, Scalars, Tree, WellKnown

from dk_trio.pb import DecodeError, _check
from dk_trio.pb._plan import fields_of

from .random_messages import varint

# message class, bytes, attribute, value
ACCEPTED = [
    (Scalars, "18ffffffffffffffffff01", "f_int32", -1),
    (Scalars, "20ffffffffffffffffff7f", "f_int64", -1),  # bits beyond the 64th are dropped
    (Scalars, "2081818181818181818102", "f_int64", 72624976668147841),
    (Scalars, "20858000", "f_int64", 5),  # not the shortest form
    (Scalars, "a08080800005", "f_int64", 5),  # nor in the tag
    (Scalars, "728380808000616263", "f_string", "abc"),  # nor in the length
    (Scalars, "188080808008", "f_int32", -(2**31)),
    (Scalars, "18ffffffffffffffff7f", "f_int32", -1),
    (Scalars, "288180808010", "f_uint32", 1),
    (Scalars, "388180808010", "f_sint32", -1),
    (Scalars, "6880808080808080808002", "f_bool", False),
    (Scalars, "688002", "f_bool", True),
    (Scalars, "8001ffffffffffffffffff01", "f_enum", Colour.INFRARED),
    (Scalars, "80018180808010", "f_enum", Colour.RED),
    (Scalars, "800163", "f_enum", 99),
    (Scalars, "18051807", "f_int32", 7),  # the last one counts
    (Optionals, "1800", "f_int32", 0),
    (Optionals, "7200", "f_string", ""),
    (Lists, "18051a02060718081a00", "f_int32", [5, 6, 7, 8]),  # packed and not, mixed
    (Lists, "b20102ac02", "loose_int32", [300]),  # packed although declared otherwise
    (Lists, "1a0affffffffffffffffff01", "f_int32", [-1]),
    (Lists, "8201020163", "f_enum", [Colour.RED, 99]),
    (Maps, "7200", "m_to_string", {"": ""}),
    (Maps, "720312016172060a0161120162", "m_to_string", {"": "a", "a": "b"}),
    (Maps, "72060a016112016272060a0161120163", "m_to_string", {"a": "c"}),
    (Maps, "8a01030a0161", "m_to_message", {"a": Scalars()}),
    (Maps, "8a010b0a0161120218011202 2005", "m_to_message", {"a": Scalars(f_int32=1, f_int64=5)}),
    (Maps, "a201030a0161", "m_to_wrapper", {"a": 0}),
    (Choice, "3a0218013a022005", "p_message", Scalars(f_int32=1, f_int64=5)),  # merged
    (Choice, "3a02180118053a022005", "p_message", Scalars(f_int64=5)),  # not merged over another member
    (Choice, "0a01611805", "p_string", None),
    (Tree, "12030a016112021a00", "left", Tree(label="a", children=[Tree()])),
]


@pytest.mark.parametrize(("cls", "data", "name", "value"), ACCEPTED)
def test_accepted(cls, data, name, value) -> None:
    message = cls.FromString(bytes.fromhex(data))
    assert getattr(message, name) == value
    assert not message._unknown_fields
    assert cls.FromString(bytes(message)) == message


UNKNOWN = [
    (Scalars, "d23e0161", "a field that is not declared"),
    (Scalars, "0d00000000", "a declared field with another wire type"),
    (Scalars, "4805", "a fixed-width field as varint"),
    (Scalars, "c33e0801c33ec43ec43e", "nested groups"),
    (Scalars, "0b0801120161 0c", "a group with the number of a field"),
    (Scalars, "f8ffffff0f05", "the largest field number"),
    (Scalars, "d23e 0161 c83e05 d13e0102030405060708 d53e01020304", "several, in order"),
    (Maps, "72080a01611805120162", "a map entry with an unknown field inside"),
]


@pytest.mark.parametrize(("cls", "data", "why"), UNKNOWN)
def test_unknown_fields_survive_byte_by_byte_and_in_order(cls, data, why) -> None:
    raw = bytes.fromhex(data)
    known = bytes(Scalars(f_string="known")) if cls is Scalars else b""
    message = cls.FromString(raw + known)
    assert message._unknown_fields == raw, why
    assert bytes(message) == known + raw
    nested = Tree.FromString(b"\x2a" + bytes((len(raw),)) + raw)
    assert bytes(nested) == b"\x2a" + bytes((len(raw),)) + raw


# message class, bytes, path of the field, offset, reason
REFUSED = [
    (Scalars, "20808080808080808080 80 00", "f_int64", 1, "varint longer than 10 bytes"),
    (Scalars, "a0808080800005", "", 0, "tag longer than 32 bits"),
    (Scalars, "a0808080 1005", "", 0, "tag longer than 32 bits"),
    (Scalars, "7283808080 8000616263", "f_string", 1, "length longer than 31 bits"),
    (Scalars, "728380808010616263", "f_string", 1, "length longer than 31 bits"),
    (Scalars, "7203 6162", "f_string", 1, "a length of 3 bytes reaches past the end"),
    (Scalars, "7203", "f_string", 1, "a length of 3 bytes reaches past the end"),
    (Scalars, "72", "f_string", 1, "the data ends in the middle of a value"),
    (Scalars, "18ff", "f_int32", 2, "the data ends in the middle of a value"),
    (Scalars, "09000000", "f_double", 4, "the data ends in the middle of a value"),
    (Scalars, "720161ff", "", 4, "the data ends in the middle of a value"),
    (Scalars, "7202c328", "f_string", 2, "not UTF-8"),
    (Scalars, "7203eda080", "f_string", 2, "not UTF-8"),
    (Scalars, "0001", "", 0, "field number 0"),
    (Scalars, "0e", "", 0, "wire type 6"),
    (Scalars, "0f", "", 0, "wire type 7"),
    (Scalars, "c43e", "", 1, "end of a group that was not begun"),
    (Scalars, "c33ecc3e", "", 2, "group 1000 is ended as 1001"),
    (Scalars, "c33e", "", 2, "group 1000 is not ended"),
    (Scalars, "d23e0561", "", 3, "a length of 5 bytes reaches past the end"),
    (Lists, "1a03010280", "f_int32", 5, "the data ends in the middle of a value"),
    (Lists, "1a03010280 1801", "f_int32", 4, "a packed number reaches past the end"),
    (Lists, "0a0700000000000000", "f_double", 2, "7 bytes of packed 8-byte numbers"),
    (Lists, "7a01617a0561", "f_bytes[1]", 4, "a length of 5 bytes reaches past the end"),
    (Maps, "72060a0161120362", "m_to_string.value", 6, "a length of 3 bytes reaches past the end"),
    (Maps, "72030a01ff", "m_to_string.key", 4, "not UTF-8"),
    (Tree, "12057a0361", "left", 1, "a length of 5 bytes reaches past the end"),
    (Tree, "1a020a0312020a01", "children[0].label", 3, "a length of 3 bytes reaches past the end"),
]


@pytest.mark.parametrize(("cls", "data", "path", "offset", "reason"), REFUSED)
def test_refused_with_message_field_and_offset(cls, data, path, offset, reason) -> None:
    with pytest.raises(DecodeError) as caught:
        cls.FromString(bytes.fromhex(data))
    error = caught.value
    assert (error.message_type, error.field_path, error.offset) == (cls.__name__, path, offset), str(error)
    assert error.reason.startswith(reason)
    where = f"{cls.__name__}.{path}" if path else cls.__name__
    assert str(error) == f"cannot parse {where} at byte {offset}: {error.reason}"


def wrap(levels: int, head: bytes) -> bytes:
    data = b""
    for _ in range(levels):
        data = head + varint(len(data)) + data
    return data


@pytest.mark.parametrize("head", [b"\x12", b"\x1a"])
def test_nesting_is_bounded_at_a_hundred(head) -> None:
    Tree.FromString(wrap(100, head))
    with pytest.raises(DecodeError, match="nested deeper than 100 messages"):
        Tree.FromString(wrap(101, head))


def test_groups_count_as_nesting() -> None:
    Scalars.FromString(b"\xc3\x3e" * 100 + b"\xc4\x3e" * 100)
    with pytest.raises(DecodeError, match="nested deeper than 100 messages"):
        Scalars.FromString(b"\xc3\x3e" * 101 + b"\xc4\x3e" * 101)
    with pytest.raises(DecodeError, match="nested deeper"):
        Scalars.FromString(b"\xc3\x3e" * 1_000_000)


def test_map_entries_count_as_nesting() -> None:
    def named(levels: int) -> bytes:
        data = b""
        for _ in range(levels):
            entry = b"\x12" + varint(len(data)) + data
            data = b"\x22" + varint(len(entry)) + entry
        return data

    Tree.FromString(named(50))
    with pytest.raises(DecodeError, match="nested deeper"):
        Tree.FromString(named(51))


def test_times_and_wrappers_count_as_nesting() -> None:
    def choice(levels: int, innermost: bytes) -> bytes:
        data = innermost
        for _ in range(levels):
            data = b"\x5a" + varint(len(data)) + data
        return data

    for innermost in (b"\x4a\x00", b"\x52\x00", b"\x42\x00"):
        Choice.FromString(choice(99, innermost))
    for innermost in (b"\x4a\x00", b"\x52\x00"):
        with pytest.raises(DecodeError, match="nested deeper"):
            Choice.FromString(choice(100, innermost))


def test_hostile_repetition_takes_linear_time() -> None:
    Tree.FromString(b"\x12\x00" * 200_000)
    Scalars.FromString(b"\xc8\x3e\x01" * 200_000)
    WellKnown.FromString(b"\x22\x02\x08\x01" * 100_000)
    Choice.FromString((b"\x3a\x00" + b"\x42\x00") * 100_000)


def test_to_find_a_fault_each_class_is_described_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was done anew for each message inside: 0.2 ms for each two bytes of a bad request, the loop standing still."""
    described = []
    monkeypatch.setattr(_check, "fields_of", lambda cls: described.append(cls) or fields_of(cls))
    with pytest.raises(DecodeError, match=r"Tree.children\[999\] at byte 1999"):
        Tree.FromString(b"\x1a\x00" * 999 + b"\x1a\x7f")
    assert described == [Tree]


def test_the_search_for_a_fault_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_check, "PATIENCE", 100)
    with pytest.raises(DecodeError, match=r"Tree at byte 200: the fault is here or behind"):
        Tree.FromString(b"\x1a\x00" * 1000 + b"\x1a\x7f")
    with pytest.raises(DecodeError, match=r"Tree.children\[99\] at byte 199: a length"):
        Tree.FromString(b"\x1a\x00" * 99 + b"\x1a\x7f")


def test_anything_that_holds_bytes_can_be_parsed() -> None:
    data = bytes(Scalars(f_string="a", f_bytes=b"b"))
    for form in (bytearray(data), memoryview(data)):
        message = Scalars.FromString(form)
        assert message == Scalars(f_string="a", f_bytes=b"b")
        assert type(message.f_bytes) is bytes
    for wrong in ("text", 3, None):
        with pytest.raises(TypeError):
            Scalars.FromString(wrong)


def test_the_error_can_be_pickled() -> None:
    import pickle

    with pytest.raises(DecodeError) as caught:
        Scalars.FromString(b"\x72\x03")
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    assert isinstance(caught.value, ValueError)
