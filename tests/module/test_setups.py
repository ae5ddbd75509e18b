"""Setups from a file, setups that were configured, and the default for ids that nobody stored."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from dk_trio import ModuleServer, SetupModel
from dk_trio.errors import SetupFileError, SetupNotFoundError
from dk_trio.services.local import setup as local_setup
from dk_trio.services.local.setup import LocalSetup
from dk_trio.services.setup import SetupVersion

from .sample import module_with, send_one
from .served import outputs_of, served

STORED = {
    "setups:shout": {"prefix": "! "},
    "quiet": {"content": {"prefix": "- "}, "version": 3, "id": "setup_versions:quiet-3"},
    "setups:versioned": {"content": {"prefix": "v "}, "version": "7"},
}


class Needed(SetupModel):
    key: str


@pytest.fixture
def setup_file(tmp_path: Path) -> Path:
    path = tmp_path / "setups.json"
    path.write_text(json.dumps(STORED))
    return path


async def text_with(setup_id: str, **arguments: Any) -> tuple[str, str]:
    async with served(module_with(send_one), **arguments) as (_, client):
        outputs = await outputs_of(client, {"protocol": "message", "text": "hi"}, setup_id=setup_id)
    return outputs[1]["root"]["text"], outputs[0]["root"]["setup_version_id"]


@pytest.mark.parametrize(
    ("setup_id", "expected"),
    [
        ("setups:shout", ("! hi", "setup_versions:shout-1")),
        ("shout", ("! hi", "setup_versions:shout-1")),
        ("setups:quiet", ("- hi", "setup_versions:quiet-3")),
        ("versioned", ("v hi", "setup_versions:versioned-7")),
    ],
)
async def test_stored_setups(
    autojump_clock: object, setup_file: Path, setup_id: str, expected: tuple[str, str]
) -> None:
    assert await text_with(setup_id, setup_file=setup_file) == expected


async def test_an_unknown_id_gets_the_default_and_one_line_of_log(
    autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="dk_trio.setup")
    async with served(module_with(send_one)) as (_, client):
        for _ in range(3):
            outputs = await outputs_of(client, {"protocol": "message", "text": "hi"}, setup_id="setups:other")
    assert outputs[1]["root"]["text"] == "hi"
    assert outputs[0]["root"]["setup_id"] == "setups:other"
    assert [record.getMessage() for record in caplog.records] == [
        "setup 'setups:other' is not stored here: the module's default setup is used"
    ]


async def not_found(module: Any, **arguments: Any) -> str:
    async with served(module, **arguments) as (_, client):
        with pytest.raises(GRPCError) as caught:
            await outputs_of(client, {"protocol": "message"}, setup_id="setups:other")
    assert caught.value.status is Status.NOT_FOUND
    return str(caught.value.message)


async def test_strict(autojump_clock: object, setup_file: Path) -> None:
    text = await not_found(module_with(send_one), strict_setup=True, setup_file=setup_file)
    assert "'setups:other' not found (known: quiet, shout, versioned)" in text


async def test_a_setup_without_defaults(autojump_clock: object) -> None:
    text = await not_found(module_with(send_one, setup_format=Needed))
    assert "Needed has fields without defaults" in text
    assert "--setup FILE.json" in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON: line 1, column 2"),
        ("[]", "holds a list"),
        ('{"setups:a": 3}', "setup 'setups:a' is a int"),
        ('{"setups:a": {"prefix": 3}}', "Setup 'setups:a' does not fit Sample: prefix"),
        ("\xff", "is not UTF-8"),
    ],
)
def test_a_file_that_cannot_be_used(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "setups.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(SetupFileError) as caught:
        ModuleServer(module_with(send_one), setup_file=path)
    assert message in caught.value.text
    assert str(path) in caught.value.text


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SetupFileError, match="cannot be read: No such file"):
        ModuleServer(module_with(send_one), setup_file=tmp_path / "none.json")


# --- configured ------------------------------------------------------------------------------------------------------


def version(setup_id: str, name: str = "configured") -> SetupVersion:
    return SetupVersion(id=name, setup_id=setup_id, content={})


async def names(setups: LocalSetup, *ids: str) -> list[str]:
    return [(await setups.get_setup(setup_id, "m")).id for setup_id in ids]


async def test_a_configured_setup_goes_before_the_file_and_the_default(autojump_clock: object) -> None:
    setups = LocalSetup({"setups:stored": version("setups:stored", "file")}, default={})
    assert await names(setups, "stored", "other") == ["file", "setup_versions:default"]
    setups.put(version("stored"))
    setups.put(version("setups:other"))
    setups.put(version("other", "again"))
    assert await names(setups, "setups:stored", "stored", "other") == ["configured", "configured", "again"]
    assert repr(setups) == "<LocalSetup 1 setups, 2 configured, default yes>"


async def test_configured_setups_have_a_bound(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(local_setup, "CONFIGURED_MAX", 2)
    setups = LocalSetup({"a": version("a", "file")})
    for setup_id in ("a", "b"):
        setups.put(version(setup_id))
    await names(setups, "a")
    setups.put(version("c"))
    assert await names(setups, "a", "c") == ["configured", "configured"]
    with pytest.raises(SetupNotFoundError):
        await setups.get_setup("b", "m")
    setups.put(version("d"))
    assert await names(setups, "a", "c", "d") == ["file", "configured", "configured"]
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", f"setup '{setup_id}', configured here, is forgotten: more than 2 were configured")
        for setup_id in ("b", "a")
    ]
