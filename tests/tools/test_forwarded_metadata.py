"""What of a caller's metadata is passed on, compared and shown."""

import pytest

from dk_trio.module import RequestMetadata

PAIRS = [("a", "1"), ("trace-bin", b"\x00\xff"), ("a", "2")]


def test_repeated_and_binary_keys_are_passed_on_as_they_came() -> None:
    assert RequestMetadata(PAIRS).to_grpc_metadata() == PAIRS


@pytest.mark.parametrize("key", ["User-Agent", "te", "content-type", "Connection", "keep-alive", ":authority", "host"])
def test_what_speaks_of_the_callers_own_call_is_not_passed_on(key: str) -> None:
    metadata = RequestMetadata([(key, "x"), ("a", "1")])
    assert metadata.to_grpc_metadata() == [("a", "1")]
    assert metadata[key] == "x"


@pytest.mark.parametrize(
    "key",
    [
        "authorization",
        "Cookie",
        "x-api-key",
        "x-openai-api-key",
        "x-auth-token",
        "token",
        "client-secret",
        "db_password",
        "session.token",
        "private-key-bin",
        "proxy-authorization",
    ],
)
def test_secrets_are_masked_whole(key: str) -> None:
    secret: str | bytes = b"s3cr3t" if key.endswith("-bin") else "s3cr3t"
    shown = repr(RequestMetadata([(key, secret), ("x-request-id", "seen"), ("monkey", "seen too")]))
    assert "s3cr3t" not in shown
    assert "s3" not in shown
    assert "'seen'" in shown
    assert "seen too" in shown


def test_every_value_of_a_repeated_key_is_shown() -> None:
    assert repr(RequestMetadata(PAIRS)) == r"RequestMetadata([('a', '1'), ('trace-bin', b'\x00\xff'), ('a', '2')])"


def test_equality_is_that_of_every_keys_values() -> None:
    one = RequestMetadata(PAIRS)
    assert one == RequestMetadata([("trace-bin", b"\x00\xff"), ("A", "1"), ("a", "2")])
    assert hash(one) == hash(RequestMetadata(PAIRS))
    assert one != RequestMetadata([("a", "2"), ("trace-bin", b"\x00\xff"), ("a", "1")])
    assert one != RequestMetadata(PAIRS[:2])
    assert RequestMetadata([("a", "1")]) == {"a": "1"}
    assert one != 5


def test_membership_and_truth() -> None:
    metadata = RequestMetadata([("A", "1")])
    assert "a" in metadata
    assert "A" in metadata
    assert "b" not in metadata
    assert 5 not in metadata
    assert metadata
    assert not RequestMetadata([("grpc-timeout", "1S")])
