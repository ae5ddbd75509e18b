"""h2load, an HTTP/2 client that knows nothing of gRPC, in numbers: no request may fail."""

import json
import re
import shutil
import subprocess

import pytest
from tests._pb.grpc import testing

TIMEOUT = 60
SUMMARY = re.compile(
    r"requests: (\d+) total, (\d+) started, (\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout"
)
EMPTY = testing.Empty()
MEDIUM = testing.SimpleRequest(response_size=10_000, payload=testing.Payload(body=bytes(10_000)))
STREAM = testing.StreamingOutputCallRequest(response_parameters=[testing.ResponseParameters(size=100)] * 100)
LOADS = {
    # method, request, requests in all, connections, streams at a time
    "empty_one_at_a_time": ("EmptyCall", EMPTY, 500, 1, 1),
    "empty_64_at_a_time": ("EmptyCall", EMPTY, 4_000, 4, 16),
    "medium": ("UnaryCall", MEDIUM, 1_000, 4, 10),
    "stream": ("StreamingOutputCall", STREAM, 100, 2, 10),
}


def finished(server):
    """Return how many handlers the server has run to their end."""
    server.write_line("settle")
    return json.loads(server.read_line(TIMEOUT))["handlers_ended"]


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize(("method", "request_message", "total", "connections", "streams"), LOADS.values(), ids=LOADS)
def test_clean_run(method, request_message, total, connections, streams, secure, server_of, tmp_path):
    if shutil.which("h2load") is None:
        pytest.skip("h2load is not installed (Debian: nghttp2-client)")
    server = server_of("dk")
    address = server.address
    data = bytes(request_message)
    body = tmp_path / "body"
    body.write_bytes(b"\0" + len(data).to_bytes(4, "big") + data)
    url = f"https://localhost:{address['tls']}" if secure else f"http://127.0.0.1:{address['tcp']}"
    command = ["h2load", f"-n{total}", f"-c{connections}", f"-m{streams}", "-t1", "-d", str(body)]
    command += ["-H", "content-type: application/grpc", "-H", "te: trailers"]
    command += [f"{url}/grpc.testing.TestService/{method}"]
    before = finished(server)
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=True)
    counts = [int(count) for count in SUMMARY.search(done.stdout).groups()]
    assert counts == [total, total, total, total, 0, 0, 0], done.stdout
    assert f"status codes: {total} 2xx, 0 3xx, 0 4xx, 0 5xx" in done.stdout
    assert finished(server) - before == total  # h2load reads no trailers; a call that was refused has no handler
