"""Whose fault it was, on the wire.

`PeerError` is the peer's: the connection ends with GOAWAY. `LocalError` is ours or our caller's: the API was used in a
way the protocol has no frame for. A fault that concerns one stream only never raises: the stream is reset, or its call
answered, and the connection goes on.
"""

from __future__ import annotations

from .frames import error_name


class WireError(Exception):
    """Base of everything this package raises on its own."""


class PeerError(WireError):
    """The peer broke HTTP/2 or one of the abuse limits; the connection cannot go on.

    `code` is the HTTP/2 error code that the queued GOAWAY carries, `reason` its debug text.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{error_name(code)}: {reason}")
        self.code = code
        self.reason = reason


class PrefaceError(PeerError):
    """The client does not begin as HTTP/2 does. `tls` says that it begins as TLS does."""

    def __init__(self, code: int, reason: str, *, tls: bool) -> None:
        super().__init__(code, reason)
        self.tls = tls


class LocalError(WireError):
    """This side asked for something that the state of the connection or stream does not allow."""
