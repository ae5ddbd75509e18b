"""`dk-trio certs`: what it writes, what it keeps, and that the commands it prints are right."""

import json
import re
import shlex
import ssl
import stat
from pathlib import Path

import pytest

from dk_trio.cli._exits import Exit

from .processes import ECHO, beside, here, serving


@pytest.fixture(autouse=True)
def in_a_directory_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def made(*arguments: str) -> str:
    done = here("certs", *arguments)
    assert done.returncode == Exit.OK, done.stderr
    return done.stdout.decode()


def names_of(path: Path) -> set[str]:
    told = ssl._ssl._test_decode_cert(str(path))  # type: ignore[attr-defined]
    return {name for _, name in told["subjectAltName"]}


def test_an_authority_a_server_and_a_client_with_keys_for_their_owner_alone() -> None:
    made("certs")
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in Path("certs").iterdir()}
    assert modes == {
        "ca.key": 0o600,
        "ca.pem": 0o644,
        "client.key": 0o600,
        "client.pem": 0o644,
        "server.key": 0o600,
        "server.pem": 0o644,
    }
    assert stat.S_IMODE(Path("certs").stat().st_mode) == 0o700
    assert {"localhost", "127.0.0.1"} < names_of(Path("certs", "server.pem"))


def test_hosts_clients_and_days() -> None:
    told = made(
        "certs", "--host", "module.mesh", "--host", "10.0.0.7", "--client", "scheduler", "--days", "1", "--json"
    )
    assert [Path(name).name for name in json.loads(told)["files"]] == [
        "ca.pem",
        "ca.key",
        "server.pem",
        "server.key",
        "scheduler.pem",
        "scheduler.key",
    ]
    assert {"module.mesh", "10.0.0.7", "localhost"} < names_of(Path("certs", "server.pem"))
    assert names_of(Path("certs", "scheduler.pem")) == {"scheduler"}
    told_of = ssl._ssl._test_decode_cert("certs/scheduler.pem")  # type: ignore[attr-defined]
    ends, begins = (ssl.cert_time_to_seconds(told_of[name]) for name in ("notAfter", "notBefore"))
    assert ends - begins == 86400 + 300


def test_nothing_is_overwritten_unless_it_is_asked_for_and_the_authority_never() -> None:
    made("certs")
    before = {path.name: path.read_bytes() for path in Path("certs").iterdir()}
    done = here("certs", "certs")
    assert done.returncode == Exit.CONFIGURATION
    assert b"There already: certs/server.pem, certs/server.key, certs/client.pem, certs/client.key." in done.stderr
    assert b"--force replaces them" in done.stderr
    made("certs", "--client", "gateway")  # one more, by the same authority
    assert {path.name: path.read_bytes() for path in Path("certs").iterdir() if path.name in before} == before
    made("certs", "--force")
    after = {path.name: path.read_bytes() for path in Path("certs").iterdir()}
    changed = {name for name, content in before.items() if after[name] != content}
    assert changed == {"server.pem", "server.key", "client.pem", "client.key"}


@pytest.mark.parametrize("name", ["../evil", "ca", "server", "", ".hidden", "a b"])
def test_a_name_that_no_client_may_have(name: str) -> None:
    done = here("certs", "certs", "--client", name)
    assert done.returncode == Exit.USAGE
    assert b"is no name for a client" in done.stderr
    assert not Path("certs").exists()


def test_an_authority_that_is_damaged() -> None:
    made("certs")
    Path("certs", "ca.key").write_text("x")
    done = here("certs", "certs", "--client", "one")
    assert done.returncode == Exit.CONFIGURATION
    assert b"The authority in certs/ca.pem and certs/ca.key cannot be used" in done.stderr


def test_a_place_that_cannot_be_written() -> None:
    Path("file").touch()
    done = here("certs", "file/certs")
    assert done.returncode == Exit.CONFIGURATION
    assert b"Name another directory" in done.stderr
    assert b"Traceback" not in done.stderr


async def test_the_commands_that_it_prints_work() -> None:
    serve, call = (shlex.split(line)[2:] for line in re.findall(r"^  dk-trio .*", made("certs"), re.MULTILINE))
    assert call[0] == "localhost:50055"
    assert serve[0] == "mymodule.py"
    async with serving(ECHO, *serve[1:]) as server:
        address = server.address.replace("127.0.0.1", "localhost")
        done = await beside("call", address, *call[1:])
        assert done.returncode == Exit.OK, done.stderr
        assert json.loads(done.stdout)["status"] == "SERVING"
        done = await beside("call", address, "--ca", "certs/ca.pem", "--health")
        assert done.returncode == 10 + 14
        assert b"CERTIFICATE_REQUIRED" in done.stderr
        await server.wait_for("the client showed no certificate, and this server wants one")
