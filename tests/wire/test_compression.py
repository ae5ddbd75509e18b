"""Message compression: round trips, bounds, and what is refused."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dk_trio.wire.compression import (
    ENCODINGS,
    DecompressionError,
    MessageTooLarge,
    UnknownEncodingError,
    compress,
    decompress,
)

encodings = st.sampled_from(ENCODINGS)
compressed = pytest.mark.parametrize("encoding", ["gzip", "deflate"])


@given(encodings, st.binary(max_size=5000))
def test_message_survives(encoding: str, data: bytes) -> None:
    assert decompress(encoding, compress(encoding, data), len(data)) == data


@given(encodings, st.binary(min_size=1, max_size=5000))
def test_one_byte_over_the_limit_is_too_large(encoding: str, data: bytes) -> None:
    with pytest.raises(MessageTooLarge) as caught:
        decompress(encoding, compress(encoding, data), len(data) - 1)
    assert caught.value.limit == len(data) - 1


@given(st.sampled_from(["gzip", "deflate"]), st.binary(max_size=200), st.data())
def test_damage_never_escapes_as_another_error(encoding: str, data: bytes, draw: st.DataObject) -> None:
    whole = bytearray(compress(encoding, data))
    position = draw.draw(st.integers(0, len(whole) - 1))
    whole[position] ^= draw.draw(st.integers(1, 255))
    try:
        message = decompress(encoding, bytes(whole), 1000)
    except (DecompressionError, MessageTooLarge):
        return
    # Fields without a checksum (gzip's time and system) and padding bits may change unnoticed; the message may not.
    assert message == data


def test_other_implementations_are_understood() -> None:
    assert decompress("gzip", gzip.compress(b"abc" * 100), 1000) == b"abc" * 100
    assert gzip.decompress(compress("gzip", b"abc")) == b"abc"
    assert decompress("deflate", zlib.compress(b"abc"), 1000) == b"abc"
    assert zlib.decompress(compress("deflate", b"abc")) == b"abc"


@compressed
def test_same_bytes_each_time(encoding: str) -> None:
    assert compress(encoding, b"abc") == compress(encoding, b"abc")


@compressed
def test_every_cut_is_an_error(encoding: str) -> None:
    whole = compress(encoding, b"some message some message")
    for end in range(len(whole)):
        with pytest.raises(DecompressionError, match=encoding):
            decompress(encoding, whole[:end], 1000)


@compressed
@pytest.mark.parametrize("extra", [b"\x00", b"garbage"])
def test_bytes_after_the_end_are_an_error(encoding: str, extra: bytes) -> None:
    with pytest.raises(DecompressionError, match=f"{len(extra)} bytes after the end"):
        decompress(encoding, compress(encoding, b"x") + extra, 1000)


@compressed
def test_a_second_member_is_an_error(encoding: str) -> None:
    with pytest.raises(DecompressionError, match="after the end"):
        decompress(encoding, compress(encoding, b"x") * 2, 1000)


def test_raw_deflate_is_not_grpc_deflate() -> None:
    deflater = zlib.compressobj(wbits=-15)
    with pytest.raises(DecompressionError, match="deflate"):
        decompress("deflate", deflater.compress(b"x" * 100) + deflater.flush(), 1000)


@compressed
def test_a_bomb_costs_no_more_than_the_limit(encoding: str) -> None:
    bomb = compress(encoding, bytes(50 * 2**20))
    assert len(bomb) < 100_000
    tracemalloc.start()
    try:
        with pytest.raises(MessageTooLarge):
            decompress(encoding, bomb, 2**20)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 5 * 2**20


def test_identity_has_the_limit_too() -> None:
    with pytest.raises(MessageTooLarge, match="message of 3 bytes is larger than the limit of 2 bytes"):
        decompress("identity", b"abc", 2)


def test_unknown_encodings_are_named() -> None:
    with pytest.raises(UnknownEncodingError, match="'br' is not supported; known are identity, gzip, deflate"):
        compress("br", b"")
    with pytest.raises(UnknownEncodingError, match="'br'"):
        decompress("br", b"", 10)
