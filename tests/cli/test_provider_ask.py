"""`dk-trio provider ask`, `put-setup`, `get-setup`: words to requests, replies to JSON, and errors that name fields."""

import json
import os
import subprocess
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import trio
from click.testing import CliRunner
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from dk_trio.cli import commands
from dk_trio.cli._exits import Exit
from dk_trio.cli.provider._contract import all_methods, describe, find
from dk_trio.cli.provider._json import FieldError, from_json, to_json
from dk_trio.cli.provider.setups import _checked, _put
from dk_trio.pb.agentic_mesh_protocol.filesystem.v1 import DeleteFilesResponse, FileResult
from dk_trio.pb.agentic_mesh_protocol.setup.v1 import (
    CreateSetupResponse,
    CreateSetupVersionResponse,
    GetSetupResponse,
    ListSetupsResponse,
    SearchSetupVersionsResponse,
    Setup,
    SetupStatus,
    SetupVersion,
)
from dk_trio.pb.google.protobuf import Struct
from dk_trio.pb.google.rpc import RetryInfo

from .processes import beside, here, outputs_of, provider_here, started


@pytest.mark.parametrize(
    "text",
    [
        "storage.StoreRecord",
        "StorageService/StoreRecord",
        "storage/StoreRecord",
        "StoreRecord",
        "/agentic_mesh_protocol.storage.v1.StorageService/StoreRecord",
        "agentic_mesh_protocol.storage.v1.StorageService.StoreRecord",
    ],
)
def test_a_method_has_many_names(text: str) -> None:
    assert find(text).short == "storage.StoreRecord"


@pytest.mark.parametrize("text", ["PutUserProfile", "/dk_trio.provider.v1.ProviderService/PutUserProfile"])
def test_a_method_beside_the_contract_is_found(text: str) -> None:
    assert find(text).short == "provider.PutUserProfile"


def test_every_method_is_listed_described_and_found_by_its_short_name() -> None:
    methods = list(all_methods())
    listed = CliRunner().invoke(commands, ["provider", "ask", "--list"]).output
    assert len(methods) == 57  # those of the contract, and our own
    for method in methods:
        assert method.short in listed
        assert find(method.short) == method
        assert method.request.__name__ in describe(method)


def test_a_description_tells_types_rules_and_enums() -> None:
    told = CliRunner().invoke(commands, ["provider", "ask", "--describe", "filesystem.UpdateFile"]).output
    assert 'file_id       text         Id of the file.  [required; pattern="^files:.*$"]' in told
    assert "content       base64" in told
    assert "FILE_STATUS_ARCHIVED     Kept, out of the way." in told


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "Name one method"),
        (["127.0.0.1:1"], "Name one method"),
        (["a.b", "{}", "{}"], "3 words stand after the address"),
        (["GetSetup"], "Write setup.GetSetup or registry.GetSetup."),
        (["setup.CreatSetup"], "Did you mean setup.CreateSetup"),
        (["storag.StoreRecord"], "Did you mean storage?"),
        (["Nonsense"], "--list` shows all"),
        (["storage.StoreRecord", "{"], "is not JSON"),
        (["storage.StoreRecord", "[]"], "holds a list"),
        (["storage.StoreRecord", "@nowhere.json"], "nowhere.json cannot be read"),
        (["storage.StoreRecord", '{"recordid": "a"}'], "Did you mean 'record_id'? `--describe"),
        (["127.0.0.1:99999", "ListSetups"], "'99999' is not a port"),
        (["localhost", "ListSetups"], "'localhost' before the method is no address. Write HOST:PORT"),
        (["ListSetups", '{"limit": ' + "9" * 5000 + "}"], "holds a whole number of more than 4300 digits"),
    ],
)
def test_words_that_are_no_request(words: list[str], told: str) -> None:
    result = CliRunner().invoke(commands, ["provider", "ask", *words])
    assert result.exit_code == Exit.USAGE
    assert told in " ".join(result.output.split())


