"""Who calls, as far as a server has proof of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from dk_trio.rpc.peer import certificate_name

if TYPE_CHECKING:
    from dk_trio import rpc


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who calls.

    Attributes:
        kind: What shows it: a token, a client certificate, that the caller is a module of this very process, or
            nothing.
        name: The token's name, else the first alternative name of the certificate or its common name; empty for
            `process` and `anonymous`.
        host: IP address of the connection; in words where it has none.
        subject: Fields of the client certificate's subject, such as `commonName`; also beside a token.
        alternative_names: Of the client certificate, as `DNS:client.example`, `URI:spiffe://mesh/scheduler`.
    """

    kind: Literal["token", "certificate", "process", "anonymous"]
    name: str = ""
    host: str = ""
    subject: tuple[tuple[str, str], ...] = ()
    alternative_names: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """What limits count by; empty for those that cannot be told apart."""
        if self.kind in {"token", "certificate"}:
            return f"{self.kind} {self.name}"
        return "" if self.kind == "process" else self.host


def identity_of(peer: rpc.Peer, token_name: str | None = None) -> Identity:
    """Who is at the other end of a connection, and has shown a token."""
    if peer.in_process and token_name is None:
        return Identity(kind="process", host=peer.host())
    host = peer.host() if isinstance(peer.addr(), tuple) else ""
    certificate = peer.cert()
    if not certificate:
        return Identity(kind="anonymous" if token_name is None else "token", name=token_name or "", host=host)
    return Identity(
        kind="certificate" if token_name is None else "token",
        name=certificate_name(certificate) if token_name is None else token_name,
        host=host,
        subject=tuple((str(key), str(value)) for row in certificate.get("subject", ()) for key, value in row),
        alternative_names=tuple(f"{kind}:{name}" for kind, name in certificate.get("subjectAltName", ())),
    )
