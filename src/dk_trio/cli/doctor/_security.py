"""Whether the files of TLS and tokens can be used, and for how long."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from dk_trio.errors import ConfigurationError

from ._finding import Finding, fail, ok, warn

if TYPE_CHECKING:
    from dk_trio.security.certificates import CertificateFiles
    from dk_trio.settings import SecuritySettings

_DAY: Final = 86400.0
_SOON: Final = 30  # days


def security(settings: SecuritySettings) -> Iterator[Finding]:
    """Both ends of TLS as they would be loaded, and the tokens. Blocks: reads files."""
    from dk_trio.security.certificates import client_files, server_files

    for end, files in (("server", server_files(settings)), ("client", client_files(settings))):
        if files is None:
            yield ok(f"As {end}: no TLS.")
        else:
            yield from _loaded(end, files)
    if settings.auth_tokens_file is not None:
        from dk_trio.security.tokens import read_tokens, weak

        try:
            tokens = read_tokens(settings.auth_tokens_file)
        except ConfigurationError as error:
            yield fail(error.message, error.hint)
            return
        if not tokens:
            yield warn(f"{settings.auth_tokens_file} has no token, so it lets nobody in.", "Write one on a line.")
        elif short := weak(tokens):
            yield warn(f"Tokens that can be guessed: {', '.join(short)}.", "Take 16 random characters or more.")
        else:
            yield ok(f"{settings.auth_tokens_file} has {len(tokens)} tokens.", tokens=len(tokens))


def _loaded(end: str, files: CertificateFiles) -> Iterator[Finding]:
    try:
        _, certificate = files.load()
    except ConfigurationError as error:
        yield fail(f"As {end}: {error.message}", error.hint)
        return
    if exposed := files.exposed_key():
        text, _, remedy = exposed.partition(": ")
        yield warn(f"{text}.", f"{remedy[:1].upper()}{remedy[1:]}.")
    if certificate is None:
        yield ok(f"As {end}: TLS, without a certificate of its own.")
        return
    days = (certificate.expires - time.time()) / _DAY
    names = ", ".join(certificate.names) or "nobody"
    text = f"As {end}: a certificate for {names}, by {certificate.issuer}, which ends in {days:.0f} days."
    facts = {"names": list(certificate.names), "issuer": certificate.issuer, "days_left": round(days, 1)}
    if days < _SOON:
        yield warn(text, "Put a new one in its place: a server that runs loads it by itself.", **facts)
    else:
        yield ok(text, **facts)
