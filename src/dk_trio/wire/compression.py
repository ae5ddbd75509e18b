"""Message compression: one gRPC message in, one out, its size bounded before memory is spent.

gRPC compresses each message on its own (gRPC "compression" document), so there is no state here. A message must be
exactly one compressed stream: data after its end is an error, as in gRPC core, which therefore also refuses gzip files
of several members.
"""

from __future__ import annotations

import zlib

IDENTITY = "identity"

# zlib's window bits select the container: 15 is zlib (which gRPC calls "deflate"), 16 more is gzip.
_WINDOW_BITS = {"gzip": 31, "deflate": 15}

# zlib's own default, which is also gRPC core's.
COMPRESSION_LEVEL = 6

ENCODINGS = (IDENTITY, "gzip", "deflate")
"""The encodings we can read and write, as advertised in `grpc-accept-encoding`."""


class MessageTooLarge(ValueError):
    """A message is longer than `limit` bytes; `size` is its length, or None when that was not found out."""

    def __init__(self, limit: int, size: int | None = None) -> None:
        self.limit = limit
        self.size = size
        what = "decompressed message is" if size is None else f"message of {size} bytes is"
        super().__init__(f"{what} larger than the limit of {limit} bytes")


class DecompressionError(ValueError):
    """Bytes are not one whole message in `encoding`."""

    def __init__(self, encoding: str, reason: str) -> None:
        self.encoding = encoding
        self.reason = reason
        super().__init__(f"bad {encoding} message: {reason}")


class UnknownEncodingError(ValueError):
    """An encoding that is not one of `ENCODINGS`."""

    def __init__(self, encoding: str) -> None:
        self.encoding = encoding
        super().__init__(f"message encoding {encoding!r} is not supported; known are {', '.join(ENCODINGS)}")


def compress(encoding: str, data: bytes) -> bytes:
    """Compress one message. The same bytes always give the same bytes (no time stamp in gzip).

    Raises:
        UnknownEncodingError: `encoding` is not one of `ENCODINGS`.
    """
    if encoding == IDENTITY:
        return data
    bits = _WINDOW_BITS.get(encoding)
    if bits is None:
        raise UnknownEncodingError(encoding)
    return zlib.compress(data, COMPRESSION_LEVEL, bits)


def decompress(encoding: str, data: bytes, max_bytes: int) -> bytes:
    """Decompress one message of at most `max_bytes`; never allocates much more than that, whatever the ratio.

    Raises:
        MessageTooLarge: there is more than `max_bytes`.
        DecompressionError: not in that encoding, cut short, or with bytes after its end.
        UnknownEncodingError: `encoding` is not one of `ENCODINGS`.
    """
    if encoding == IDENTITY:
        if len(data) > max_bytes:
            raise MessageTooLarge(max_bytes, len(data))
        return data
    bits = _WINDOW_BITS.get(encoding)
    if bits is None:
        raise UnknownEncodingError(encoding)
    inflater = zlib.decompressobj(bits)
    try:
        # One byte over the limit proves the excess without inflating it.
        message = inflater.decompress(data, max_bytes + 1)
    except zlib.error as error:
        raise DecompressionError(encoding, str(error)) from None
    if len(message) > max_bytes:
        raise MessageTooLarge(max_bytes)
    if not inflater.eof:
        raise DecompressionError(encoding, "ends in the middle of the compressed stream")
    if inflater.unused_data:
        raise DecompressionError(encoding, f"{len(inflater.unused_data)} bytes after the end of the compressed stream")
    return message
