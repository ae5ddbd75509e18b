"""From PEM files to TLS contexts. What is wrong with a file is told with its name, the setting and the remedy.

A pair that was loaded is used once, in a handshake within memory: that shows what it says and that it is valid now, by
the rules of those who will verify it.
"""

from __future__ import annotations

import ssl
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from dk_trio.errors import TLSFileError

if TYPE_CHECKING:
    from dk_trio.settings import SecuritySettings

_EXPIRED: Final = 10  # X509_V_ERR_CERT_HAS_EXPIRED
_PRIVATE_KEY: Final = b"PRIVATE KEY-----"
_CERTIFICATE: Final = b"-----BEGIN CERTIFICATE-----"
_ENCRYPTED: Final = (b"BEGIN ENCRYPTED PRIVATE KEY", b"Proc-Type: 4,ENCRYPTED")


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """What a certificate says of itself.

    Attributes:
        names: Whom it is for: its alternative names, such as `localhost` and `10.0.0.7`.
        issuer: Who has signed it.
        expires: When it ends, in seconds of `time.time`.
    """

    names: tuple[str, ...]
    issuer: str
    expires: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateFiles:
    """The files of one end of TLS, and the settings that name them.

    Attributes:
        server: Which end.
        cert: The certificate, its chain behind it.
        key: Its private key.
        ca: Authorities of the other end; None: clients are not asked for a certificate, servers need one of the
            system's authorities.
    """

    server: bool
    cert: Path | None
    key: Path | None
    ca: Path | None

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files that there are."""
        return tuple(path for path in (self.cert, self.key, self.ca) if path is not None)

    def load(self) -> tuple[ssl.SSLContext, Certificate | None]:
        """A context for gRPC, with TLS 1.2 at least and ALPN h2, and what its certificate says. Reads the files.

        Raises:
            TLSFileError: One of them cannot be used.
        """
        contents = {path: self._read(path) for path in self.paths}
        if self.server:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        else:
            context = ssl.create_default_context(cafile=None if self.ca is None else self._checked_ca(contents))
        context.set_alpn_protocols(["h2"])
        if self.server and self.ca is not None:
            context.load_verify_locations(self._checked_ca(contents))
            context.verify_mode = ssl.CERT_REQUIRED
        if self.cert is None or self.key is None:
            return context, None
        self._check_pair(contents[self.cert], contents[self.key])
        self._load_pair(context)
        return context, self._tried()

    def _names(self, path: Path) -> tuple[str, str]:
        """Of the variable and of the option."""
        role = "cert" if path == self.cert else "key" if path == self.key else "ca"
        if not self.server:
            return f"DIGITALKIN_CLIENT_{role.upper()}", f"--{role}"
        option = "--tls-client-ca" if role == "ca" else f"--tls-{role}"
        return f"DIGITALKIN_{option.removeprefix('--').replace('-', '_').upper()}", option

    def _refused(self, path: Path, what: str, hint: str) -> TLSFileError:
        variable, option = self._names(path)
        return TLSFileError(f"{variable}={path} ({option}) cannot be used: {what}.", hint=hint)

    def _read(self, path: Path) -> bytes:
        try:
            return path.read_bytes()
        except FileNotFoundError:
            raise self._refused(path, "there is no such file", "`dk-trio certs` makes files to try it with.") from None
        except PermissionError:
            hint = "Let the user that this process runs as read it, and nobody else if it is a key."
            raise self._refused(path, "it may not be read", hint) from None
        except OSError as error:
            raise self._refused(path, f"{error.strerror}", "It must be a PEM file.") from None

    def _checked_ca(self, contents: dict[Path, bytes]) -> str:
        assert self.ca is not None
        try:
            ssl.create_default_context(cafile=str(self.ca))
        except ssl.SSLError as error:
            what = "there is no certificate in it" if _CERTIFICATE not in contents[self.ca] else str(error.reason)
            hint = "It must hold the authority's certificate as PEM, or several, one after the other."
            raise self._refused(self.ca, what, hint) from None
        return str(self.ca)

    def _check_pair(self, cert: bytes, key: bytes) -> None:
        assert self.cert is not None
        assert self.key is not None
        if _CERTIFICATE not in cert:
            hint = "Is it the key? The two files may have been swapped."
            raise self._refused(self.cert, "there is no certificate in it", hint if _PRIVATE_KEY in cert else "")
        if _PRIVATE_KEY not in key:
            hint = "It must hold the private key as PEM, `-----BEGIN PRIVATE KEY-----`."
            raise self._refused(self.key, "there is no private key in it", hint)
        if any(mark in key for mark in _ENCRYPTED):
            # Asked for a password, OpenSSL would read the terminal.
            hint = f"Write it without one: `openssl pkey -in {self.key} -out plain.pem`, readable by its user alone."
            raise self._refused(self.key, "it is encrypted with a password", hint)

    def _load_pair(self, context: ssl.SSLContext) -> None:
        assert self.cert is not None
        assert self.key is not None
        try:
            context.load_cert_chain(self.cert, self.key, password=b"")
        except ssl.SSLError as error:
            if error.reason in {"KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH"}:
                what = f"it is not the key of the certificate in {self.cert}"
                raise self._refused(self.key, what, "Both must come from the same request.") from None
            reason = error.reason or "it cannot be read as PEM"
            raise self._refused(self.cert, f"{reason} (with the key in {self.key})", "Make both anew.") from None

    def _tried(self) -> Certificate:
        """Use the pair once. The certificate is its own authority here: only what it says itself counts.

        Raises:
            TLSFileError: It is not valid now.
        """
        assert self.cert is not None
        judge = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT if self.server else ssl.PROTOCOL_TLS_SERVER)
        holder = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if self.server else ssl.PROTOCOL_TLS_CLIENT)
        judge.check_hostname = holder.check_hostname = False
        judge.verify_mode, holder.verify_mode = ssl.CERT_REQUIRED, ssl.CERT_NONE
        judge.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        judge.load_verify_locations(self.cert)
        for context in (holder, judge):  # a server has to have one, too
            self._load_pair(context)
        ours, theirs = ssl.MemoryBIO(), ssl.MemoryBIO()
        asked = judge.wrap_bio(ours, theirs, server_side=not self.server)
        shown = holder.wrap_bio(theirs, ours, server_side=self.server)
        try:
            for end in (shown, asked) * 3:
                try:
                    end.do_handshake()
                except ssl.SSLWantReadError:
                    continue
        except ssl.SSLCertVerificationError as error:
            hint = "Is the clock of this machine right?"
            if error.verify_code == _EXPIRED:
                hint = "Those who are asked to trust it will not: put a new certificate there, with its key."
            raise self._refused(self.cert, error.verify_message, hint) from None
        told: dict[str, Any] = asked.getpeercert() or {}
        return Certificate(
            names=tuple(str(name) for _, name in told.get("subjectAltName", ())),
            issuer=", ".join(f"{key}={value}" for row in told.get("issuer", ()) for key, value in row),
            expires=ssl.cert_time_to_seconds(told["notAfter"]) if "notAfter" in told else float("inf"),
        )

    def exposed_key(self) -> str:
        """What is wrong with who may read the key; empty when nothing is."""
        return "" if self.key is None else exposed(self.key, self._names(self.key)[0])


def exposed(path: Path, variable: str) -> str:
    """What is wrong with who may read a secret file; empty when nothing is, or it is gone."""
    try:
        if not path.stat().st_mode & stat.S_IROTH:
            return ""
    except OSError:
        return ""
    return f"{variable}={path} may be read by every user of this machine: `chmod 600 {path}`"


def server_files(settings: SecuritySettings) -> CertificateFiles | None:
    """The files of a server; None without TLS."""
    if not settings.server_tls:
        return None
    return CertificateFiles(server=True, cert=settings.tls_cert, key=settings.tls_key, ca=settings.tls_client_ca)


def client_files(settings: SecuritySettings) -> CertificateFiles | None:
    """The files of a client; None without TLS."""
    if not settings.client_tls:
        return None
    return CertificateFiles(server=False, cert=settings.client_cert, key=settings.client_key, ca=settings.client_ca)
