"""Every message type against google.protobuf, both ways: random messages, and random damage to them."""

from __future__ import annotations

from functools import partial

import betterproto2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.sizes import size

from dk_trio.pb import DecodeError
from dk_trio.pb._check import find_fault
from dk_trio.pb.google.protobuf import Struct

from .canonical import OutOfRange, canonical
from .random_messages import Maker

# How often each property is tried for each of the roughly 200 message types, and for those with every kind of field.
PER_TYPE = size(5, 50)
PER_TYPE_WITH_EVERYTHING = size(30, 1200)

SEEDS = st.integers(0, 2**32)
COMMON = {"deadline": None, "suppress_health_check": list(HealthCheck)}


def look_into(message) -> None:
    """Read every Struct in a message."""
    if isinstance(message, Struct):
        message.to_dict()
        return
    for name in message._betterproto.sorted_field_names:
        value = getattr(message, name)
        for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else [value]:
            if isinstance(inner, betterproto2.Message):
                look_into(inner)


def rebuilt(message):
    """The same message made by the constructor, as a program would."""
    if isinstance(message, Struct):
        return Struct.from_dict(message.to_dict())
    arguments = {}
    for name in message._betterproto.sorted_field_names:
        value = getattr(message, name)
        if isinstance(value, dict):
            value = {key: rebuilt(v) if isinstance(v, betterproto2.Message) else v for key, v in value.items()}
        elif isinstance(value, list):
            value = [rebuilt(v) if isinstance(v, betterproto2.Message) else v for v in value]
        elif isinstance(value, betterproto2.Message):
            value = rebuilt(value)
        arguments[name] = value
    return type(message)(**arguments)


def same_as_google(google, cls, data: bytes) -> None:
    """The whole contract of the codec for one piece of data, valid or not."""
    try:
        expected = google.FromString(data)
    except Exception:  # noqa: BLE001  whatever the oracle raises, it refuses
        expected = None
    for looked_into in (False, True):
        refused = None
        try:
            message = cls.FromString(data)
            if looked_into:
                look_into(message)
        except DecodeError as error:
            refused = error
        if expected is None:
            assert find_fault(cls, data) is not None
            if refused is None:
                # The fault is in a Struct that nobody has looked into, or that another member of its oneof replaced.
                lazy = cls is Struct and not looked_into
                assert lazy or find_fault(cls, data, into_structs=False) is None, f"accepted {data.hex()}"
                continue
            assert 0 <= refused.offset <= len(data)
            continue
        copy = google()
        copy.CopyFrom(expected)
        fault = find_fault(cls, data)
        assert fault is None or fault[2] == "field number 0" or "timestamp" in fault[2] or "duration" in fault[2]
        try:
            canonical(copy, looked_into=looked_into)
        except OutOfRange:
            assert refused is not None
            assert "timestamp" in refused.reason or "duration" in refused.reason
            continue
        if refused is not None and refused.reason == "field number 0":
            continue  # upb misses it in messages without fields and inside of unknown groups
        assert refused is None, f"refused {data.hex()}: {refused}"
        again = google.FromString(bytes(message))
        canonical(again, looked_into=False)
        assert again.SerializeToString(deterministic=True) == copy.SerializeToString(deterministic=True), data.hex()


def for_seeds(tries: int, body) -> None:
    """Run `body` with seeds from hypothesis; when it fails, hypothesis names the seed."""

    @settings(max_examples=tries, **COMMON)
    @given(SEEDS)
    def check(seed: int) -> None:
        body(seed)

    check()


def comes_through(google, cls, seed: int) -> None:
    made = Maker(seed).fill(google())
    data = made.SerializeToString()
    same_as_google(google, cls, data)
    message = cls.FromString(data)
    assert not message._unknown_fields
    again = google.FromString(rebuilt(message).SerializeToString())
    assert again.SerializeToString(deterministic=True) == made.SerializeToString(deterministic=True)


def same_verdict(google, cls, seed: int) -> None:
    maker = Maker(seed)
    data = maker.fill(google()).SerializeToString()
    for _ in range(4):
        same_as_google(google, cls, maker.damage(data))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_random_messages_come_through_unchanged(oracle, ours) -> None:
    assert sorted(ours) == sorted(oracle)
    for name, cls in ours.items():
        tries = PER_TYPE_WITH_EVERYTHING if name.startswith("dk_trio.test") else PER_TYPE
        for_seeds(tries, partial(comes_through, oracle[name], cls))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_damaged_messages_get_the_same_verdict(oracle, ours) -> None:
    for name, cls in ours.items():
        tries = PER_TYPE_WITH_EVERYTHING if name.startswith(("dk_trio.test", "google.protobuf")) else PER_TYPE
        for_seeds(tries, partial(same_verdict, oracle[name], cls))