@pytest.mark.parametrize(
    ("method", "data", "told"),
    [
        ("StoreRecord", {"data": [1]}, "data: expected a JSON object, got [1]"),
        ("StoreRecord", {"data_type": "OUTPUTS"}, "data_type: expected one of UNSPECIFIED, OUTPUT, VIEW"),
        ("StoreRecord", {"record_id": 3}, "record_id: expected a text, got 3"),
        ("StoreRecord", {"record_id": "a", "recordId": "b"}, "recordId: given twice"),
        ("UploadFiles", {"files": [{"name": "a"}, {"content": "?"}]}, "files[1].content: expected base64, got '?'"),
        ("UploadFiles", {"files": {"name": "a"}}, "files: expected a list of UploadFileData"),
        ("GetCosts", {"limit": 2**31}, "limit: expected a whole number from -2147483648 to 2147483647"),
        ("GetCosts", {"limit": 1.5}, "limit: expected a whole number"),
        ("GetCosts", {"limit": "ten"}, "limit: expected a whole number from -2147483648 to 2147483647, got 'ten'"),
        ("AddCost", {"rate": "much"}, "rate: expected a number, got 'much'"),
        ("AddCost", {"rate": True}, "rate: expected a number, got True"),
        ("GetFile", {"include_content": 1}, "include_content: expected true or false, got 1"),
        ("SendSignals", {"tasks": [{"created_at": "today"}]}, "tasks[0].created_at: expected a time such as 2026-"),
        ("SendSignals", {"tasks": [{"created_at": "2026-01-31T12:00:00"}]}, "tasks[0].created_at: expected a time"),
        (
            "SendSignals",
            {"tasks": [{"created_at": "9999-12-31T23:59:59-01:00"}]},
            "tasks[0].created_at: expected a time",
        ),
        ("SendSignals", {"tasks": ["t"]}, "tasks[0]: expected an object with the fields of Task, got 't'"),
    ],
)
def test_a_value_that_its_field_cannot_have(method: str, data: dict[str, Any], told: str) -> None:
    with pytest.raises(FieldError) as caught:
        from_json(find(method).request, data)
    assert str(caught.value).startswith(told)


@pytest.mark.parametrize(
    ("method", "data"),
    [
        ("StoreRecord", {"recordId": "r", "data": {"a": [1, None, {"b": True}]}, "dataType": "output"}),
        ("UploadFiles", {"files": [{"content": "-_8", "fileType": "IMAGE", "replace_if_exists": True}]}),
        ("UploadFiles", {"files": [{"content": "+/8=", "file_type": "FILE_TYPE_IMAGE", "replaceIfExists": True}]}),
        ("GetFiles", {"filters": {"minSizeBytes": "9007199254740993", "created_after": "2026-01-31T12:00:00.5+01:00"}}),
        ("GetCosts", {"limit": 10.0, "filter": {"costTypes": ["TIME", 3]}, "offset": None}),
    ],
)
def test_what_goes_in_comes_out_again(method: str, data: dict[str, Any]) -> None:
    cls = find(method).request
    message = from_json(cls, data)
    again = from_json(cls, json.loads(json.dumps(to_json(message))))
    assert bytes(again) == bytes(message) != b""
    assert cls.parse(bytes(message)) == message


