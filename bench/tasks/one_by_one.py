"""One call after the other on one connection: seconds from each request's write to the end of its answer."""

import json
import time

from bench.raw_driver import END_STREAM, RawConnection
from bench.tasks.arguments import connected, parser


def call(connection: RawConnection, *, expected: int) -> float:
    """Seconds that one call took. Raises ConnectionError unless its messages have `expected` bytes."""
    began, before = time.perf_counter(), connection.data
    connection.start(1)
    while not any(flags & END_STREAM for _, flags, _, _ in connection.frames()):
        pass
    took = time.perf_counter() - began
    if connection.data - before != expected:
        raise ConnectionError(f"an answer has {connection.data - before} bytes instead of {expected}")
    return took


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--path", required=True)
    arguments.add_argument("--seconds", type=float, required=True)
    arguments.add_argument("--expected", type=int, required=True, help="bytes of an answer, framed")
    args = arguments.parse_args()
    connection = connected(args, args.path)
    call(connection, expected=args.expected)  # before its answer comes the server's SETTINGS
    end = time.perf_counter() + args.seconds
    took = []
    while time.perf_counter() < end:
        took.append(call(connection, expected=args.expected))
    connection.close()
    print(json.dumps({"took": took}))


if __name__ == "__main__":
    main()
