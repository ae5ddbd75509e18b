"""A blocking HTTP/2 client that knows just enough: it keeps calls in flight, or opens streams and holds them.

Not a gRPC client: it checks `:status` and `grpc-status` of nothing (the preflight does), reads frame headers only, and
announces windows too large to need credit. Request bodies must fit the server's initial window.
"""

import argparse
import json
import socket
import ssl
import struct
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from hpack import Encoder

from bench.drivers import Load

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY = 0, 1, 3, 4, 6, 7
END_STREAM, END_HEADERS, ACK = 1, 4, 1
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
LARGEST_WINDOW = 2**31 - 1
CANCEL = struct.pack(">I", 8)
Frame = tuple[int, int, int, bytes]  # type, flags, stream, payload
MAX_CONCURRENT_STREAMS = 3
INITIAL_WINDOW_SIZE = 4
READ_TIMEOUT_S = 20.0
OPEN_AT_ONCE = 50


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


class RawConnection:
    """One connection with numbered streams; `frames()` returns what a socket read completed, `read()` counts it."""

    def __init__(self, port: int, path: str, body: bytes, *, tls: bool = False) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=READ_TIMEOUT_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls:
            context = ssl._create_unverified_context()
            context.set_alpn_protocols(["h2"])
            self._socket = context.wrap_socket(self._socket)
        self._encoder = Encoder()
        self._headers = [
            (":method", "POST"),
            (":scheme", "https" if tls else "http"),
            (":path", path),
            (":authority", f"127.0.0.1:{port}"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
        ]
        self._block, self._settled = b"", False
        self._body = body
        self._next = 1
        self._rest = b""
        self.max_streams = 2**31
        self.data = 0
        settings = struct.pack(">HI", INITIAL_WINDOW_SIZE, LARGEST_WINDOW)
        credit = struct.pack(">I", LARGEST_WINDOW - 65535)
        self._socket.sendall(PREFACE + frame(SETTINGS, 0, 0, settings) + frame(8, 0, 0, credit))

    def start(self, count: int) -> range:
        """Send `count` whole requests, return the numbers of their streams."""
        first = self._next
        self._next += 2 * count
        streams = range(first, self._next, 2)
        out = []
        for stream in streams:
            out += [frame(HEADERS, END_HEADERS, stream, self._head()), frame(DATA, END_STREAM, stream, self._body)]
        self._socket.sendall(b"".join(out))
        return streams

    def _head(self) -> bytes:
        """The header block, which stays the same once the encoder's table holds every field."""
        if not self._settled:
            block = self._encoder.encode(self._headers)
            self._settled = block == self._block
            self._block = block
        return self._block

    def cancel(self, streams: Iterable[int]) -> None:
        self._socket.sendall(b"".join(frame(RST_STREAM, 0, stream, CANCEL) for stream in streams))

    def read(self) -> tuple[int, int]:
        """Wait for bytes; (streams that ended, DATA frames that arrived). Raises on a reset."""
        ended, answered = 0, 0
        for kind, flags, _, _ in self.frames():
            answered += kind == DATA
            ended += flags & END_STREAM
        return ended, answered

    def frames(self, *, within: float = READ_TIMEOUT_S) -> list[Frame]:
        """Wait for bytes; every DATA and HEADERS frame that they completed. Raises TimeoutError, or on a reset."""
        self._socket.settimeout(within)
        received = self._socket.recv(262144)
        if not received:
            raise ConnectionError("the server closed the connection")
        data = self._rest + received
        position, found = 0, []
        while len(data) - position >= 9:
            high, low, kind, flags, stream = struct.unpack_from(">HBBBI", data, position)
            length = high << 8 | low
            end = position + 9 + length
            if end > len(data):
                break
            payload = data[position + 9 : end]
            if kind == DATA:
                self.data += length
                found.append((kind, flags, stream, payload))
            elif kind == HEADERS:
                found.append((kind, flags, stream, payload))
            else:
                self._control(kind, flags, stream, payload)
            position = end
        self._rest = data[position:]
        return found

    def _control(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == SETTINGS and not flags & ACK:
            for key, value in struct.iter_unpack(">HI", payload):
                if key == MAX_CONCURRENT_STREAMS:
                    self.max_streams = value
            self._socket.sendall(frame(SETTINGS, ACK, 0))
        elif kind == PING and not flags & ACK:
            self._socket.sendall(frame(PING, ACK, 0, payload))
        elif kind in (RST_STREAM, GOAWAY):
            raise ConnectionError(f"frame type {kind} on stream {stream}: {payload.hex()}")

    def close(self) -> None:
        self._socket.close()


def load(connection: RawConnection, *, in_flight: int, seconds: float) -> Load:
    connection.start(1)  # before its answer comes the server's SETTINGS
    while not connection.read()[0]:
        pass
    calls, connection.data = 0, 0
    start = time.perf_counter()
    connection.start(min(in_flight, connection.max_streams))
    while (took := time.perf_counter() - start) < seconds:
        ended, _ = connection.read()
        calls += ended
        connection.start(ended)
    return Load(calls, connection.data, took)


def hold(port: int, path: str, body: bytes, *, streams: int) -> None:
    """Open one stream, say so, wait for a line, open the rest; on as many connections as the server asks for."""
    connections: list[RawConnection] = []
    opened = 0
    while opened < streams:
        connections.append(RawConnection(port, path, body))
        opened += _open(connections[-1], 1)
        if opened == 1:
            print("OPEN", opened, flush=True)
            sys.stdin.readline()
        opened += _open(connections[-1], min(connections[-1].max_streams - 1, streams - opened))
    print("OPEN", opened, "on", len(connections), flush=True)
    sys.stdin.readline()
    for connection in connections:
        connection.close()


def _open(connection: RawConnection, count: int) -> int:
    """Start `count` streams and wait until each of them has answered once.

    A few at a time: a burst is not the subject, and the C core refuses some calls when a thousand are pending.
    """
    for first in range(0, count, OPEN_AT_ONCE):
        batch = min(OPEN_AT_ONCE, count - first)
        connection.start(batch)
        answered = 0
        while answered < batch:
            ended, new = connection.read()
            if ended:
                raise ConnectionError(f"{ended} streams ended that were to be held")
            answered += new
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("path")
    parser.add_argument("--body", type=Path, required=True)
    parser.add_argument("--in-flight", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--hold", type=int, default=0, help="open so many streams instead of calling")
    parser.add_argument("--tls", action="store_true")
    args = parser.parse_args()
    body = args.body.read_bytes()
    if args.hold:
        hold(args.port, args.path, body, streams=args.hold)
        return
    connection = RawConnection(args.port, args.path, body, tls=args.tls)
    print(json.dumps(asdict(load(connection, in_flight=args.in_flight, seconds=args.seconds))))
    connection.close()


if __name__ == "__main__":
    main()
