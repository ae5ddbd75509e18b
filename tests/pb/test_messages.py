"""What a message class of ours can do beside parsing: copies, streams, errors, times, subclasses, stock classes."""

from __future__ import annotations

import copy
import datetime
import io
import pickle
import warnings

import betterproto2
import pytest
from tests._pb.dk_trio.test.v1 import (
    Awkward,
    Choice,
    Colour,
    Lists,
    Maps,
    Optionals,
    Retired,
    Scalars,
    Tree,
    WellKnown,
)
from tests._pb.message_pool import default_message_pool

from dk_trio.pb import DecodeError, Message
from dk_trio.pb._codec import codec_of
from dk_trio.pb._message import accelerate
from dk_trio.pb._times import NanoDatetime, NanoTimedelta
from dk_trio.pb.google.protobuf import Any, Duration, Struct, Timestamp, Value
from dk_trio.pb.google.rpc import ErrorInfo, RetryInfo, Status

UTC = datetime.UTC
UNKNOWN = b"\xc8\x3e\x05"


def with_unknown() -> Scalars:
    return Scalars.FromString(bytes(Scalars(f_int32=1)) + UNKNOWN)


def test_all_ways_to_serialise_and_parse_are_the_codec() -> None:
    message = Scalars(f_int32=1, f_string="a")
    data = b"\x18\x01\x72\x01a"
    assert bytes(message) == message.SerializeToString() == data
    assert Scalars.FromString(data) == Scalars.parse(data) == message
    out = io.BytesIO()
    message.dump(out)
    message.dump(out, delimit=True)
    assert out.getvalue() == data + b"\x05" + data


def test_load_merges_into_the_message() -> None:
    message = Lists(f_int32=[1], f_message=[Scalars(f_int32=1)])
    assert message.load(io.BytesIO(bytes(Lists(f_int32=[2], f_string=["x"])) + UNKNOWN)) is message
    assert message.f_int32 == [1, 2]
    assert message.f_string == ["x"]
    assert message._unknown_fields == UNKNOWN
    tree = Tree(label="old", left=Tree(label="inner"))
    tree.load(io.BytesIO(bytes(Tree(left=Tree(children=[Tree()])))))
    assert tree == Tree(label="old", left=Tree(label="inner", children=[Tree()]))


def test_load_reads_as_much_as_it_is_told() -> None:
    stream = io.BytesIO()
    Scalars(f_int32=1).dump(stream, delimit=True)
    Scalars(f_string="x" * 200).dump(stream, delimit=True)
    stream.seek(0)
    assert Scalars().load(stream, betterproto2.SIZE_DELIMITED) == Scalars(f_int32=1)
    assert Scalars().load(stream, betterproto2.SIZE_DELIMITED) == Scalars(f_string="x" * 200)
    with pytest.raises(EOFError):
        Scalars().load(stream, betterproto2.SIZE_DELIMITED)
    assert Scalars().load(io.BytesIO(b"\x18\x01\x18\x02"), 2) == Scalars(f_int32=1)
    with pytest.raises(EOFError, match="expected 9 bytes of Scalars, the stream ended after 2"):
        Scalars().load(io.BytesIO(b"\x18\x01"), 9)
    with pytest.raises(ValueError, match="no size of a message"):
        Scalars().load(io.BytesIO(b"\xff" * 20), betterproto2.SIZE_DELIMITED)
    with pytest.raises(DecodeError):
        Scalars().load(io.BytesIO(b"\x18"))


def test_struct_loads_too() -> None:
    message = Struct.from_dict({"a": 1, "b": 2})
    message.load(io.BytesIO(bytes(Struct.from_dict({"b": 3}))))
    assert message.to_dict() == {"a": 1.0, "b": 3.0}


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_and_pickles_keep_unknown_fields(copied) -> None:
    message = with_unknown()
    twin = copied(message)
    assert twin == message
    assert bytes(twin) == bytes(message)
    twin.f_int32 = 7
    assert message.f_int32 == 1


def test_a_deep_copy_shares_nothing() -> None:
    tree = Tree(children=[Tree(label="a")])
    twin = copy.deepcopy(tree)
    twin.children[0].label = "b"
    assert tree.children[0].label == "a"


def test_only_the_last_member_of_a_oneof_is_set() -> None:
    data = bytes(Choice(p_string="a")) + bytes(Choice(p_int32=0)) + bytes(Choice(beside="x"))
    message = Choice.FromString(data)
    assert betterproto2.which_one_of(message, "pick") == ("p_int32", 0)
    assert message.beside == "x"


def test_unknown_enum_numbers_are_kept() -> None:
    message = Scalars.FromString(b"\x80\x01\x63")
    assert isinstance(message.f_enum, Colour)
    assert bytes(message) == b"\x80\x01\x63"
    assert Scalars(f_enum=-7).SerializeToString() == b"\x80\x01\xf9\xff\xff\xff\xff\xff\xff\xff\xff\x01"


