"""One gRPC call between two connections that are nothing but state: what one gives is what the other takes."""

from grpclib.const import Status

from dk_trio import wire


class EchoStream(wire.Stream):
    """The server's side of one call: answers the request with its own bytes."""

    def on_readable(self) -> None:
        # A hook runs inside `receive`. The real server wakes a task here; queueing frames is as much as it may do.
        message = self.next_message()
        if message is not None:
            connection = self.connection
            assert isinstance(connection, wire.ServerConnection)
            self.queue_headers(connection.response_block())
            self.queue_message(message)
            self.queue_headers(connection.trailers_block(Status.OK, None), end=True)
            connection.finish(self)


def accept(stream_id: int, head: wire.RequestHead) -> wire.Stream | wire.Refusal:
    """What the server does with a request: a stream for it, or an answer at once."""
    if head.path != "/example.Echo/Echo":
        return wire.Refusal(200, Status.UNIMPLEMENTED, f"no method {head.path}")
    return EchoStream(server, stream_id)


def exchange() -> None:
    """Carry bytes until neither side has any."""
    while client.out_size or server.out_size:
        if client.out_size:
            server.receive(client.take())
        if server.out_size:
            client.receive(server.take())


def call(path: str, message: bytes) -> tuple[bytes | None, Status | None]:
    stream = wire.ClientStream(client, client.next_stream_id)
    client.open(stream, path)
    stream.queue_message(message, end=True)
    exchange()
    assert stream.trailers is not None
    return stream.next_message(), stream.trailers.status


server = wire.ServerConnection(accept)
client = wire.ClientConnection(authority="example.invalid")

if __name__ == "__main__":
    print(call("/example.Echo/Echo", b"hello"))  # (b'hello', <Status.OK: 0>)
    print(call("/example.Echo/Other", b"hello"))  # (None, <Status.UNIMPLEMENTED: 12>)