async def ask(address: str, *words: str, stdin: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
    command, *rest = words
    return await beside("provider", command, address, *rest, stdin=stdin)


def test_a_text_with_half_a_character_is_refused() -> None:
    half = json.loads('"\\ud800"')
    for method, data, told in (
        ("StoreRecord", {"record_id": half}, "record_id: .* holds half a character"),
        ("StoreRecord", {"data": {"a": half}}, "data: cannot be sent: .*text without UTF-8"),
    ):
        with pytest.raises(FieldError, match=told):
            from_json(find(method).request, data)


def test_kinds_of_fields_that_no_request_has_yet() -> None:
    made = from_json(DeleteFilesResponse, {"results": {"files:a": True, "files:b": False}})
    assert made.results == {"files:a": True, "files:b": False}
    with pytest.raises(FieldError, match="results: expected an object, got"):
        from_json(DeleteFilesResponse, {"results": [True]})
    with pytest.raises(FieldError, match=r"results\['files:a'\]: expected true or false"):
        from_json(DeleteFilesResponse, {"results": {"files:a": "yes"}})
    with pytest.raises(FieldError, match="error: only one of 'file' and 'error' may be given"):
        from_json(FileResult, {"file": {}, "error": "e"})
    assert from_json(RetryInfo, {"retry_delay": "1.5s"}).retry_delay == timedelta(seconds=1.5)
    with pytest.raises(FieldError, match=r"retry_delay: expected a duration such as 1\.5s"):
        from_json(RetryInfo, {"retry_delay": "soon"})


async def test_a_profile_is_put_by_the_shell() -> None:
    profile = {
        "user_id": "users:u",
        "locale": "fr",
        "credits": [{"total": "5", "remaining": 2.5}],
        "metadata": {"n": 3},
    }
    request = json.dumps({"mission_id": "missions:m", "user_profile": profile})
    async with provider_here() as address:
        for replaced in (False, True):
            done = await ask(address, "ask", "PutUserProfile", "-", stdin=request.encode())
            assert outputs_of(done.stdout) == [{"replaced": replaced}]
        (told,) = outputs_of((await ask(address, "ask", "GetUserProfile", '{"mission_id": "m"}')).stdout)
        (credit,) = told["user_profile"].pop("credits")
        assert (credit["total"], credit["remaining"]) == ("5", 2.5)
        assert {name: told["user_profile"][name] for name in profile if name != "credits"} == {
            "user_id": "users:u",
            "locale": "fr",
            "metadata": {"n": 3},
        }


async def test_setups_are_put_and_got_by_the_shell(tmp_path: Path) -> None:
    async with provider_here(validate="strict") as address:
        new = '{"name": "quotes", "module_id": "modules:m", "content": {"prefix": "> "}}'
        (made,) = outputs_of((await ask(address, "put-setup", new)).stdout)
        assert made["version"] == "1"

        got = (await ask(address, "get-setup", made["setup_id"])).stdout
        (setup,) = outputs_of(got)
        assert setup["content"] == {"prefix": "> "}
        assert setup["status"] == "READY"
        (same,) = outputs_of((await ask(address, "put-setup", "-", stdin=got)).stdout)
        assert same == made

        file = tmp_path / "quotes.json"
        file.write_text(new.replace("> ", ">> "))
        (second,) = outputs_of((await ask(address, "put-setup", str(file))).stdout)
        assert second["setup_id"] == made["setup_id"]
        assert second["version"] == "2"
        (current,) = outputs_of((await ask(address, "get-setup", made["setup_id"])).stdout)
        assert current["content"] == {"prefix": ">> "}
        (first,) = outputs_of((await ask(address, "get-setup", made["setup_id"], "--version", "1")).stdout)
        assert first["content"] == {"prefix": "> "}

        unknown = await ask(address, "get-setup", "setups:nobody")
        assert unknown.returncode == 15
        assert b"NOT_FOUND" in unknown.stderr
        assert b"setups:nobody" in unknown.stderr


async def test_a_setup_is_put_under_the_id_that_it_names(tmp_path: Path) -> None:
    async with provider_here(validate="strict") as address:
        for content in ('{"prefix": "> "}', '{"prefix": ">> "}'):
            demo = f'{{"id": "setups:demo", "module_id": "modules:m", "content": {content}}}'
            (made,) = outputs_of((await ask(address, "put-setup", demo)).stdout)
            assert made["setup_id"] == "setups:demo"
        (setup,) = outputs_of((await ask(address, "get-setup", "setups:demo")).stdout)
        assert (setup["name"], setup["version"], setup["content"]) == ("setups:demo", "2", {"prefix": ">> "})

        other = await ask(address, "put-setup", '{"id": "demo", "module_id": "modules:other", "content": {}}')
        assert other.returncode == Exit.USAGE
        assert b"setups:demo is a setup of modules:m, and cannot become one of modules:other" in other.stderr

        file = tmp_path / "of-serve.json"
        file.write_text('{"setups:a": {"prefix": "a"}, "setups:b": {"content": {"prefix": "b"}, "version": "x"}}')
        both = outputs_of((await ask(address, "put-setup", str(file), "--module-id", "modules:m")).stdout)
        assert [(row["setup_id"], row["version"]) for row in both] == [("setups:a", "1"), ("setups:b", "x")]


async def test_a_setup_is_found_by_its_name_on_any_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dk_trio.cli.provider.setups._PAGE", 1)
    async with provider_here() as address:
        for version in ("1", "2"):
            for name in ("a", "b", "c"):
                new = f'{{"name": "{name}", "module_id": "modules:m", "content": {{"n": {version}}}}}'
                (row,) = outputs_of((await ask(address, "put-setup", new)).stdout)
                assert row["version"] == version


async def test_a_setup_needs_a_module_and_may_be_without_a_version() -> None:
    async with provider_here() as address:
        none = await ask(address, "put-setup", '{"name": "a", "content": {}}')
        assert none.returncode == Exit.USAGE
        assert b"module_id: must be set for a new setup" in none.stderr
        wrong = await ask(address, "put-setup", '{"name": 3, "module_id": "modules:m", "content": {}}')
        assert wrong.returncode == Exit.USAGE
        assert b"name: expected a text, got 3" in wrong.stderr
        request = '{"name": "bare", "module_id": "modules:m"}'
        (made,) = outputs_of((await ask(address, "ask", "CreateSetup", request)).stdout)
        (got,) = outputs_of((await ask(address, "get-setup", made["setup"]["id"])).stdout)
        assert (got["name"], "content" in got) == ("bare", False)


async def test_a_setup_that_is_refused_leaves_nothing_behind() -> None:
    async with provider_here() as address:
        for rest in ('"content": []', '"content": {}, "status": "BAD"', '"content": {}, "version": "\\u0000"'):
            assert (await ask(address, "put-setup", f'{{"module_id": "m", {rest}}}')).returncode != Exit.OK
        assert outputs_of((await ask(address, "ask", "ListSetups")).stdout) == [{"setups": [], "total_count": 0}]

        (made,) = outputs_of((await ask(address, "put-setup", '{"module_id": "m", "content": {}}')).stdout)
        there = f'"id": "{made["setup_id"]}"'
        worse = await ask(address, "put-setup", f'{{{there}, "content": {{}}, "name": "\\u0000"}}')
        assert b"name must not hold a NUL" in worse.stderr
        (found,) = outputs_of((await ask(address, "ask", "SearchSetupVersions", f'{{"setup_{there[1:]}}}')).stdout)
        assert [row["version"] for row in found["setup_versions"]] == ["1"]


async def test_a_version_that_was_replaced_in_vain_has_its_old_content_again() -> None:
    async with provider_here() as address:
        (made,) = outputs_of((await ask(address, "put-setup", '{"module_id": "m", "content": {"a": 1}}')).stdout)
        before = (await ask(address, "get-setup", made["setup_id"])).stdout
        there = f'"id": "{made["setup_id"]}", "version": "1", "content": {{"a": 2}}'
        worse = await ask(address, "put-setup", f'{{{there}, "name": "\\u0000"}}')
        assert b"name must not hold a NUL" in worse.stderr
        assert (await ask(address, "get-setup", made["setup_id"])).stdout == before

        better = await ask(address, "put-setup", f'{{{there}, "name": "n"}}')
        assert better.returncode == Exit.OK
        (found,) = outputs_of((await ask(address, "get-setup", made["setup_id"])).stdout)
        assert (found["name"], found["version"], found["content"]) == ("n", "1", {"a": 2})


def sender(versions: list[str], fail: Any) -> Any:
    """A provider with one setup, at which all that changes what is there goes to `fail`."""
    version = SetupVersion(id="setup_versions:v", setup_id="setups:s", version="1", content=Struct())
    row = Setup(id="setups:s", name="s", module_id="m", owner_id="o", status=SetupStatus.READY)
    replies = {
        "ListSetups": ListSetupsResponse(),
        "GetSetup": GetSetupResponse(setup=row),
        "CreateSetup": CreateSetupResponse(setup=row),
        "SearchSetupVersions": SearchSetupVersionsResponse(setup_versions=[version] * len(versions)),
        "CreateSetupVersion": CreateSetupVersionResponse(setup_version=version),
    }

    async def send(method: Any, _: Any, each: Any, extra: Any = None) -> None:
        name = method.short.partition(".")[2]
        if name not in replies:
            await fail(name)
        each(replies[name])

    return send


@pytest.mark.parametrize("hangs", [False, True])
@pytest.mark.parametrize(
    ("setup", "versions", "told"),
    [
        ({}, [], "the new setup setups:s is still there. Delete it with DeleteSetup."),
        ({"id": "setups:s"}, [], "the new version setup_versions:v is still there. Delete it with DeleteSetupVersion."),
        ({"id": "setups:s"}, ["1"], "version '1' (setup_versions:v) may have the new content. Put the old one again."),
    ],
    ids=["setup", "version", "content"],
)
async def test_what_cannot_be_undone_is_told(
    setup: dict[str, Any], versions: list[str], told: str, hangs: bool, autojump_clock: Any, capsys: Any
) -> None:
    lost: list[str] = []

    async def fail(name: str) -> None:
        lost.append(name)
        if hangs and len(lost) > 1:
            await trio.sleep_forever()
        raise GRPCError(Status.UNAVAILABLE, "it went away")

    send = sender(versions, fail)
    with pytest.raises(GRPCError, match="went away"):
        await _put(send, _checked({"module_id": "m", "version": "1", "content": {"a": 2}, **setup}))
    assert len(lost) == 2
    why = "no answer within 3 s" if hangs else "UNAVAILABLE: it went away"
    assert capsys.readouterr().err == f"dk-trio: {told} ({lost[1]}: {why})\n"


async def test_of_a_replacement_that_is_refused_nothing_is_undone(capsys: Any) -> None:
    calls: list[str] = []

    async def fail(name: str) -> None:
        calls.append(name)
        raise GRPCError(Status.PERMISSION_DENIED, "not yours")

    with pytest.raises(GRPCError, match="not yours"):
        await _put(sender(["1"], fail), _checked({"id": "setups:s", "module_id": "m", "version": "1", "content": {}}))
    assert (calls, capsys.readouterr().err) == (["UpdateSetupVersion"], "")


async def test_a_file_may_begin_with_a_mark_of_its_encoding(tmp_path: Path) -> None:
    marked = tmp_path / "setup.json"
    marked.write_bytes(b'\xef\xbb\xbf{"module_id": "m", "content": {}}')
    async with provider_here() as address:
        (made,) = outputs_of((await ask(address, "put-setup", str(marked))).stdout)
    assert made["version"] == "1"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["put-setup", "127.0.0.1:1", "{}", "{}"], "One file or JSON object is wanted, and 2 were given."),
        (["get-setup", "127.0.0.1:1", "a", "b"], "One setup id is wanted, and 2 were given."),
    ],
)
def test_too_many_words_about_setups(words: list[str], told: str) -> None:
    result = CliRunner().invoke(commands, ["provider", *words])
    assert result.exit_code == Exit.USAGE
    assert told in " ".join(result.output.split())