def test_minus_zero_is_not_the_default() -> None:
    assert bytes(Scalars(f_double=-0.0)) == b"\x09\0\0\0\0\0\0\0\x80"
    assert bytes(Scalars(f_float=-0.0)) == b"\x15\0\0\0\x80"
    assert bytes(Scalars(f_double=0.0, f_float=0)) == b""


def test_a_float_beyond_32_bits_is_infinite() -> None:
    assert Scalars.FromString(bytes(Scalars(f_float=-1e39))).f_float == float("-inf")


@pytest.mark.parametrize(
    ("message", "error", "text"),
    [
        (Scalars(f_string=3), TypeError, r"Scalars.f_string: expected str, not int"),
        (Scalars(f_string=b"x"), TypeError, r"Scalars.f_string: expected str, not bytes"),
        (Scalars(f_bytes="x"), TypeError, r"Scalars.f_bytes: expected bytes, not str"),
        (Scalars(f_int32="1"), TypeError, r"Scalars.f_int32: expected int, not str"),
        (Scalars(f_int32=1.5), TypeError, r"Scalars.f_int32: expected int, not float"),
        (Scalars(f_double="x"), TypeError, r"Scalars.f_double: expected float, not str"),
        (Scalars(f_enum="RED"), TypeError, r"Scalars.f_enum: expected Colour, not str"),
        (Scalars(f_string=None), None, ""),
        (Scalars(f_int32=2**31), ValueError, r"Scalars.f_int32: 2147483648 is out of range for int32"),
        (Scalars(f_int64=-(2**63) - 1), ValueError, r"f_int64: .* out of range"),
        (Scalars(f_uint32=-1), ValueError, r"f_uint32: -1 is out of range"),
        (Scalars(f_uint64=2**64), ValueError, r"f_uint64: .* out of range"),
        (Scalars(f_sint32=2**31), ValueError, r"f_sint32: .* out of range"),
        (Scalars(f_sint64=2**63), ValueError, r"f_sint64: .* out of range"),
        (Scalars(f_fixed32=-1), ValueError, r"f_fixed32: -1 is out of range for fixed32"),
        (Scalars(f_sfixed64=2**63), ValueError, r"f_sfixed64: .* out of range"),
        (Scalars(f_enum=2**31), ValueError, r"f_enum: .* out of range"),
        (Scalars(f_string="\ud800"), ValueError, r"f_string: .*surrogates not allowed"),
        (Lists(f_int32=[1, "x"]), TypeError, r"Lists.f_int32\[1\]: expected int, not str"),
        (Lists(f_string="abc"), TypeError, r"Lists.f_string: expected list, not str"),
        (Lists(f_message=[Scalars(), None]), TypeError, r"Lists.f_message\[1\]: expected Scalars, not NoneType"),
        (Lists(f_int32=5), TypeError, r"Lists.f_int32: expected list, not int"),
        (Maps(m_to_string=[1]), TypeError, r"Maps.m_to_string: expected dict, not list"),
        (Maps(m_to_string={1: "a"}), TypeError, r"Maps.m_to_string\[1\]: expected str, not int"),
        (Maps(m_to_string={"a": 1}), TypeError, r"Maps.m_to_string\['a'\]: expected str, not int"),
        (Maps(m_to_message={"a": Scalars(f_int32=2**31)}), ValueError, r"Scalars.f_int32: .* out of range"),
        (Optionals(f_message={"f_int32": 1}), TypeError, r"Optionals.f_message: expected Scalars, not dict"),
        (WellKnown(f_struct={"a": 1}), TypeError, r"WellKnown.f_struct: expected Struct, not dict"),
        (WellKnown(f_timestamp=datetime.datetime(2026, 1, 1)), ValueError, r"f_timestamp: .*without a time zone"),  # noqa: DTZ001
        (WellKnown(f_timestamp=5), TypeError, r"WellKnown.f_timestamp: expected datetime, not int"),
        (WellKnown(f_int32=2**31), ValueError, r"Int32Value.value: .* out of range"),
        (Tree(children=[Tree(label=1)]), TypeError, r"Tree.label: expected str, not int"),
    ],
)
def test_what_cannot_be_sent_is_named(message, error, text) -> None:
    if error is None:
        # None stands for the default in a field without presence.
        assert bytes(message) == b""
        return
    with pytest.raises(error, match=text):
        bytes(message)


def test_times_keep_their_nanoseconds() -> None:
    exact = bytes(Timestamp(seconds=-1, nanos=123_456_789))
    message = WellKnown.FromString(b"\x22" + bytes((len(exact),)) + exact)
    assert message.f_timestamp == datetime.datetime(1969, 12, 31, 23, 59, 59, 123456, UTC)
    assert message.f_timestamp.nanos == 789
    for twin in (message, copy.deepcopy(message), pickle.loads(pickle.dumps(message))):
        assert Timestamp.FromString(bytes(twin)[2:]).nanos == 123_456_789
    assert pickle.loads(pickle.dumps(message.f_timestamp)).nanos == 789

    for seconds, nanos in ((-1, -123_456_789), (5, 1), (0, -1), (-3, 0)):
        exact = bytes(Duration(seconds=seconds, nanos=nanos))
        duration = WellKnown.FromString(b"\x2a" + bytes((len(exact),)) + exact)
        assert bytes(duration)[2:] == exact
        assert pickle.loads(pickle.dumps(duration)) == duration
    assert isinstance(WellKnown.FromString(b"\x2a\x02\x10\x01").f_duration, NanoTimedelta)
    assert type(WellKnown.FromString(b"\x2a\x02\x08\x01").f_duration) is datetime.timedelta


