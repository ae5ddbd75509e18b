"""Records what a real peer says: gRPC's C core as client of our server, and as server of our client.

Run `python -m tests.wire.conformance.record` at the root of the project to write `recorded/*.bin` anew. They hold only
the octets that the peer sent, in order; `test_recorded.py` replays them, cut in every way.
"""

from __future__ import annotations

import socket
import threading
from concurrent import futures
from pathlib import Path

import grpc

from dk_trio.wire.client import ClientConnection, ClientStream

from .server_peer import ServerPeer

FOLDER = Path(__file__).with_name("recorded")
CALLS = ([b"hello"], [b""], [b"a" * 5000, b"b", b"c" * 20_000], [], [bytes(range(256)) * 8])
"""The messages of each call, in both recordings."""
METADATA = (("x-text", "plain"), ("x-octets-bin", b"\0\1\xff"))


def serve(listener: socket.socket, heard: list[bytes]) -> None:
    """One connection of our server over a blocking socket."""
    connection, _ = listener.accept()
    peer = ServerPeer()
    connection.sendall(peer.written())
    while octets := connection.recv(65_536):
        heard.append(octets)
        peer.feed(octets)
        connection.sendall(peer.written())


def record_client() -> bytes:
    """What grpcio sends: echo calls with metadata, a cancelled one, one with a deadline."""
    listener = socket.create_server(("127.0.0.1", 0))
    heard: list[bytes] = []
    thread = threading.Thread(target=serve, args=(listener, heard))
    thread.start()
    with grpc.insecure_channel(f"127.0.0.1:{listener.getsockname()[1]}") as channel:
        say, hold = channel.stream_stream("/test.Echo/Say"), channel.stream_stream("/test.Echo/Hold")
        for bodies in CALLS:
            assert list(say(iter(bodies), metadata=METADATA)) == bodies
        held = hold(iter([b"never answered"]), timeout=1000)
        assert list(say(iter([b"between"]), compression=grpc.Compression.Gzip)) == [b"between"]
        held.cancel()
        assert list(say(iter([b"last"]), timeout=5)) == [b"last"]
    thread.join()
    listener.close()
    return b"".join(heard)


class Echo(grpc.GenericRpcHandler):
    def service(self, details):
        def say(messages, context):
            context.send_initial_metadata(METADATA)
            yield from messages
            context.set_trailing_metadata(METADATA)

        return grpc.stream_stream_rpc_method_handler(say)


def record_server() -> bytes:
    """What a grpcio server answers to the same calls, one after the other."""
    server = grpc.server(futures.ThreadPoolExecutor(2), handlers=[Echo()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    heard = []
    with socket.create_connection(("127.0.0.1", port)) as link:
        connection = ClientConnection(authority="localhost")
        for call in start(connection, ClientStream):
            link.sendall(connection.take())
            while not call.remote_ended:
                octets = link.recv(65_536)
                heard.append(octets)
                connection.receive(octets)
                while call.next_message() is not None:
                    pass
                link.sendall(connection.take())
    server.stop(None).wait()
    return b"".join(heard)


def start(connection, make):
    """Open the calls one by one, each when the next is asked for."""
    for bodies in CALLS:
        call = make(connection, connection.next_stream_id)
        connection.open(call, "/test.Echo/Say")
        for body in bodies:
            assert call.queue_message(body) or call.pump()
        call.queue_end()
        yield call


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / "grpcio-client.bin").write_bytes(record_client())
    (FOLDER / "grpcio-server.bin").write_bytes(record_server())