async def test_a_provider_that_does_not_know_of_ids_keeps_no_setup_of_another_id(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with provider_here() as address:
        monkeypatch.setattr("dk_trio.cli.provider.setups.SETUP_ID", "x-unknown")
        done = await ask(address, "put-setup", '{"id": "demo", "module_id": "m", "content": {}}')
        assert done.returncode == Exit.CONFIGURATION
        assert b"another id than 'setups:demo'" in done.stderr
        assert outputs_of((await ask(address, "ask", "ListSetups")).stdout) == [{"setups": [], "total_count": 0}]


@pytest.mark.parametrize(
    ("setup", "told"),
    [
        ('{"modul_id": "m", "content": {}}', "modul_id: there is no such field. Did you mean 'module_id'?"),
        ('{"module_id": "m"}', "content: must be set"),
        ('{"setups:a": 3}', "setups:a: expected an object, got 3"),
        ("[]", "holds a list"),
        ('{"module_id": "m", "content": null}', "content: must be set"),
        ('{"id": 3, "content": {}}', "setup_id: must be a text of printable ASCII such as setups:demo, not 3"),
        ('{"id": "setups:", "content": {}}', "setup_id: must be a text"),
        ('{"id": "setups:\u00e9", "content": {}}', "setup_id: must be a text"),
    ],
)
def test_a_setup_that_is_none(setup: str, told: str) -> None:
    result = CliRunner().invoke(commands, ["provider", "put-setup", setup])
    assert result.exit_code == Exit.USAGE
    assert told in " ".join(result.output.split())


async def test_without_an_address_the_provider_of_the_settings_is_asked() -> None:
    async with provider_here() as address:
        done = await beside("provider", "ask", "ListSetups", '{"limit": 1}', DIGITALKIN_PROVIDER=address)
    assert outputs_of(done.stdout) == [{"setups": [], "total_count": 0}]


def test_nobody_answers() -> None:
    done = here("provider", "ask", "127.0.0.1:1", "ListSetups")
    assert done.returncode == 24
    assert done.stderr.startswith(b"dk-trio: 127.0.0.1:1: UNAVAILABLE: ")
    assert len(done.stderr.splitlines()) == 1


async def test_a_disk_that_has_no_room_for_the_output() -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    async with provider_here() as address, started("provider", "ask", address, "ListSetups", stdout=full) as asking:
        assert await asking.wait() == Exit.DEFECT
    os.close(full)
    assert asking.lines["stderr"] == ["dk-trio: the output cannot be written: No space left on device."]
