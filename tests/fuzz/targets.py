"""What is fuzzed. A target takes any bytes and fails only by an exception; its docstring is its invariant.

`python -m tests.fuzz.run server` fuzzes one of them for as long as it is let, guided by coverage, where `atheris` is
installed; `test_targets.py` feeds them from hypothesis in every run of the suite.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import hpack
from tests.wire.conformance import raw

from dk_trio.wire.compression import ENCODINGS, DecompressionError, MessageTooLarge, compress, decompress
from dk_trio.wire.heads import RequestHead, ResponseHead
from dk_trio.wire.hpack import Decoder, HpackError
from dk_trio.wire.metadata import (
    decode_metadata,
    decode_status_message,
    decode_timeout,
    encode_metadata,
    encode_timeout,
    status_message_field,
)

from .wire import Run, Source, as_program, program

Target = Callable[[bytes], None]


def server(octets: bytes) -> None:
    """Whatever a client sends, only PeerError is raised, once; what is held stays bounded, what we write is HTTP/2."""
    Run(octets, client=False).run()


def client(octets: bytes) -> None:
    """Whatever a server sends, only PeerError is raised, once; what is held stays bounded, what we write is HTTP/2."""
    Run(octets, client=True).run()


def header_blocks(octets: bytes) -> None:
    """Blocks are taken and refused as by the hpack package, with the same fields; the table never passes its limit."""
    source = Source(octets)
    ours, theirs = Decoder(max_list_bytes=1 << 30), hpack.Decoder(max_header_list_size=1 << 30)
    bounded = Decoder(max_list_bytes=1000)
    limit = 4096
    while source.left:
        if source.octet() % 8 == 0:
            limit = min(source.octet() * 32, 4096)
            ours.set_limit(limit)
            bounded.set_limit(limit)
            theirs.max_allowed_table_size = limit
        block = source.take(source.octet())
        try:
            expected = [tuple(field) for field in theirs.decode(block, raw=True)]
        except hpack.HPACKError:
            expected = None
        found, reason = None, ""
        try:
            found = ours.decode(block).headers
        except HpackError as error:
            reason = str(error)
        if found is None:
            assert expected is None or "more than two" in reason, f"refused {block.hex()}: {reason}"
            return
        assert expected == [(name.encode("latin-1"), value.encode("latin-1")) for name, value in found], block.hex()
        assert ours.table_bytes <= 4096
        kept = bounded.decode(block).headers
        small = sum(len(name) + len(value) + 32 for name, value in found) <= 1000
        assert (kept == found) if small else (kept is None)
        assert bounded.table_bytes == ours.table_bytes


def heads(octets: bytes) -> None:
    """Any header list is judged without an exception; metadata out of a sound one can be sent again as it is."""
    source = Source(octets)
    fields = []
    while source.left:
        known = source.octet()
        name = NAMES[known % len(NAMES)] if known & 0x80 else source.take(source.octet()).decode("latin-1")
        fields.append((name, source.take(source.octet()).decode("latin-1")))
    ResponseHead(fields)
    request = RequestHead(fields)
    assert request.timeout is None or request.timeout >= 0
    try:
        metadata = decode_metadata(fields)
    except ValueError:
        return
    again = [(name, value) for name, value in metadata.items() if GRPC_NAME.issuperset(name) and name]
    sent = [(name.decode(), value.decode()) for name, value in encode_metadata(again)]
    stripped = [(name, value.strip(" ") if isinstance(value, str) else value) for name, value in again]
    assert list(decode_metadata(sent).items()) == stripped


def texts(octets: bytes) -> None:
    """Timeouts and status messages of any text: ValueError or a number; text that can be sent, and is printable."""
    text = octets.decode("latin-1")
    message = decode_status_message(text)
    field = status_message_field(message)
    assert field.isascii()
    assert len(field) <= 4096
    assert len(message) > 1000 or decode_status_message(field.decode()) == message
    try:
        seconds = decode_timeout(text)
    except ValueError:
        return
    assert 0 <= seconds <= 99_999_999 * 3600
    assert decode_timeout(encode_timeout(seconds).decode()) >= seconds * (1 - 1e-9)


def compressed(octets: bytes) -> None:
    """Octets decompress to at most the limit, as by zlib, or raise DecompressionError or MessageTooLarge."""
    encoding, body = ENCODINGS[1 + (octets[:1] == b"\1")], octets[1:]
    try:
        found = decompress(encoding, body, 10_000)
    except DecompressionError:
        return
    except MessageTooLarge:
        found = decompress(encoding, body, 1 << 30)
        assert len(found) > 10_000
        return
    assert len(found) <= 10_000
    assert found == (zlib.decompress(body) if encoding == "deflate" else gzip.decompress(body))
    assert decompress(encoding, compress(encoding, found), 10_000) == found


def codec(octets: bytes) -> None:
    """Bytes are a message of ours exactly when they are one of google.protobuf's; both then say the same."""
    from tests.pb.test_codec_oracle import same_as_google

    pairs = message_classes()
    google, ours = pairs[int.from_bytes(octets[:1], "big") % len(pairs)]
    same_as_google(google, ours, octets[1:])


