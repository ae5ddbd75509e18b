"""Calls that each write something of their own: so many in flight on one connection for so many seconds.

Prints calls, seconds, and the time of a call from its request's write to the end of its answer. The request is a text
with a number of fixed width in it, so that it is new each time and nothing has to be encoded. An answer without a
message is an error's, and ends the program. `echo` asks a server of bench.proto for the same bytes: what the transport
itself takes.
"""

import argparse
import json
import time
from collections.abc import Iterator

from bench import payloads
from bench.raw_driver import DATA, END_HEADERS, END_STREAM, HEADERS, RawConnection, frame
from bench.task_samples import quantile

STORE = "/agentic_mesh_protocol.storage.v1.StorageService/StoreRecord"
SIGNALS = "/agentic_mesh_protocol.task_manager.v1.TaskManagerService/SendSignals"
PATHS = {"store": STORE, "store-keyed": STORE, "signals": SIGNALS, "echo": payloads.UNARY}
NUMBER = b"#" * 16  # microseconds since the epoch have as many digits until 2286
KEY = b"dk-trio-idempotency-key"
DATA_TEXT = "x" * 100
WARM_UP_S = 0.1


def template(kind: str) -> bytes:
    """The message with `NUMBER` in it."""
    from datetime import UTC, datetime

    from dk_trio.pb.agentic_mesh_protocol.storage.v1 import DataType, StoreRecordRequest
    from dk_trio.pb.agentic_mesh_protocol.task_manager.v1 import SendSignalsRequest, Task
    from dk_trio.pb.google.protobuf import Struct

    number = NUMBER.decode()
    if kind == "signals":
        names = {"mission_id": "missions:bench", "setup_id": "setups:bench", "setup_version_id": "setup_versions:bench"}
        said = {"action": "start", "cancellation_reason": "none", "created_at": datetime.now(UTC)}
        return bytes(SendSignalsRequest(tasks=[Task(task_id=number, **names, **said)]))
    data = Struct.from_dict({"text": DATA_TEXT, "final": True})
    message = bytes(
        StoreRecordRequest(
            context="missions:bench", collection="bench", record_id=number, data=data, data_type=DataType.OUTPUT
        )
    )
    return payloads.request(payload=message) if kind == "echo" else message


class Requests(RawConnection):
    """A connection whose requests differ by a number."""

    def __init__(self, port: int, kind: str) -> None:
        super().__init__(port, PATHS[kind], payloads.grpc_frame(template(kind)))
        self._keyed = kind == "store-keyed"
        self._number = time.time_ns() // 1000

    def start(self, count: int) -> range:
        first, self._next = self._next, self._next + 2 * count
        streams = range(first, self._next, 2)
        self._socket.sendall(b"".join(part for stream in streams for part in self._request(stream)))
        return streams

    def _request(self, stream: int) -> Iterator[bytes]:
        self._number += 1
        number = b"%016d" % self._number
        head = self._head()
        if self._keyed:  # a literal field that no table keeps (RFC 7541, 6.2.2)
            head += b"\x00%c%b%c%b" % (len(KEY), KEY, len(number), number)
        yield frame(HEADERS, END_HEADERS, stream, head)
        yield frame(DATA, END_STREAM, stream, self._body.replace(NUMBER, number))


def drive(connection: Requests, *, in_flight: int, seconds: float) -> tuple[list[float], float]:
    """Seconds of each call that ended, and of all. Raises ConnectionError for an answer without a message."""
    began: dict[int, float] = {}
    answered: set[int] = set()
    took: list[float] = []

    def begin(count: int) -> None:
        now = time.perf_counter()
        began.update(dict.fromkeys(connection.start(count), now))

    start = time.perf_counter()
    begin(in_flight)
    while (now := time.perf_counter()) - start < seconds:
        ended = 0
        for kind, flags, stream, payload in connection.frames():
            if kind == DATA and payload:
                answered.add(stream)
            if flags & END_STREAM:
                if stream not in answered:
                    raise ConnectionError(f"a call was refused: {payload!r}")
                answered.discard(stream)
                took.append(time.perf_counter() - began.pop(stream))
                ended += 1
        if ended:
            begin(ended)
    return took, now - start


def report(took: list[float], seconds: float, cpu_s: float = 0.0) -> None:
    print(
        json.dumps(
            {"calls": len(took), "seconds": seconds, "cpu_s": cpu_s}
            | {"p50_ms": quantile(took, 0.5) * 1000, "p99_ms": quantile(took, 0.99) * 1000}
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("--kind", choices=PATHS, required=True)
    parser.add_argument("--in-flight", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    args = parser.parse_args()
    for seconds in (WARM_UP_S, args.seconds):
        connection = Requests(args.port, args.kind)
        took = drive(connection, in_flight=args.in_flight, seconds=seconds)
        connection.close()
    report(*took)


if __name__ == "__main__":
    main()
