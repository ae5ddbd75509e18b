"""The test service on grpcio's blocking server: `python -m tests.interop.battery.grpcio_server [certificate key]`.

Also what the servers of both APIs share. Prints `READY {"tcp":, "tls":, "unix":}` and ends when standard input does. A
line `stop SECONDS` before that stops gracefully and prints `STOPPED`. Further server options are JSON in a variable.
grpcio does not tell a handler whether a message was compressed, so `expect_compressed` is not checked.
"""

import json
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc

from . import google_messages
from .caller import DETAILS_KEY, ECHO_INITIAL_KEY, ECHO_TRAILING_KEY, METHODS, SERVICE, TELL_DEADLINE_KEY
from .process import OPTIONS_VARIABLE

MESSAGE_MAX = 64 << 20
OPTIONS = (
    ("grpc.max_receive_message_length", MESSAGE_MAX),
    ("grpc.max_send_message_length", MESSAGE_MAX),
    *json.loads(os.environ.get(OPTIONS_VARIABLE, "{}")).items(),
)
CODES = {code.value[0]: code for code in grpc.StatusCode}


def echoes(metadata: Any, key: str) -> list[tuple[str, Any]]:
    """Return the request's metadata of this key, all of it."""
    return [(name, value) for name, value in metadata if name == key]


def trailers(metadata: Any, time_remaining: Callable[[], float | None]) -> list[tuple[str, Any]]:
    """Return the trailing metadata that a request asks for."""
    asked = [(TELL_DEADLINE_KEY, str(time_remaining())) for _ in echoes(metadata, TELL_DEADLINE_KEY)]
    return asked + echoes(metadata, ECHO_TRAILING_KEY)


def failure_trailers(metadata: Any) -> list[tuple[str, Any]]:
    """Return the trailing metadata of a failure that was asked for."""
    return [("grpc-status-details-bin", value) for _, value in echoes(metadata, DETAILS_KEY)]


class TestService:
    """Handlers by method name; `messages` has the classes."""

    def __init__(self, messages: Any) -> None:
        self.messages = messages

    def body(self, size: int) -> Any:
        return self.messages.Payload(body=bytes(size))

    def EmptyCall(self, request: Any, context: grpc.ServicerContext) -> Any:
        return self.messages.Empty()

    def UnaryCall(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.echo(context)
        self.fail_if_asked(request, context)
        if request.HasField("response_compressed"):
            context.set_compression(grpc.Compression.Gzip)
            if not request.response_compressed.value:
                context.disable_next_message_compression()
        return self.messages.SimpleResponse(payload=self.body(request.response_size))

    CacheableUnaryCall = UnaryCall

    def StreamingOutputCall(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        self.echo(context)
        if any(parameters.HasField("compressed") for parameters in request.response_parameters):
            context.set_compression(grpc.Compression.Gzip)
        yield from self.responses(request, context)

    def StreamingInputCall(self, requests: Iterator[Any], context: grpc.ServicerContext) -> Any:
        self.echo(context)
        total = sum(len(request.payload.body) for request in requests)
        return self.messages.StreamingInputCallResponse(aggregated_payload_size=total)

    def FullDuplexCall(self, requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        self.echo(context)
        for request in requests:
            yield from self.responses(request, context)

    def HalfDuplexCall(self, requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        for request in list(requests):
            yield from self.responses(request, context)

    def responses(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        self.fail_if_asked(request, context)
        ended = threading.Event()
        if not context.add_callback(ended.set):
            return  # the call has ended already
        for parameters in request.response_parameters:
            if ended.wait(parameters.interval_us / 1e6):
                return
            if parameters.HasField("compressed") and not parameters.compressed.value:
                context.disable_next_message_compression()
            yield self.messages.StreamingOutputCallResponse(payload=self.body(parameters.size))

    @staticmethod
    def echo(context: grpc.ServicerContext) -> None:
        metadata = context.invocation_metadata()
        if initial := echoes(metadata, ECHO_INITIAL_KEY):
            context.send_initial_metadata(initial)
        if trailing := trailers(metadata, context.time_remaining):
            context.set_trailing_metadata(trailing)

    @staticmethod
    def fail_if_asked(request: Any, context: grpc.ServicerContext) -> None:
        if request.HasField("response_status"):
            if trailers := failure_trailers(context.invocation_metadata()):
                context.set_trailing_metadata(trailers)
            context.abort(CODES[request.response_status.code], request.response_status.message)


def handlers(service: Any) -> grpc.GenericRpcHandler:
    """Return the service's method table; UnimplementedCall has no handler."""
    table = {}
    for method, (client_streams, server_streams, request, response) in METHODS.items():
        if function := getattr(service, method, None):
            kind = f"{'stream' if client_streams else 'unary'}_{'stream' if server_streams else 'unary'}"
            table[method] = getattr(grpc, f"{kind}_rpc_method_handler")(
                function,
                request_deserializer=getattr(service.messages, request).FromString,
                response_serializer=getattr(service.messages, response).SerializeToString,
            )
    return grpc.method_handlers_generic_handler(SERVICE, table)


def bind(server: Any, folder: str) -> dict[str, Any]:
    """Bind all kinds of address on free ports and return them."""
    address: dict[str, Any] = {"tcp": server.add_insecure_port("127.0.0.1:0"), "unix": f"{folder}/socket"}
    server.add_insecure_port(f"unix:{address['unix']}")
    if len(sys.argv) > 2:
        chain, key = (Path(name).read_bytes() for name in sys.argv[1:3])
        address["tls"] = server.add_secure_port("localhost:0", grpc.ssl_server_credentials([(key, chain)]))
    return address


def main() -> None:
    """Serve until standard input ends."""
    pool = ThreadPoolExecutor(64)  # more than any case has calls that wait for one another
    server = grpc.server(pool, handlers=[handlers(TestService(google_messages.load()))], options=OPTIONS)
    with tempfile.TemporaryDirectory() as folder:
        address = bind(server, folder)
        server.start()
        print("READY", json.dumps(address), flush=True)
        for line in sys.stdin:
            server.stop(float(line.removeprefix("stop"))).wait()
            print("STOPPED", flush=True)
        server.stop(0).wait(5)


if __name__ == "__main__":
    main()