@cache
def message_classes() -> list[tuple[type, type]]:
    """Those that the codec is tried with: google.protobuf's, and ours."""
    from tests._pb.dk_trio.test import v1

    from dk_trio.pb.google.protobuf import Struct

    from .oracle import google_classes

    with TemporaryDirectory() as folder:
        found = google_classes(Path(folder))
    return [(google, Struct if name == "Struct" else getattr(v1, name)) for name, google in found.items()]


FOLDER = Path(raw.__file__).with_name("recorded")
"""What real peers have sent, see `tests/wire/conformance/record.py`."""
NAMES = [
    ":method", ":path", ":scheme", ":authority", ":status", "content-type", "content-length", "grpc-timeout",
    "grpc-encoding", "grpc-status", "grpc-message", "te", "x-bin", "x-text", "host", "connection",
]  # fmt: skip
GRPC_NAME = frozenset("0123456789abcdefghijklmnopqrstuvwxyz_.-")

TARGETS: dict[str, Target] = {
    target.__name__: target for target in (server, client, header_blocks, heads, texts, compressed, codec)
}


def seeds(name: str) -> list[bytes]:
    """Inputs to begin with: what real peers have sent, and one of each kind that the target tells apart."""
    if name == "server":
        recorded = (FOLDER / "grpcio-client.bin").read_bytes()[len(raw.PREFACE) :]
        return [as_program(recorded), *(program((step, bytes((1, step, 1, 9)))) for step in range(21))]
    if name == "client":
        opened = [(17, b"\0abc")] * 5
        recorded = as_program((FOLDER / "grpcio-server.bin").read_bytes())
        return [program(*opened) + recorded[1:], *(program(*opened, (step, bytes((1, step, 1)))) for step in range(21))]
    if name == "header_blocks":
        blocks = [raw.block(raw.REQUEST), hpack.Encoder().encode(raw.REQUEST), b"\x3f\xe1\x1f\x82\xbe"]
        return [bytes((1, len(block))) + block for block in blocks]
    if name == "heads":
        return [
            b"".join(bytes((0, len(key))) + key.encode() + bytes((len(value),)) + value.encode() for key, value in one)
            for one in (raw.REQUEST, raw.RESPONSE, raw.TRAILERS, raw.request(("x-bin", "AAEC"), ("grpc-timeout", "1S")))
        ]
    if name == "texts":
        return [b"10S", b"99999999H", b"caf%C3%A9 %zz%", b" x "]
    if name == "compressed":
        return [bytes((number,)) + compress(encoding, b"hello" * 50) for number, encoding in enumerate(ENCODINGS[1:])]
    return _messages()


def _messages() -> list[bytes]:
    from tests.pb.random_messages import Maker

    return [
        bytes((number,)) + Maker(seed).fill(google()).SerializeToString()
        for number, (google, _) in enumerate(message_classes())
        for seed in range(3)
    ]
