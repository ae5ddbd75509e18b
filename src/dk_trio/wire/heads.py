"""Header lists of gRPC calls: what a request or a response head says, and whether HTTP/2 and gRPC allow it.

A head is built once from a decoded header list and kept by the bytes of its header block for as long as the dynamic
table stands, so everything that can be known from the fields alone is decided here, once: well-formedness
(RFC 9113 section 8.2 and 8.3), the answers that need no handler, deadline, encodings.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from grpclib.const import Status

from .compression import ENCODINGS
from .metadata import decode_status_message, decode_timeout

Field = tuple[str, str]

CONTENT_TYPE: Final = "application/grpc"
_REQUEST_PSEUDO: Final = frozenset({":method", ":scheme", ":authority", ":path"})
_CONNECTION_FIELDS: Final = frozenset({"connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"})
_BAD_NAME: Final = re.compile(r"[\x00-\x20A-Z:\x7f-\xff]")
_BAD_VALUE: Final = re.compile(r"[\x00\r\n]|\A[ \t]|[ \t]\Z")

_REMEMBERED: Final = 100  # characters of a field of which the verdict is kept
_LENGTH_DIGITS: Final = 18  # as far as 64 bits reach; int() is quadratic, and refuses 4,300 digits by raising

STATUS_BY_HTTP: Final = {
    400: Status.INTERNAL,
    401: Status.UNAUTHENTICATED,
    403: Status.PERMISSION_DENIED,
    404: Status.UNIMPLEMENTED,
    429: Status.UNAVAILABLE,
    431: Status.INTERNAL,
    502: Status.UNAVAILABLE,
    503: Status.UNAVAILABLE,
    504: Status.UNAVAILABLE,
}
"""What an answer means that never reached a gRPC server (gRPC: HTTP to gRPC status code mapping)."""


def malformation(fields: list[Field], pseudo: frozenset[str]) -> str | None:
    """Why RFC 9113 calls this header list malformed, or None. `pseudo` names the pseudo fields that may occur."""
    seen: set[str] = set()
    regular = False
    for name, value in fields:
        if name[:1] == ":":
            if regular:
                return f"pseudo-header field {name!r} after a regular field"
            if name not in pseudo:
                return f"unknown pseudo-header field {name!r}"
            if name in seen:
                return f"repeated pseudo-header field {name!r}"
            seen.add(name)
        else:
            regular = True
        fault = _known_fault(name, value) if len(name) + len(value) <= _REMEMBERED else _fault(name, value)
        if fault is not None:
            return fault
    return None


def _fault(name: str, value: str) -> str | None:
    """What is wrong with a field, wherever it stands."""
    if name[:1] != ":":
        if not name or _BAD_NAME.search(name):
            return f"illegal field name {name!r}"
        if name in _CONNECTION_FIELDS:
            return f"connection-specific field {name!r}"
        if name == "te" and value != "trailers":
            return f"te is {value!r}, only 'trailers' is allowed"
    # C-core sends the spaces at the ends of a status message as they are: gRPC's grammar lets them stand, HTTP/2
    # does not, and a caller needs the status more than the rule.
    if _BAD_VALUE.search(value) and (name != "grpc-message" or _BAD_VALUE.search(value.strip(" "))):
        return f"illegal value of field {name!r}"
    return None


# Of a head that is new because of an id or a deadline, most fields have come before.
_known_fault = lru_cache(maxsize=512)(_fault)


def _content_length(fields: list[Field]) -> int | None:
    """The declared length; -1 for one that is no number, or for two that differ (the list is malformed then)."""
    texts = {value for name, value in fields if name == "content-length"}
    if not texts:
        return None
    text = texts.pop()
    return int(text) if not texts and text.isascii() and text.isdigit() and len(text) <= _LENGTH_DIGITS else -1


def _is_grpc(content_type: str | None) -> bool:
    """True for application/grpc and its +proto form, with any parameters."""
    if content_type is None or not content_type.startswith(CONTENT_TYPE):
        return False
    rest = content_type[len(CONTENT_TYPE) :]
    return rest in {"", "+proto"} or rest[0] == ";" or rest.startswith("+proto;")


class Refusal:
    """An answer that needs no handler: HTTP status, gRPC status, message and extra response fields."""

    __slots__ = ("extra", "http_status", "message", "status")

    def __init__(self, http_status: int, status: Status, message: str, *extra: tuple[bytes, bytes]) -> None:
        self.http_status = http_status
        self.status = status
        self.message = message
        self.extra = extra

    def __repr__(self) -> str:
        return f"<Refusal {self.http_status} {self.status.name} {self.message!r}>"


class RequestHead:
    """The head of a request, decoded and judged.

    `malformed` says why RFC 9113 forbids it (the stream is reset with PROTOCOL_ERROR); `refusal` is the answer for a
    request that HTTP/2 allows and gRPC does not. `timeout` is in seconds. `route` is a place for whoever dispatches
    calls: the lookup of a path is done once for each distinct header block.
    """

    __slots__ = (
        "accept_encodings",
        "authority",
        "content_length",
        "encoding",
        "fields",
        "malformed",
        "metadata",
        "path",
        "refusal",
        "route",
        "timeout",
        "user_agent",
    )

    def __init__(self, fields: list[Field]) -> None:
        self.fields = fields
        first: dict[str, str] = {}
        for name, value in fields:
            first.setdefault(name, value)
        self.path = first.get(":path", "")
        self.authority = first.get(":authority") or first.get("host", "")
        self.user_agent = first.get("user-agent")
        self.content_length = _content_length(fields)
        self.encoding = first.get("grpc-encoding", "identity")
        self.accept_encodings = tuple(e.strip() for e in first.get("grpc-accept-encoding", "").split(",") if e)
        self.timeout: float | None = None
        self.route: object = None
        self.metadata: object = None
        self.refusal: Refusal | None = None
        self.malformed = malformation(fields, _REQUEST_PSEUDO) or self._missing(first)
        if self.malformed is None:
            self.refusal = self._judge(first)

    def __repr__(self) -> str:
        return f"<RequestHead {self.path} {self.malformed or self.refusal or 'ok'}>"

    def _missing(self, first: dict[str, str]) -> str | None:
        if ":method" not in first or ":scheme" not in first or not self.path:
            return "a request needs :method, :scheme and a non-empty :path"
        if self.path[0] != "/" and not (self.path == "*" and first[":method"] == "OPTIONS"):
            return f":path {self.path!r} is not absolute"
        if self.content_length == -1:
            return f"content-length {first['content-length']!r} is not one number"
        return None

    def _judge(self, first: dict[str, str]) -> Refusal | None:
        method = first[":method"]
        if method != "POST":
            return Refusal(405, Status.INTERNAL, f"gRPC calls are POST requests, not {method}", (b"allow", b"POST"))
        content_type = first.get("content-type")
        if not _is_grpc(content_type):
            return Refusal(415, Status.INTERNAL, f"content-type {content_type!r} is not {CONTENT_TYPE}")
        if self.encoding not in ENCODINGS:
            accepted = ",".join(ENCODINGS).encode()
            text = f"grpc-encoding {self.encoding!r} is not one of {', '.join(ENCODINGS)}"
            return Refusal(200, Status.UNIMPLEMENTED, text, (b"grpc-accept-encoding", accepted))
        timeout = first.get("grpc-timeout")
        if timeout is not None:
            try:
                self.timeout = decode_timeout(timeout)
            except ValueError as error:
                return Refusal(200, Status.INTERNAL, str(error))
        return None


_RESPONSE_PSEUDO: Final = frozenset({":status"})
_TRAILER_PSEUDO: Final[frozenset[str]] = frozenset()


class ResponseHead:
    """Response headers, a trailers-only response, or trailers, decoded and judged.

    `http_status` is None in trailers. `status` is the gRPC status, None when the field is absent; `fault` is a status
    and text for a response that is no gRPC response (wrong HTTP status or content-type, unreadable grpc-status).
    """

    __slots__ = (
        "content_length",
        "encoding",
        "fault",
        "fields",
        "http_status",
        "malformed",
        "message",
        "plain_response",
        "plain_trailers",
        "status",
    )

    def __init__(self, fields: list[Field]) -> None:
        self.fields = fields
        first: dict[str, str] = {}
        for name, value in fields:
            first.setdefault(name, value)
        self.content_length = _content_length(fields)
        self.encoding = first.get("grpc-encoding", "identity")
        self.status: Status | None = None
        self.message: str | None = None
        self.fault: tuple[Status, str] | None = None
        self.http_status: int | None = None
        text = first.get(":status")
        self.malformed = malformation(fields, _TRAILER_PSEUDO if text is None else _RESPONSE_PSEUDO)
        if text is not None:
            if self.content_length == -1:
                self.malformed = self.malformed or f"content-length {first['content-length']!r} is not one number"
            if len(text) == 3 and text.isascii() and text.isdigit() and text[0] in "12345":
                self.http_status = int(text)
                if text == "101":
                    self.malformed = self.malformed or "status 101, which HTTP/2 does not have (RFC 9113 section 8.6)"
            else:
                self.malformed = self.malformed or f":status {text!r} is not a status"
        if self.malformed is None:
            self._read_status(first)
            self._judge(first)
        self.plain_response = self._is_plain()
        """Response headers that may come first on any stream, and ask for nothing."""
        self.plain_trailers = self.http_status is None and not self.malformed
        """Trailers that may end any stream."""

    def __repr__(self) -> str:
        return f"<ResponseHead http={self.http_status} status={self.status} {self.malformed or ''}>"

    @property
    def informational(self) -> bool:
        """True for an interim 1xx response, which says nothing about the call."""
        return self.http_status is not None and self.http_status < 200

    def _is_plain(self) -> bool:
        sound = not self.malformed and self.fault is None
        return sound and self.http_status == 200 and self.content_length is None

    def _read_status(self, first: dict[str, str]) -> None:
        code = first.get("grpc-status")
        if code is None:
            return
        try:
            # int() alone would also read "+1", "1_0" and digits of other scripts.
            self.status = Status(int(code) if code.isascii() and code.isdigit() else -1)
        except ValueError:
            self.status = Status.UNKNOWN
            self.message = f"the peer sent grpc-status {code!r}, which is no status"
            return
        message = first.get("grpc-message")
        if message is not None:
            self.message = decode_status_message(message)

    def _judge(self, first: dict[str, str]) -> None:
        if self.http_status is None or self.informational or self.status is not None:
            return
        if self.http_status != 200:
            status = STATUS_BY_HTTP.get(self.http_status, Status.UNKNOWN)
            self.fault = (status, f"HTTP status {self.http_status} instead of a gRPC response")
        elif not (first.get("content-type") or "").startswith(CONTENT_TYPE):
            kind = first.get("content-type")
            self.fault = (Status.UNKNOWN, f"content-type {kind!r} is not {CONTENT_TYPE}")
        elif self.encoding not in ENCODINGS:
            self.fault = (Status.INTERNAL, f"grpc-encoding {self.encoding!r} was not offered")
