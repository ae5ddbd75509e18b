"""gRPC metadata, timeouts and status messages as header text; nothing about frames or streams.

Everything here is a pure function between what an application holds (a mapping, a number of seconds, a message in any
language) and what one HTTP/2 header field may carry. Rules are those of gRPC's "PROTOCOL-HTTP2" document.

Two choices are ours:

* A name that HTTP/2 or gRPC gives a meaning to is refused on the way out and skipped on the way in, so that a server
  may echo the metadata which it received without getting an error for it. Four `grpc-` names are ordinary metadata in
  practice and pass both ways, see `APPLICATION_GRPC_NAMES`.
* A timeout is rounded *up* to about three digits, as gRPC core does. The peer's deadline is then at most 1 % late. That
  costs nothing, because the client enforces its own; and "5 seconds" is the same bytes in each call, so that header
  compression and the whole-block cache of the receiving side work.
"""

from __future__ import annotations

import re
from binascii import Error as Base64Error
from binascii import a2b_base64, b2a_base64
from collections.abc import Iterable, Mapping
from math import ceil, isnan
from typing import Final

from multidict import MultiDict

Value = str | bytes
MetadataLike = Mapping[str, Value] | Iterable[tuple[str, Value]]

RESERVED_NAMES = frozenset(
    {
        # Call definition: gRPC PROTOCOL-HTTP2, "Requests".
        "te",
        "content-type",
        "user-agent",
        # Connection-specific fields make a message malformed: RFC 9113 section 8.2.2.
        "connection",
        "keep-alive",
        "proxy-connection",
        "transfer-encoding",
        "upgrade",
        # These two would contradict the DATA frames and the :authority: RFC 9113 sections 8.1.1 and 8.3.1.
        "content-length",
        "host",
    }
)

APPLICATION_GRPC_NAMES = frozenset(
    {
        # gRFC A6: servers set the first, applications may read both.
        "grpc-retry-pushback-ms",
        "grpc-previous-rpc-attempts",
        # Trace context of gRPC's census and OpenTelemetry integrations.
        "grpc-trace-bin",
        "grpc-tags-bin",
    }
)

_NAME = re.compile(r"[0-9a-z_.\-]+")
_NOT_ASCII_VALUE = re.compile(r"[^ -~]")
_TIMEOUT = re.compile(r"([0-9]{1,8})([HMSmun])")
MAX_STATUS_MESSAGE_BYTES: Final = 4096
"""Longest status message sent, encoded. C-core's clients drop a call whose trailers are over 8 KiB (its soft limit of
metadata) and report that instead of the status; details and metadata want room too."""
_NOTE_BYTES: Final = 40
_MUST_ESCAPE = re.compile(rb"[^ -$&-~]")
_ESCAPED = re.compile(rb"%([0-9A-Fa-f]{2})")

_SECONDS_PER_UNIT = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_MAX_TIMEOUT_DIGITS = 99_999_999


def _is_reserved(name: str) -> bool:
    if name in RESERVED_NAMES or name.startswith(":"):
        return True
    return name.startswith("grpc-") and name not in APPLICATION_GRPC_NAMES


def encode_metadata(metadata: MetadataLike) -> list[tuple[bytes, bytes]]:
    """Turn application metadata into header fields, in the given order, duplicates kept.

    Names are lower case letters, digits and `_.-`. A name that ends in `-bin` takes `bytes` of any content (sent as
    base64 without padding); every other name takes `str` of printable ASCII. Spaces around a value are dropped: HTTP/2
    forbids them and the gRPC specification lets us.

    Raises:
        ValueError: a name with other characters, a reserved name (`te`, `content-type`, `user-agent`, `grpc-...`,
            `:...`, connection-specific fields), or a value that is not printable ASCII. The text names the key, and the
            offending character but never the whole value, which may be a credential.
        TypeError: `str` for a `-bin` name or `bytes` for any other.
    """
    fields: list[tuple[bytes, bytes]] = []
    for name, value in metadata.items() if isinstance(metadata, Mapping) else metadata:
        if not isinstance(name, str):
            raise TypeError(f"metadata key {name!r} must be str, not {type(name).__name__}")
        if _is_reserved(name):
            raise ValueError(f"metadata key {name!r} is reserved by gRPC or HTTP/2")
        if not _NAME.fullmatch(name):
            raise ValueError(f"metadata key {name!r} must be lower case letters, digits, '_', '.' or '-'")
        if name.endswith("-bin"):
            if not isinstance(value, bytes | bytearray | memoryview):
                raise TypeError(f"metadata {name!r} must be bytes, not {type(value).__name__}: its key ends in '-bin'")
            fields.append((name.encode(), b2a_base64(value, newline=False).rstrip(b"=")))
            continue
        if not isinstance(value, str):
            raise TypeError(
                f"metadata {name!r} must be str, not {type(value).__name__}: only a key ending in '-bin' takes bytes"
            )
        wrong = _NOT_ASCII_VALUE.search(value)
        if wrong is not None:
            raise ValueError(
                f"metadata {name!r} has {wrong.group()!r} at position {wrong.start()}: "
                "only printable ASCII is allowed; use a '-bin' key for anything else"
            )
        fields.append((name.encode(), value.strip(" ").encode()))
    return fields


