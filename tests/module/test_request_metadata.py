"""The caller's metadata as a module sees it."""

from dk_trio.module import RequestMetadata

PAIRS = [
    ("Authorization", "bearer  s3cret"),
    ("x-api-key", "k3y"),
    ("grpc-timeout", "1S"),
    ("trace-bin", b"\x00\xff"),
    ("tag", "a"),
    ("tag", "b"),
]


def test_it_is_a_mapping_without_grpcs_own_keys() -> None:
    metadata = RequestMetadata(PAIRS)
    assert list(metadata) == ["authorization", "x-api-key", "trace-bin", "tag"]
    assert len(metadata) == 4
    assert metadata["TAG"] == "a"
    assert metadata.getall("tag") == ["a", "b"]
    assert metadata.get("trace-bin") == b"\x00\xff"
    assert "grpc-timeout" not in metadata
    assert metadata.to_dict()["tag"] == "a"
    assert metadata.to_grpc_metadata()[-1] == ("tag", "b")
    assert not RequestMetadata()


def test_credentials() -> None:
    metadata = RequestMetadata(PAIRS)
    assert metadata.bearer_token == "s3cret"
    assert metadata.api_key == "k3y"
    assert RequestMetadata([("authorization", "Basic abc")]).bearer_token is None
    assert RequestMetadata().authorization is None


def test_secrets_are_not_shown() -> None:
    shown = repr(RequestMetadata(PAIRS))
    assert "s3cret" not in shown
    assert "k3y" not in shown
    assert "'tag'" in shown
