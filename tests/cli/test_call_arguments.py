"""What `dk-trio call` makes of its arguments, before anything is sent."""

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest

from dk_trio.cli._connect import check_address
from dk_trio.cli._output import with_integers
from dk_trio.cli.call import check_metadata, parse_pair, read_input
from dk_trio.client import wrap_input


@pytest.mark.parametrize("address", ["127.0.0.1:1", "localhost:65535", "[::1]:50055", "unix:/run/a.sock", "unix:a"])
def test_addresses(address: str) -> None:
    check_address(address)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("localhost", "has no port"),
        (":50055", "has no port; write HOST:PORT"),
        ("localhost:", "is not a port"),
        ("localhost:0", "is not a port"),
        ("localhost:65536", "is not a port"),
        ("localhost:http", "is not a port"),
        ("::1:50055", "in brackets"),
        ("unix:", "needs a path"),
        ("https://host:443", "is a URL; write HOST:PORT, and --tls for TLS"),
        ("[zz]:50055", "not an IPv6 address"),
    ],
)
def test_bad_addresses(address: str, message: str) -> None:
    with pytest.raises(click.BadParameter, match=message):
        check_address(address)


def test_input_from_the_argument_a_file_and_stdin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "input.json"
    path.write_text('{"text": "ö"}')
    assert read_input('{"text": "ö"}') == {"text": "ö"}
    assert read_input(f"@{path}") == {"text": "ö"}
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO('{"text": "ö"}'.encode())))
    assert read_input("-") == {"text": "ö"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"text": }', "the argument is not JSON: line 1, column 10: Expecting value"),
        ("", "the argument is not JSON: line 1, column 1"),
        ("[1]", "holds a list; the input is a JSON object"),
        ("@nowhere.json", "nowhere.json cannot be read: No such file"),
        ("\udcff", "is not UTF-8 text"),
        ('{"text": NaN}', "the argument is not JSON: NaN is no JSON value"),
        ('{"text": -Infinity}', "-Infinity is no JSON value"),
        ("[" * 100_000, "the argument is nested too deep"),
        ("@", "needs the name of a file"),
    ],
)
def test_bad_input(text: str, message: str) -> None:
    with pytest.raises(click.BadParameter, match=message):
        read_input(text)


@pytest.mark.parametrize(
    ("data", "protocol", "wrapped"),
    [
        ({"text": "x"}, "message", {"root": {"protocol": "message", "text": "x"}}),
        ({"text": "x"}, None, {"root": {"text": "x"}}),
        ({"protocol": "message"}, "message", {"root": {"protocol": "message"}}),
        ({"root": {"text": "x"}}, "message", {"root": {"protocol": "message", "text": "x"}}),
        ({"root": {"protocol": "a"}, "annotations": {}}, None, {"root": {"protocol": "a"}, "annotations": {}}),
        ({"root": 3}, "message", {"root": 3}),  # the server says what is wrong with it
    ],
)
def test_inputs_get_a_root(data: dict[str, Any], protocol: str | None, wrapped: dict[str, Any]) -> None:
    before = dict(data)
    assert wrap_input(data, protocol) == wrapped
    assert data == before


def test_two_protocols_contradict_each_other() -> None:
    with pytest.raises(ValueError, match="the input says protocol 'a' and the argument says 'b'"):
        wrap_input({"protocol": "a"}, "b")


def test_metadata_pairs() -> None:
    assert parse_pair("Key=a=b") == ("key", "a=b")
    with pytest.raises(click.BadParameter, match="is not KEY=VALUE"):
        parse_pair("key")


@pytest.mark.parametrize("pair", ["grpc-x=1", "te=x", ":path=/x", "a/b=c", "k=\u00e9", "k-bin=x"])
def test_metadata_that_grpc_cannot_carry(pair: str) -> None:
    with pytest.raises(click.BadParameter, match="metadata"):
        check_metadata([parse_pair(pair)])


def test_numbers_that_json_does_not_have_are_printed_as_text() -> None:
    numbers = with_integers({"v": [float("nan"), float("inf"), float("-inf"), 0.5]})
    assert numbers == {"v": ["NaN", "Infinity", "-Infinity", 0.5]}


def test_whole_numbers_are_printed_as_such() -> None:
    assert with_integers({"i": 3.0, "x": [1.5, {"j": 0.0}], "s": "1.0", "b": True}) == {
        "i": 3,
        "x": [1.5, {"j": 0}],
        "s": "1.0",
        "b": True,
    }
