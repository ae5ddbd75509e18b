"""Files that cannot be used: each is named with its setting and the remedy."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import trustme

from dk_trio.errors import TLSFileError
from dk_trio.security import ClientSecurity, Security
from dk_trio.settings import SecuritySettings

from .kit import Files, expired, write

Break = Callable[[Files], None]


def missing(files: Files) -> None:
    files.server[0].unlink()


def a_directory(files: Files) -> None:
    files.server[0].unlink()
    files.server[0].mkdir()


def swapped(files: Files) -> None:
    cert, key = files.server
    first, second = cert.read_bytes(), key.read_bytes()
    cert.write_bytes(second)
    key.write_bytes(first)


def of_another_pair(files: Files) -> None:
    files.authority.issue_cert("localhost").private_key_pem.write_to_path(files.server[1])


def no_key(files: Files) -> None:
    files.server[1].write_text("not this")


def cut_short(files: Files) -> None:
    cert = files.server[0]
    cert.write_bytes(cert.read_bytes()[:300])


def encrypted(files: Files) -> None:
    files.server[1].write_text("-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIHs\n-----END ENCRYPTED PRIVATE KEY-----\n")


def too_old(files: Files) -> None:
    write(files.folder / "server", expired(files.authority, "localhost"))


def no_authority(files: Files) -> None:
    files.ca.write_text("nothing\n")


@pytest.mark.parametrize(
    ("spoil", "variable", "what", "remedy"),
    [
        (missing, "DIGITALKIN_TLS_CERT", "there is no such file", "dk-trio certs"),
        (a_directory, "DIGITALKIN_TLS_CERT", "Is a directory", "PEM file"),
        (swapped, "DIGITALKIN_TLS_CERT", "there is no certificate in it", "may have been swapped"),
        (of_another_pair, "DIGITALKIN_TLS_KEY", "not the key of the certificate in", "the same request"),
        (no_key, "DIGITALKIN_TLS_KEY", "there is no private key in it", "BEGIN PRIVATE KEY"),
        (cut_short, "DIGITALKIN_TLS_CERT", "", "Make both anew"),
        (encrypted, "DIGITALKIN_TLS_KEY", "encrypted with a password", "openssl pkey"),
        (too_old, "DIGITALKIN_TLS_CERT", "certificate has expired", "put a new certificate there"),
        (no_authority, "DIGITALKIN_TLS_CLIENT_CA", "there is no certificate in it", "as PEM"),
    ],
)
def test_a_file_of_a_server_that_cannot_be_used(
    files: Files, spoil: Break, variable: str, what: str, remedy: str
) -> None:
    settings = files.settings(mutual=True)
    spoil(files)
    with pytest.raises(TLSFileError) as caught:
        Security(settings)
    text = caught.value.text
    assert text.startswith(f"{variable}={files.folder}")
    option = variable.removeprefix("DIGITALKIN").replace("_", "-").lower()
    assert f" (-{option}) cannot be used: " in text
    assert what in text
    assert remedy in text


def test_a_file_of_a_client_that_cannot_be_used(files: Files) -> None:
    settings = files.settings(mutual=True)
    files.client[1].write_text("")
    with pytest.raises(TLSFileError, match=f"^DIGITALKIN_CLIENT_KEY={files.client[1]} .--key. cannot be used"):
        ClientSecurity(settings)
    files.ca.unlink()
    with pytest.raises(
        TLSFileError, match=f"^DIGITALKIN_CLIENT_CA={files.ca} .--ca. cannot be used: there is no such file"
    ):
        ClientSecurity(settings)


def test_a_key_that_may_not_be_read(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = files.settings()

    def refused(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refused)  # root reads everything
    with pytest.raises(TLSFileError) as caught:
        Security(settings)
    assert "it may not be read. Let the user that this process runs as read it" in caught.value.text


def test_a_client_certificate_with_its_chain_is_tried_as_a_client_shows_it(files: Files) -> None:
    """Intermediate authorities stand behind it, as servers that know the root alone need it."""
    between = files.authority.create_child_ca()
    cert, key = write(files.folder / "below", between.issue_cert("worker.mesh"))
    client = ClientSecurity(replace(files.settings(), client_cert=cert, client_key=key))
    assert "TLS" in repr(client)


def risks(files: Files, host: str = "127.0.0.1", **settings: object) -> list[str]:
    return list(Security(replace(files.settings(), **settings)).risks(host))  # type: ignore[arg-type]


def test_a_key_that_everybody_may_read_is_told(files: Files) -> None:
    assert risks(files) == []
    files.server[1].chmod(0o644)
    (told,) = risks(files)
    key = files.server[1]
    assert told == f"DIGITALKIN_TLS_KEY={key} may be read by every user of this machine: `chmod 600 {key}`"


def test_the_end_of_a_certificate_is_told_in_its_last_week(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    security = Security(files.settings())
    expires = security.statistics().certificate_expires
    assert expires is not None
    monkeypatch.setattr(time, "time", lambda: expires - 8 * 86400)
    assert list(security.risks("127.0.0.1")) == []
    monkeypatch.setattr(time, "time", lambda: expires - 3 * 86400)
    assert list(security.risks("127.0.0.1")) == ["the server's certificate expires in 3.0 days"]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "[::1]", "localhost", "127.1.2.3"])
def test_on_loopback_nothing_is_a_risk(files: Files, host: str) -> None:
    assert risks(files, host, tls_cert=None, tls_key=None) == []


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", "module.internal"])
def test_beyond_loopback_plaintext_and_open_doors_are_named(files: Files, host: str) -> None:
    plaintext, open_door = risks(files, host, tls_cert=None, tls_key=None)
    assert f"listening on {host} in plaintext" in plaintext
    assert "read and change what callers send" in plaintext
    assert f"listening on {host} without authentication" in open_door
    assert risks(files, host, tls_client_ca=files.ca) == []
    (only_plaintext,) = risks(files, host, tls_cert=None, tls_key=None, auth_token="k" * 32)
    assert only_plaintext == plaintext


def test_a_server_that_is_told_nothing_has_nothing() -> None:
    security = Security(SecuritySettings())
    assert security.interceptors == []
    assert security.client.interceptors == []
    assert security.client.tls is None
    assert security.listeners([]) == []


def test_two_authorities_in_one_file_are_both_trusted(files: Files) -> None:
    files.ca.write_bytes(files.ca.read_bytes() + trustme.CA().cert_pem.bytes())
    Security(files.settings(mutual=True))
