"""TLS handshakes of a server: bounded in time, and counted by why they fail.

The names of reasons are for statistics and metrics; `HANDSHAKE_FAILURES` lists them with what they mean.
"""

from __future__ import annotations

import logging
import ssl
from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import trio

from .notices import Notices

if TYPE_CHECKING:
    from .peer import Peer

HANDSHAKE_FAILURES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "wrong_ca": "the client's certificate is not signed by an authority of this server",
        "expired": "the client's certificate has expired",
        "not_yet_valid": "the client's certificate is not valid yet; are both clocks right?",
        "bad_certificate": "the client's certificate cannot be used",
        "no_certificate": "the client showed no certificate, and this server wants one",
        "distrusted": "the client does not accept this server's certificate",
        "plaintext": "the client speaks plaintext, and this port is TLS",
        "tls_to_plaintext": "the client speaks TLS, and this port is plaintext",
        "no_common_version": "the client knows no version of TLS, or no cipher, that this server takes",
        "timeout": "the client did not finish its handshake in time",
        "closed": "the client left before the handshake was done",
        "other": "the handshake failed",
    }
)

# Of probes that only connect, and of clients that change their mind: nothing for an operator to mend.
_QUIET: Final = frozenset({"closed", "timeout"})

# OpenSSL's names of errors. What a client thinks of us comes as its alert.
_REASONS: Final = {
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "no_certificate",
    "HTTP_REQUEST": "plaintext",
    "HTTPS_PROXY_REQUEST": "plaintext",
    "WRONG_VERSION_NUMBER": "plaintext",
    "UNSUPPORTED_PROTOCOL": "no_common_version",
    "VERSION_TOO_LOW": "no_common_version",
    "NO_SHARED_CIPHER": "no_common_version",
    "TLSV1_ALERT_UNKNOWN_CA": "distrusted",
    "SSLV3_ALERT_BAD_CERTIFICATE": "distrusted",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "distrusted",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "distrusted",
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": "distrusted",
}
# What a client can do about it.
_ADVICE: Final = {
    "WRONG_VERSION_NUMBER": "is this port plaintext?",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "show it a client certificate",
    "TLSV1_ALERT_UNKNOWN_CA": "show it a client certificate of an authority that it knows",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "show it a client certificate that has not expired",
}
# X509_V_ERR_*: the chain does not end at an authority that we know.
_UNKNOWN_CA: Final = frozenset({2, 18, 19, 20, 21})
_NOT_YET_VALID: Final = 9
_EXPIRED: Final = 10

_log = logging.getLogger("dk_trio.rpc.server")


class Handshakes:
    """Those of one server.

    Attributes:
        failures: How many have failed, by names of `HANDSHAKE_FAILURES`.
        notices: Where connections that were refused are told.
    """

    __slots__ = ("failures", "notices")

    def __init__(self) -> None:
        self.failures: Counter[str] = Counter()
        self.notices = Notices(_log)

    def __repr__(self) -> str:
        return f"<Handshakes, {self.failures.total()} failed>"

    async def done(self, stream: trio.abc.Stream, peer: Peer, timeout: float) -> bool:
        """Shake hands, where the stream has TLS; False when that fails. The stream is good for nothing then."""
        if not isinstance(stream, trio.SSLStream):
            return True
        peer.addr()  # a socket that its peer has closed cannot tell any more
        with trio.move_on_after(timeout):
            try:
                await stream.do_handshake()
            except trio.BrokenResourceError as error:
                self.failed(peer, _reason(error.__cause__), error.__cause__)
                await send_alert(stream)
                return False
            except trio.ClosedResourceError:
                self.failed(peer, "closed")
                return False
            return True
        self.failed(peer, "timeout")
        return False

    def failed(self, peer: Peer, reason: str, cause: BaseException | None = None) -> None:
        """Count one, and tell of its peer. `reason` is one of `HANDSHAKE_FAILURES`."""
        self.failures[reason] += 1
        level = logging.INFO if reason in _QUIET else logging.WARNING
        said = f": {_short(cause)}" if cause is not None and reason not in _QUIET else ""
        text = f"connection from {peer.host()} refused: {HANDSHAKE_FAILURES[reason]}{said} [{reason}]"
        self.notices.say(level, peer.host(), reason, text)


async def send_alert(stream: trio.SSLStream[trio.abc.Stream]) -> None:
    """Tell the peer why. Trio leaves OpenSSL's alert where it is, and the peer would see a lost connection."""
    outgoing: ssl.MemoryBIO | None = getattr(stream, "_outgoing", None)
    if outgoing is not None and outgoing.pending:
        with trio.move_on_after(1.0):
            try:
                await stream.transport_stream.send_all(outgoing.read())
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return


def _reason(cause: BaseException | None) -> str:
    if isinstance(cause, ssl.SSLCertVerificationError):
        code = cause.verify_code
        if code == _EXPIRED:
            return "expired"
        if code == _NOT_YET_VALID:
            return "not_yet_valid"
        return "wrong_ca" if code in _UNKNOWN_CA else "bad_certificate"
    if isinstance(cause, ssl.SSLEOFError) or not isinstance(cause, ssl.SSLError):
        return "closed"
    return _REASONS.get(cause.reason or "", "other")


def _short(cause: BaseException) -> str:
    """OpenSSL's words without the place in its source."""
    return str(getattr(cause, "verify_message", "") or getattr(cause, "reason", "") or cause)


def advice(cause: BaseException | None) -> str:
    """What a client can do about a handshake that has failed, after a semicolon; empty when the error says it."""
    if isinstance(cause, ssl.SSLCertVerificationError):
        return "; name the authority that has signed it" if cause.verify_code in _UNKNOWN_CA else ""
    text = _ADVICE.get(getattr(cause, "reason", None) or "")
    return f"; {text}" if text else ""
