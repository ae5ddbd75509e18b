"""`dk-trio certs`: an authority of one's own, and certificates that it has signed, to try TLS and mTLS with."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from ._exits import Exit
from ._output import json_option, write_line

if TYPE_CHECKING:
    import trustme

_LOCAL: Final = ("localhost", "127.0.0.1", "::1")
_SERVER: Final = "server"
_AUTHORITY: Final = "ca"

_NEXT: Final = """
Serve with TLS, for clients that show a certificate of this authority:

  dk-trio serve mymodule.py --tls-cert {server}.pem --tls-key {server}.key --tls-client-ca {authority}.pem

Call it:

  dk-trio call localhost:50055 --ca {authority}.pem --cert {client}.pem --key {client}.key --health

The same for modules and providers that call others, as environment:

  DIGITALKIN_CLIENT_CA={authority}.pem DIGITALKIN_CLIENT_CERT={client}.pem DIGITALKIN_CLIENT_KEY={client}.key

Rotate the certificates of a server that runs: dk-trio certs {directory} --force"""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Order:
    """A certificate to make: the stem of its files, and whom it is for."""

    path: Path
    names: tuple[str, ...]


@click.command(
    epilog="""\b
Examples:
  dk-trio certs certs
  dk-trio certs certs --host module.internal --host 10.0.0.7
  dk-trio certs certs --client scheduler --client gateway

The server's certificate is always for localhost, too. The authority is made once and used again afterwards, so one more
client can be added later; delete the directory for another authority. Keys are readable by their owner alone. This is
for development and for tests: whoever has ca.key can make certificates that all of yours trust.
"""
)
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--host", "hosts", multiple=True, metavar="NAME", help="Name or address of a server; may be repeated.")
@click.option("--client", "clients", multiple=True, metavar="NAME", help="Name of a client; may be repeated.")
@click.option(
    "--days",
    type=click.IntRange(min=1, max=3650),
    default=365,
    show_default=True,
    help="How long the certificates are valid.",
)
@click.option("--force", is_flag=True, help="Replace certificates that are there.")
@json_option
def command(
    *, directory: Path, hosts: tuple[str, ...], clients: tuple[str, ...], days: int, force: bool, as_json: bool
) -> int:
    """Make an authority, a server's certificate and clients' certificates, to try TLS with."""
    from dk_trio.errors import ConfigurationError

    try:
        orders = [*_orders(directory, hosts, clients)]
        _refuse_to_overwrite(orders, force=force)
        written = _make(directory, orders, days)
    except OSError as error:
        raise ConfigurationError(
            f"{error.filename or directory} cannot be written: {error.strerror}.", hint="Name another directory."
        ) from None
    if as_json:
        write_line({"directory": str(directory), "files": [str(path) for path in written]})
        return Exit.OK
    for path in written:
        click.echo(str(path))
    client = next((order.path for order in orders if order.path.name != _SERVER), directory / "client")
    click.echo(
        _NEXT.format(directory=directory, server=directory / _SERVER, authority=directory / _AUTHORITY, client=client)
    )
    return Exit.OK


def _orders(directory: Path, hosts: Sequence[str], clients: Sequence[str]) -> Iterator[_Order]:
    """What is to be made. Whoever adds a client keeps the server's certificate; whoever names a host, the clients'."""
    server = directory / _SERVER
    fresh = not _files_of(server)[0].exists()
    if fresh or hosts or not clients:
        own = socket.gethostname()
        names = [*hosts, *_LOCAL, *([own] if _is_name(own) else [])]
        yield _Order(path=server, names=tuple(dict.fromkeys(names)))
    for name in clients or (["client"] if fresh or not hosts else []):
        if not _is_name(name) or name in {_SERVER, _AUTHORITY}:
            raise click.BadParameter(
                f"{name!r} is no name for a client: letters, digits, dots and hyphens.", param_hint="--client"
            )
        yield _Order(path=directory / name, names=(name,))


def _is_name(text: str) -> bool:
    return bool(text) and text.isascii() and text.replace("-", "").replace(".", "").isalnum() and text[0].isalnum()


def _files_of(path: Path) -> tuple[Path, Path]:
    return path.with_name(f"{path.name}.pem"), path.with_name(f"{path.name}.key")


def _refuse_to_overwrite(orders: Sequence[_Order], *, force: bool) -> None:
    there = [str(file) for order in orders for file in _files_of(order.path) if file.exists()]
    if there and not force:
        from dk_trio.errors import ConfigurationError

        raise ConfigurationError(
            f"There already: {', '.join(there)}.",
            hint="--force replaces them, which is also how a server that runs gets new ones; --client NAME adds one.",
        )


def _make(directory: Path, orders: Sequence[_Order], days: int) -> list[Path]:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    authority, written = _authority(directory)
    now = datetime.now(UTC)
    for order in orders:
        try:
            leaf = authority.issue_cert(
                *order.names,
                common_name=order.names[0],
                not_before=now - timedelta(minutes=5),  # for clocks that are not quite the same
                not_after=now + timedelta(days=days),
            )
        except ValueError as error:
            raise click.BadParameter(f"{order.names} cannot be certified: {error}.", param_hint="--host") from None
        chain = b"".join(pem.bytes() for pem in leaf.cert_chain_pems)
        written += _write_pair(order.path, chain, leaf.private_key_pem.bytes())
    return written


def _authority(directory: Path) -> tuple[trustme.CA, list[Path]]:
    """The authority of the directory, made if there is none, and the files that were written for it."""
    from dk_trio.errors import MissingPackageError, TLSFileError

    try:
        import trustme
    except ImportError as error:
        raise MissingPackageError(
            f"`dk-trio certs` needs the package trustme, which cannot be imported: {error}.",
            hint="Install the extra: pip install 'dk-trio[tls]'.",
        ) from error
    path = directory / _AUTHORITY
    cert, key = _files_of(path)
    if cert.exists() and key.exists():
        try:
            return trustme.CA.from_pem(cert.read_bytes(), key.read_bytes()), []
        except ValueError as error:
            raise TLSFileError(
                f"The authority in {cert} and {key} cannot be used: {error}.",
                hint="Delete both for another one; certificates of the old one are worth nothing then.",
            ) from None
    authority = trustme.CA(organization_name="dk-trio certs", organization_unit_name=f"for development, {directory}")
    return authority, _write_pair(path, authority.cert_pem.bytes(), authority.private_key_pem.bytes())


def _write_pair(path: Path, cert: bytes, key: bytes) -> list[Path]:
    """Each file appears whole, so a server that looks at it now sees the old one or the new one."""
    files = _files_of(path)
    for file, content, mode in zip(files, (cert, key), (0o644, 0o600), strict=True):
        part = file.with_name(f".{file.name}.part")
        part.unlink(missing_ok=True)
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as out:
            out.write(content)
        part.replace(file)
    return list(files)
