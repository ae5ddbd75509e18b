"""The wire page says what the wire layer does: its sample runs, its table is that of the code."""

import re
from dataclasses import fields
from pathlib import Path

import pytest
import sans_io
from grpclib.const import Status

from dk_trio import rpc, wire

PAGE = (Path(__file__).parents[2] / "docs" / "wire.md").read_text()


@pytest.mark.parametrize(
    ("path", "answer"),
    [("/example.Echo/Echo", (b"hello", Status.OK)), ("/example.Echo/Other", (None, Status.UNIMPLEMENTED))],
)
def test_sans_io(path: str, answer: tuple[bytes | None, Status]) -> None:
    assert sans_io.call(path, b"hello") == answer


def test_table_of_limits() -> None:
    def shown(value: object) -> str:
        return f"{value.burst}, then {value.rate:g}/s" if isinstance(value, wire.Rate) else str(value)

    limits = wire.Limits()
    of_code = {field.name: shown(getattr(limits, field.name)) for field in fields(limits)}
    of_page = dict(re.findall(r"^\| `(\w+)` \| ([^|]+?) \| ", PAGE, re.MULTILINE))
    assert of_page == of_code


def test_windows() -> None:
    from dk_trio.wire.connection import CONNECTION_WINDOW, STREAM_WINDOW

    assert f"| connection | {CONNECTION_WINDOW >> 20} MiB |" in PAGE
    channel = rpc.ChannelOptions().stream_window
    assert f"| stream | {STREAM_WINDOW >> 10} KiB; a channel sets {channel >> 20} MiB |" in PAGE
