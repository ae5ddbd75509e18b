"""The walker over descriptor sets, held against google.protobuf; and what it does with bytes that are none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from importlib import resources

import pytest
from google.protobuf import descriptor_pb2
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.sizes import size

from dk_trio.rpc.descriptors import DescriptorIndex, parse_files

OURS = resources.files("dk_trio.pb").joinpath("descriptors.bin").read_bytes()


def names(scope: str, message: descriptor_pb2.DescriptorProto) -> Iterator[str]:
    inner = f"{scope}{message.name}."
    yield scope + message.name
    yield from (inner + field.name for field in (*message.field, *message.oneof_decl, *message.extension))
    for enum in message.enum_type:
        yield from enum_names(inner, enum)
    for nested in message.nested_type:
        yield from names(inner, nested)


def enum_names(scope: str, enum: descriptor_pb2.EnumDescriptorProto) -> Iterator[str]:
    yield scope + enum.name
    yield from (scope + value.name for value in enum.value)


def expected_symbols(file: descriptor_pb2.FileDescriptorProto) -> list[str]:
    scope = f"{file.package}." if file.package else ""
    found = [scope + extension.name for extension in file.extension]
    for message in file.message_type:
        found += names(scope, message)
    for enum in file.enum_type:
        found += enum_names(scope, enum)
    for service in file.service:
        found.append(scope + service.name)
        found += [f"{scope}{service.name}.{method.name}" for method in service.method]
    return sorted(found)


def files_of(data: bytes) -> list[descriptor_pb2.FileDescriptorProto]:
    return list(descriptor_pb2.FileDescriptorSet.FromString(data).file)


def with_itself() -> bytes:
    """descriptor.proto, the largest file there is, described in its own terms; and a file without a package."""
    described = descriptor_pb2.FileDescriptorProto()
    descriptor_pb2.DESCRIPTOR.CopyToProto(described)
    bare = descriptor_pb2.FileDescriptorProto(name="bare.proto")
    bare.message_type.add(name="Bare").nested_type.add(name="Inner").enum_type.add(name="E").value.add(name="ZERO")
    return descriptor_pb2.FileDescriptorSet(file=[described, bare]).SerializeToString()


@pytest.mark.parametrize("data", [OURS, with_itself()], ids=["ours", "descriptor.proto"])
def test_names_are_those_that_protobuf_sees(data):
    parsed = parse_files(data)
    for mine, theirs in zip(parsed, files_of(data), strict=True):
        assert mine.name == theirs.name
        assert mine.dependencies == list(theirs.dependency)
        assert sorted(mine.symbols) == expected_symbols(theirs)
        assert descriptor_pb2.FileDescriptorProto.FromString(mine.data) == theirs


def test_our_own_set_is_complete():
    """Every import is there, comments are not, and every service of the package is."""
    files = files_of(OURS)
    available = {file.name for file in files}
    assert {name for file in files for name in file.dependency} <= available
    assert not any(file.HasField("source_code_info") for file in files)
    services = {f"{file.package}.{service.name}" for file in files for service in file.service}
    assert {"grpc.health.v1.Health", "agentic_mesh_protocol.module.v1.ModuleService"} <= services


def test_imports_in_a_circle_end():
    one = descriptor_pb2.FileDescriptorProto(name="one.proto", dependency=["two.proto", "two.proto"])
    two = descriptor_pb2.FileDescriptorProto(name="two.proto", dependency=["one.proto"])
    index = DescriptorIndex([descriptor_pb2.FileDescriptorSet(file=[one, two]).SerializeToString()])
    assert len(index.with_dependencies(index.file("one.proto"))) == 2
    assert repr(index) == "<DescriptorIndex 2 files, 0 symbols>"


def nested(depth: int) -> bytes:
    message = descriptor_pb2.DescriptorProto(name="M").SerializeToString()
    for _ in range(depth):
        message = b"\x0a\x01M\x1a" + varint(len(message)) + message
    file = b"\x0a\x01f\x22" + varint(len(message)) + message
    return b"\x0a" + varint(len(file)) + file


def varint(number: int) -> bytes:
    out = b""
    while number > 0x7F:
        out += bytes([number & 0x7F | 0x80])
        number >>= 7
    return out + bytes([number])


def test_nesting_is_bounded():
    assert len(parse_files(nested(30))[0].messages) == 31
    with pytest.raises(ValueError, match="messages nested more than 64 deep"):
        parse_files(nested(10_000))


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"\x0a", "index out of range"),
        (b"\x0a\x05ab", "a field of 5 bytes where 2 are left"),
        (b"\x0a" + b"\xff" * 11, "a number that does not end"),
        (b"\x0b", "wire type 3"),
        (b"\x0a\x00", "a file without a name"),
        (b"\x0a\x02\x08\x01", "a number where text or a message belongs"),
        (b"\x0a\x05\x0a\x01f\x22\x00", "a declaration without a name"),
        (b"\x0a\x03\x0a\x01\xff", "codec can't decode"),
        (b"\x10\x01\x09", "a field of 8 bytes where 0 are left"),
    ],
)
def test_what_is_wrong_is_said(data, text):
    with pytest.raises(ValueError, match=f"bytes are not a serialised FileDescriptorSet: .*{text}"):
        DescriptorIndex([data])


@settings(max_examples=size(300, 6000), deadline=None)
@given(
    st.one_of(
        st.binary(max_size=200),
        st.integers(0, len(OURS) - 1).map(lambda cut: OURS[:cut]),
        st.tuples(st.integers(0, len(OURS) - 1), st.binary(min_size=1, max_size=1)).map(
            lambda change: OURS[: change[0]] + change[1] + OURS[change[0] + 1 :]
        ),
    )
)
def test_any_bytes_parse_or_raise_value_error(data):
    with suppress(ValueError):
        parse_files(data)