def _decode_binary(name: str, value: str) -> bytes:
    digits = value.rstrip("=")
    if len(value) - len(digits) > 2:
        raise ValueError(f"metadata {name!r} is not base64: too much padding")
    try:
        return a2b_base64(digits + "=" * (-len(digits) % 4), strict_mode=True)
    except (Base64Error, ValueError) as error:
        raise ValueError(f"metadata {name!r} is not base64: {error}") from None


def decode_metadata(headers: Iterable[tuple[str, str]]) -> MultiDict[Value]:
    """Take the application's metadata out of received header fields, in their order.

    Reserved names are skipped. Values of `-bin` names come back as `bytes`: padded or not, and one entry for each
    comma-joined part. Values which hold anything but printable ASCII are dropped, as the specification allows: they
    could not be echoed.

    Raises:
        ValueError: a `-bin` value that is not base64; the text names the key.
    """
    metadata: MultiDict[Value] = MultiDict()
    for name, value in headers:
        if _is_reserved(name):
            continue
        if name.endswith("-bin"):
            if "," in value:
                for part in value.split(","):
                    metadata.add(name, _decode_binary(name, part.strip(" ")))
            else:
                metadata.add(name, _decode_binary(name, value))
        elif value.isascii() and value.isprintable():
            metadata.add(name, value)
    return metadata


def encode_timeout(seconds: float) -> bytes:
    """Write a timeout for the `grpc-timeout` header; zero or less gives `b"0n"`.

    Rounded up, so never shorter than asked: to a microsecond below 1 ms, to a millisecond below 1 s, to 10 ms below
    10 s, to 100 ms below 100 s, to a second up to 8 digits, then to an hour. Anything longer than 99,999,999 hours,
    infinity too, is that many hours.

    Raises:
        ValueError: not a number.
    """
    if isnan(seconds):
        raise ValueError("timeout must be a number of seconds, not NaN")
    if seconds <= 0:
        return b"0n"
    if seconds < 1e-3:
        if seconds < 1e-6:
            return b"%dn" % ceil(seconds * 1e9)
        return b"%du" % ceil(seconds * 1e6)
    if seconds <= 100:
        milliseconds = ceil(seconds * 1e3)
        if milliseconds > 10_000:
            milliseconds = -(-milliseconds // 100) * 100
        elif milliseconds > 1_000:
            milliseconds = -(-milliseconds // 10) * 10
        if milliseconds % 1_000:
            return b"%dm" % milliseconds
        return b"%dS" % (milliseconds // 1_000)
    if seconds <= _MAX_TIMEOUT_DIGITS:
        return b"%dS" % ceil(seconds)
    hours = seconds / 3600
    return b"%dH" % (ceil(hours) if hours <= _MAX_TIMEOUT_DIGITS else _MAX_TIMEOUT_DIGITS)


def decode_timeout(text: str) -> float:
    """Read a `grpc-timeout` header: seconds, from one to eight ASCII digits and one unit of `HMSmun`.

    Raises:
        ValueError: anything else; the text names the value.
    """
    match = _TIMEOUT.fullmatch(text)
    if match is None:
        raise ValueError(f"grpc-timeout {text!r} is not 1 to 8 digits and one of the units H, M, S, m, u, n")
    return int(match[1]) * _SECONDS_PER_UNIT[match[2]]


def encode_status_message(message: str) -> bytes:
    """Percent-encode a status message (UTF-8) for the `grpc-message` header.

    Lone surrogates become `?`. A space at either end is escaped too, because HTTP/2 forbids it there.
    """
    raw = message.encode("utf-8", "replace")
    if _MUST_ESCAPE.search(raw) is not None:
        raw = _MUST_ESCAPE.sub(lambda match: b"%%%02X" % match[0][0], raw)
    if raw[:1] == b" " or raw[-1:] == b" ":
        body = raw.strip(b" ")
        left = len(raw) - len(raw.lstrip(b" "))
        raw = b"%20" * left + body + b"%20" * (len(raw) - left - len(body))
    return raw


def status_message_field(message: str, limit: int = MAX_STATUS_MESSAGE_BYTES) -> bytes:
    """The value of a `grpc-message` field: the message encoded, cut to `limit` octets with a note of it."""
    encoded = encode_status_message(message[:limit])
    if len(message) <= limit and len(encoded) <= limit:
        return encoded
    # Proportionally, and never more: the note below is longer than what rounding could add.
    kept = min(len(message), limit)
    while len(encoded) > limit - _NOTE_BYTES:
        kept = kept * (limit - _NOTE_BYTES) // len(encoded)
        encoded = encode_status_message(message[:kept])
    return encoded + b"... (%d more characters)" % (len(message) - kept)


def decode_status_message(text: str) -> str:
    """Undo `encode_status_message`; never fails.

    Escapes which are not two hexadecimal digits stay as they are, bytes which are not UTF-8 become U+FFFD.
    """
    if "%" not in text and text.isascii():
        return text
    try:
        raw = text.encode("latin-1")
    except UnicodeEncodeError:
        raw = text.encode("utf-8", "replace")
    return _ESCAPED.sub(lambda match: bytes((int(match[1], 16),)), raw).decode("utf-8", "replace")
