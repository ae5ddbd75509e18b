"""Metadata, timeouts and status messages: what goes into a header, and what comes out of one."""

from __future__ import annotations

from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dk_trio.wire.metadata import (
    decode_metadata,
    decode_status_message,
    decode_timeout,
    encode_metadata,
    encode_status_message,
    encode_timeout,
    status_message_field,
)

names = st.from_regex(r"x[0-9a-z_.\-]{0,12}y", fullmatch=True)
ascii_values = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=40)
pairs = st.lists(
    st.one_of(
        st.tuples(names, ascii_values.map(lambda value: value.strip(" "))),
        st.tuples(names.map(lambda name: name + "-bin"), st.binary(max_size=40)),
    ),
    max_size=8,
)


def as_received(fields: list[tuple[bytes, bytes]]) -> list[tuple[str, str]]:
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in fields]


@given(pairs)
def test_metadata_survives_the_wire(metadata: list[tuple[str, str | bytes]]) -> None:
    assert list(decode_metadata(as_received(encode_metadata(metadata))).items()) == metadata


def test_mapping_and_pairs_are_both_accepted() -> None:
    assert encode_metadata({"a": "1", "b-bin": b"\x00"}) == [(b"a", b"1"), (b"b-bin", b"AA")]
    assert encode_metadata([("a", "1"), ("a", "2")]) == [(b"a", b"1"), (b"a", b"2")]
    assert encode_metadata(()) == []


@pytest.mark.parametrize(
    "name",
    [
        "te",
        "content-type",
        "user-agent",
        "grpc-timeout",
        "grpc-status",
        ":path",
        "connection",
        "content-length",
        "host",
    ],
)
def test_reserved_names_are_refused_out_and_skipped_in(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name!r} is reserved"):
        encode_metadata({name: "x"})
    assert not decode_metadata([(name, "x")])


@pytest.mark.parametrize("name", ["", "Upper", "with space", "é", "a\n", "a:b"])
def test_bad_names_are_named(name: str) -> None:
    with pytest.raises(ValueError, match="lower case") as caught:
        encode_metadata({name: "x"})
    assert repr(name) in str(caught.value)


@pytest.mark.parametrize("value", ["é", "a\nb", "\t", "\x7f", "\x00"])
def test_bad_values_are_refused_without_being_shown(value: str) -> None:
    with pytest.raises(ValueError, match="'authorization' has") as caught:
        encode_metadata({"authorization": "secret" + value})
    assert "secret" not in str(caught.value)
    assert "position 6" in str(caught.value) or value == "a\nb"


def test_value_types_follow_the_name() -> None:
    with pytest.raises(TypeError, match="'a' must be str, not bytes"):
        encode_metadata({"a": b"x"})
    with pytest.raises(TypeError, match="'a-bin' must be bytes, not str"):
        encode_metadata({"a-bin": "x"})
    with pytest.raises(TypeError, match="key 1 must be str"):
        encode_metadata([(1, "x")])  # type: ignore[list-item]


def test_spaces_around_a_value_are_dropped() -> None:
    assert encode_metadata({"a": "  b c "}) == [(b"a", b"b c")]


def test_values_that_could_not_be_echoed_are_dropped() -> None:
    assert list(decode_metadata([("a", "caf\xe9"), ("b", "x\ty"), ("c", "ok")]).items()) == [("c", "ok")]


def test_application_names_under_grpc_pass_both_ways() -> None:
    fields = encode_metadata({"grpc-retry-pushback-ms": "10"})
    assert dict(decode_metadata(as_received(fields))) == {"grpc-retry-pushback-ms": "10"}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("", [b""]),
        ("YQ", [b"a"]),
        ("YQ==", [b"a"]),
        ("YWI", [b"ab"]),
        ("YWI=", [b"ab"]),
        ("YQ,YWI=", [b"a", b"ab"]),
        ("YQ, YWI", [b"a", b"ab"]),
        ("YQ,,YQ", [b"a", b"", b"a"]),
    ],
)
def test_binary_values_padded_or_not_and_joined(value: str, expected: list[bytes]) -> None:
    assert decode_metadata([("a-bin", value)]).getall("a-bin") == expected