def test_arithmetic_with_exact_times_is_the_parents() -> None:
    exact = WellKnown.FromString(b"\x22\x02\x10\x01").f_timestamp
    assert isinstance(exact, NanoDatetime)
    later = exact + datetime.timedelta(seconds=1)
    assert bytes(WellKnown(f_timestamp=later)) == b"\x22\x02\x08\x01"


@pytest.mark.parametrize("seconds", [253402300800, -62135596801, 2**63 - 1, -(2**63)])
def test_a_time_that_python_cannot_hold_is_refused(seconds: int) -> None:
    data = bytes(Timestamp(seconds=seconds))
    with pytest.raises(DecodeError, match="timestamp outside of the years 1 to 9999"):
        WellKnown.FromString(b"\x22" + bytes((len(data),)) + data)
    assert Timestamp.FromString(data).seconds == seconds


def test_a_denormalised_time_comes_out_normalised() -> None:
    data = bytes(Timestamp(seconds=10, nanos=-1))
    message = WellKnown.FromString(b"\x22" + bytes((len(data),)) + data)
    assert bytes(message)[2:] == bytes(Timestamp(seconds=9, nanos=999_999_999))


def test_wrappers_are_values_or_none() -> None:
    message = WellKnown(f_int32=0, f_string="", f_bool=False)
    back = WellKnown.FromString(bytes(message))
    assert (back.f_int32, back.f_string, back.f_bool, back.f_bytes) == (0, "", False, None)


def test_any_carries_error_details() -> None:
    status = Status(code=8, message="busy", details=[Any.pack(RetryInfo(retry_delay=datetime.timedelta(seconds=1.5)))])
    back = Status.FromString(bytes(status))
    assert back.details[0].type_url == "type.googleapis.com/google.rpc.RetryInfo"
    assert back.details[0].unpack() == RetryInfo(retry_delay=datetime.timedelta(seconds=1.5))
    packed = Any.pack(Tree(label="x"), message_pool=default_message_pool)
    assert packed.unpack(message_pool=default_message_pool) == Tree(label="x")
    assert ErrorInfo.FromString(bytes(ErrorInfo(metadata={"a": "b"}))).metadata == {"a": "b"}


def test_a_subclass_parses_to_itself() -> None:
    Scalars.FromString(b"")

    class Mine(Scalars):
        def doubled(self) -> int:
            return 2 * self.f_int32

    message = Mine.FromString(b"\x18\x05")
    assert type(message) is Mine
    assert message.doubled() == 10
    assert bytes(message) == b"\x18\x05"
    assert type(Scalars.FromString(b"")) is Scalars
    assert bytes(Lists(f_message=[message])) == b"\x8a\x01\x02\x18\x05"


def test_a_class_with_its_own_way_to_serialise_keeps_it() -> None:
    class Sealed(Scalars):
        def SerializeToString(self) -> bytes:
            return b"sealed"

    assert Sealed().SerializeToString() == b"sealed"


def test_stock_classes_can_be_given_the_codec() -> None:
    from dataclasses import dataclass

    @accelerate
    @dataclass(eq=False, repr=False)
    class Stock(betterproto2.Message):
        number: int = betterproto2.field(1, betterproto2.TYPE_INT32)

    assert not issubclass(Stock, Message)
    assert Stock.parse(b"\x08\x05") == Stock(number=5)
    assert bytes(Stock(number=5)) == b"\x08\x05"
    with pytest.raises(DecodeError):
        Stock.FromString(b"\x08")


def test_receiving_deprecated_things_warns_nobody() -> None:
    with pytest.warns(DeprecationWarning, match="Retired is deprecated"):
        data = bytes(Retired(text="x"))
    with pytest.warns(DeprecationWarning, match="Awkward.old is deprecated"):
        old = bytes(Awkward(old="x"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Retired.FromString(data).text == "x"
        assert Awkward.FromString(old).old == "x"


def test_fields_with_the_names_of_types_and_keywords() -> None:
    message = Awkward(class_="c", from_=1, none=True, list=[1, 2], dict={"a": "b"})
    assert Awkward.FromString(bytes(message)) == message


def test_messages_know_json_as_before() -> None:
    message = WellKnown(f_timestamp=datetime.datetime(2026, 1, 2, tzinfo=UTC), f_value=Value(string_value="x"))
    assert message.to_dict() == {"fTimestamp": "2026-01-02T00:00:00Z", "fValue": "x"}
    assert WellKnown.from_dict(message.to_dict()) == message


def test_the_compiled_source_can_be_read() -> None:
    assert "def decode(" in codec_of(Scalars).source
    assert "f_string" in codec_of(Scalars).source
