"""A server that only clients can make slow: it reads frame headers and answers each request with constant bytes.

Not a gRPC server: no HPACK decoding, no routing, no flow control beyond credit for what it received; one connection at
a time. It costs a few microseconds a call, so that a client's rate is the client's.
"""

import socket
import struct

from bench import payloads
from bench.raw_driver import ACK, DATA, END_HEADERS, END_STREAM, HEADERS, LARGEST_WINDOW, PING, PREFACE, SETTINGS, frame
from bench.servers import ready

WINDOW_UPDATE = 8
MAX_CONCURRENT_STREAMS = 3
CREDIT_EVERY = 16 * 2**20


def literal(name: bytes, value: bytes) -> bytes:
    """A header field without indexing (RFC 7541, section 6.2.2), without Huffman code."""
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


def template() -> tuple[bytes, bytes, bytes, bytes]:
    """The pieces of a whole response between which the stream's number belongs."""
    message = payloads.request(payload=payloads.UNARY_PAYLOAD)  # Reply has the same first field
    whole = (
        frame(HEADERS, END_HEADERS, 0x7FFFFFFF, b"\x88" + literal(b"content-type", b"application/grpc"))
        + frame(DATA, 0, 0x7FFFFFFF, payloads.grpc_frame(message))
        + frame(HEADERS, END_HEADERS | END_STREAM, 0x7FFFFFFF, literal(b"grpc-status", b"0"))
    )
    first, second, third, fourth = whole.split(b"\x7f\xff\xff\xff")
    return first, second, third, fourth


def serve(connection: socket.socket) -> None:
    pieces = template()
    credit = struct.pack(">I", LARGEST_WINDOW - 65535)
    connection.sendall(
        frame(SETTINGS, 0, 0, struct.pack(">HI", MAX_CONCURRENT_STREAMS, 1000)) + frame(WINDOW_UPDATE, 0, 0, credit)
    )
    rest, position, received = b"", len(PREFACE), 0
    while data := connection.recv(262144):
        data = rest + data
        out = []
        while len(data) - position >= 9:
            high, low, kind, flags = struct.unpack_from(">HBBB", data, position)
            end = position + 9 + (high << 8 | low)
            if end > len(data):
                break
            if kind == DATA:
                received += end - position - 9
                if flags & END_STREAM:
                    out.append(data[position + 5 : position + 9].join(pieces))
            elif kind in (SETTINGS, PING) and not flags & ACK:
                out.append(frame(kind, ACK, 0, data[position + 9 : end] if kind == PING else b""))
            position = end
        rest, position = (data[position:], 0) if position <= len(data) else (data, position)
        if received > CREDIT_EVERY:
            out.append(frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", received)))
            received = 0
        connection.sendall(b"".join(out))


def main() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ready(listener.getsockname()[1])
        while True:
            connection, _ = listener.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with connection:
                try:
                    serve(connection)
                except ConnectionError:
                    continue  # a client that ended in the middle of a call


if __name__ == "__main__":
    main()