@pytest.mark.parametrize("value", ["Y", "Y*==", "YQ===", "Y Q", "YQ=YQ", "é", "-_-_"])
def test_bad_base64_names_the_key(value: str) -> None:
    with pytest.raises(ValueError, match="'a-bin' is not base64"):
        decode_metadata([("a-bin", value)])


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, b"0n"),
        (-1, b"0n"),
        (1e-10, b"1n"),
        (5e-7, b"500n"),
        (2.5e-6, b"3u"),
        (0.001, b"1m"),
        (0.25, b"250m"),
        (1, b"1S"),
        (4.99998, b"5S"),
        (1.234, b"1240m"),
        (59.93, b"60S"),
        (59.83, b"59900m"),
        (60, b"60S"),
        (100.1, b"101S"),
        (86_400, b"86400S"),
        (99_999_999, b"99999999S"),
        (100_000_000, b"27778H"),
        (1e12, b"99999999H"),
        (inf, b"99999999H"),
    ],
)
def test_timeout_examples(seconds: float, expected: bytes) -> None:
    assert encode_timeout(seconds) == expected


@given(st.floats(min_value=1e-8, max_value=1e9))
def test_timeout_is_never_shorter_and_at_most_a_percent_longer(seconds: float) -> None:
    text = encode_timeout(seconds).decode()
    assert len(text) <= 9
    decoded = decode_timeout(text)
    assert decoded >= seconds * (1 - 1e-12)
    # The last term is one unit: what a number of one digit is rounded by.
    unit = decode_timeout("1" + text[-1])
    assert decoded <= seconds * 1.011 + unit


def test_timeout_must_be_a_number() -> None:
    with pytest.raises(ValueError, match="NaN"):
        encode_timeout(nan)


@pytest.mark.parametrize(
    "text", ["", "1", "S", "1s", "-1S", "+1S", "1.5S", "123456789S", "1S ", " 1S", "1S\n", "١S", "1SS"]
)
def test_bad_timeout_names_the_value(text: str) -> None:
    with pytest.raises(ValueError, match="grpc-timeout") as caught:
        decode_timeout(text)
    assert repr(text) in str(caught.value)


def test_timeout_units() -> None:
    assert [decode_timeout("2" + unit) for unit in "HMSmun"] == [7200, 120, 2, 0.002, 2e-6, 2e-9]
    assert decode_timeout("00000000n") == 0


@given(st.text(st.characters(exclude_categories=("Cs",))))
def test_status_message_survives_the_wire(message: str) -> None:
    encoded = encode_status_message(message)
    assert all(0x20 <= byte <= 0x7E for byte in encoded)
    assert encoded == encoded.strip(b" ")
    assert decode_status_message(encoded.decode("ascii")) == message


@given(st.text())
def test_decoding_a_status_message_never_fails(text: str) -> None:
    assert isinstance(decode_status_message(text), str)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("100%", "100%"),
        ("%zz%2", "%zz%2"),
        ("%E2%98%BA", "☺"),
        ("%e2%98%ba", "☺"),
        ("%ff", "\ufffd"),
        ("\xe2\x98\xba", "☺"),
    ],
)
def test_status_message_examples(text: str, expected: str) -> None:
    assert decode_status_message(text) == expected


def test_status_message_encoding_is_minimal() -> None:
    assert encode_status_message("\t\ntest with whitespace\r\nand ☺") == (
        b"%09%0Atest with whitespace%0D%0Aand %E2%98%BA"
    )
    assert encode_status_message("50% \x7f ") == b"50%25 %7F%20"
    assert encode_status_message("  ") == b"%20%20"
    assert encode_status_message("\ud800") == b"?"


@pytest.mark.parametrize(
    "message", ["x" * 4096, "x" * 4097, "x" * 10**6, "☺" * 5000, "%" * 3000, "a" * 4000 + "☺" * 100]
)
def test_long_status_messages_are_cut_and_say_so(message):
    encoded = status_message_field(message)
    assert len(encoded) <= 4096
    text = decode_status_message(encoded.decode())
    if len(message) == 4096:
        assert text == message
        return
    kept, _, note = text.rpartition("... (")
    assert message.startswith(kept)
    assert len(kept) > 400
    assert note == f"{len(message) - len(kept)} more characters)"
