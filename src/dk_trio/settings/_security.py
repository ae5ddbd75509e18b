"""The layer of security: TLS, tokens and limits per client, as server and as client. Times are in seconds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dk_trio.errors import SettingError

from ._variable import BOOL, choice, number, path, refuse, secret, setting, truth, whole

_SECURITY = "secure or insecure"
_PEM = "the path of a PEM file"
_TOKEN = "a token of printable ASCII characters without spaces"  # noqa: S105  what one is, not one


@dataclass(frozen=True, kw_only=True)
class SecuritySettings:
    """Who may call this server and how, and what this process shows to servers that it calls."""

    server_security: Literal["secure", "insecure"] | None = setting(
        "SERVER_CHANNEL_SECURITY",
        choice("secure", "insecure"),
        expects=_SECURITY,
        about="Whether the server speaks TLS; none: when it has a certificate.",
    )
    tls_cert: Path | None = setting(
        "DIGITALKIN_TLS_CERT",
        path,
        expects=_PEM,
        about="The server's certificate, its chain behind it.",
        aliases=("SERVER_CHANNEL_CREDENTIALS__CERT_PATH",),
    )
    tls_key: Path | None = setting(
        "DIGITALKIN_TLS_KEY",
        path,
        expects=_PEM,
        about="The private key of the server's certificate.",
        aliases=("SERVER_CHANNEL_CREDENTIALS__KEY_PATH",),
    )
    tls_client_ca: Path | None = setting(
        "DIGITALKIN_TLS_CLIENT_CA",
        path,
        expects=_PEM,
        about="Authorities whose certificates clients must show (mTLS); none: clients show none.",
        aliases=("SERVER_CHANNEL_CREDENTIALS__ROOT_CERT_PATH",),
    )
    tls_reload_interval: float = setting(
        "DIGITALKIN_TLS_RELOAD_INTERVAL",
        number(0.1, 86400),
        default=10.0,
        expects="a number of seconds from 0.1 to 86400",
        about="Time between two looks at the files of certificates and tokens; changed ones are loaded.",
    )
    auth_token: str | None = setting(
        "DIGITALKIN_AUTH_TOKEN",
        secret,
        expects=_TOKEN,
        about="Token that callers must show, as `authorization: Bearer TOKEN`.",
        secret=True,
    )
    auth_tokens_file: Path | None = setting(
        "DIGITALKIN_AUTH_TOKENS_FILE",
        path,
        expects="the path of a file",
        about="File of tokens, any of which callers may show: one a line, its name before it.",
    )
    max_connections_per_client: int | None = setting(
        "DIGITALKIN_MAX_CONNECTIONS_PER_CLIENT",
        whole(1, 1_000_000),
        expects="a whole number of connections from 1 to 1000000",
        about="Connections of one client (certificate, else address) at the same time; none: no limit.",
    )
    max_rpcs_per_client: int | None = setting(
        "DIGITALKIN_MAX_RPCS_PER_CLIENT",
        whole(1, 1_000_000),
        expects="a whole number of RPCs from 1 to 1000000",
        about="RPCs of one client (token, else certificate, else address) at the same time; none: no limit.",
    )
    client_security: Literal["secure", "insecure"] | None = setting(
        "DIGITALKIN_CLIENT_SECURITY",
        choice("secure", "insecure"),
        expects=_SECURITY,
        about="Whether calls to others speak TLS; none: when there is a file of DIGITALKIN_CLIENT_CA or _CERT.",
    )
    client_ca: Path | None = setting(
        "DIGITALKIN_CLIENT_CA",
        path,
        expects=_PEM,
        about="Authorities whose certificates servers must show; those of the system when unset.",
    )
    client_cert: Path | None = setting(
        "DIGITALKIN_CLIENT_CERT",
        path,
        expects=_PEM,
        about="The certificate that is shown to servers that ask for one (mTLS).",
    )
    client_key: Path | None = setting(
        "DIGITALKIN_CLIENT_KEY",
        path,
        expects=_PEM,
        about="The private key of the client's certificate.",
    )
    client_token: str | None = setting(
        "DIGITALKIN_CLIENT_TOKEN",
        secret,
        expects=_TOKEN,
        about="Token that is shown to servers, as `authorization: Bearer TOKEN`.",
        secret=True,
    )
    client_token_plaintext: bool = setting(
        "DIGITALKIN_CLIENT_TOKEN_PLAINTEXT",
        truth,
        default=False,
        expects=BOOL,
        about="Whether that token may leave this machine without TLS, where something on the way adds it.",
    )

    @property
    def server_tls(self) -> bool:
        """Whether the server speaks TLS: as it was told, else when it has a certificate."""
        return self.server_security == "secure" or (self.server_security is None and self.tls_cert is not None)

    @property
    def client_tls(self) -> bool:
        """Whether calls to others speak TLS: as was told, else when there is a file for it."""
        given = self.client_ca is not None or self.client_cert is not None
        return self.client_security == "secure" or (self.client_security is None and given)

    def __post_init__(self) -> None:
        """Refuse values that contradict each other, also when a test or a program builds the object itself."""
        refuse(self._contradictions())

    def _contradictions(self) -> Iterator[SettingError]:
        yield from _both("DIGITALKIN_TLS_CERT", self.tls_cert, "DIGITALKIN_TLS_KEY", self.tls_key)
        yield from _both("DIGITALKIN_CLIENT_CERT", self.client_cert, "DIGITALKIN_CLIENT_KEY", self.client_key)
        if self.server_security == "secure" and self.tls_cert is None and self.tls_key is None:
            yield SettingError(
                "SERVER_CHANNEL_SECURITY=secure needs a certificate, and there is none.",
                hint="Set DIGITALKIN_TLS_CERT and DIGITALKIN_TLS_KEY, or unset it for plaintext.",
            )
        if self.tls_client_ca is not None and self.tls_cert is None and self.tls_key is None:
            yield SettingError(
                f"DIGITALKIN_TLS_CLIENT_CA={self.tls_client_ca} asks clients for certificates, but the server has none "
                "of its own.",
                hint="Set DIGITALKIN_TLS_CERT and DIGITALKIN_TLS_KEY, or unset it.",
            )
        for name, given in self._files():
            if given is not None and (self.server_security if "_TLS_" in name else self.client_security) == "insecure":
                switch = "SERVER_CHANNEL_SECURITY" if "_TLS_" in name else "DIGITALKIN_CLIENT_SECURITY"
                yield SettingError(
                    f"{name}={given} is for TLS, and {switch}=insecure switches that off.", hint="Unset one of them."
                )

    def _files(self) -> tuple[tuple[str, Path | None], ...]:
        return (
            ("DIGITALKIN_TLS_CERT", self.tls_cert),
            ("DIGITALKIN_CLIENT_CA", self.client_ca),
            ("DIGITALKIN_CLIENT_CERT", self.client_cert),
        )


def _both(cert_name: str, cert: Path | None, key_name: str, key: Path | None) -> Iterator[SettingError]:
    if (cert is None) != (key is None):
        given, missing = (cert_name, key_name) if key is None else (key_name, cert_name)
        yield SettingError(
            f"{given}={key if cert is None else cert} has no {missing} beside it.",
            hint="Set both, or neither.",
        )
