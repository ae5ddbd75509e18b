"""N tasks at the same time: how long a task takes that has N-1 others beside it.

They are started evenly over `--spread` seconds, or as fast as the server answers: a burst of starts is another
question, and the C core refuses calls when a thousand are pending. Prints the seconds of every task, from its request's
write to its end, and those from the first write to the last end.
"""

import json
import time
from dataclasses import asdict, dataclass, field

from bench.raw_driver import DATA, END_STREAM, OPEN_AT_ONCE, RawConnection
from bench.tasks.arguments import connected, parser

LIMIT_S = 60.0


@dataclass
class Task:
    began: float
    received: int = 0


@dataclass
class Together:
    """Seconds of each task, and of all of them."""

    took: list[float] = field(default_factory=list)
    seconds: float = 0.0


def drive(connection: RawConnection, *, tasks: int, spread_s: float, expected: int) -> Together:
    """Raises ConnectionError when a task's messages have other than `expected` bytes, TimeoutError after LIMIT_S."""
    result = Together()
    running: dict[int, Task] = {}
    begun = answered = 0
    start = now = time.perf_counter()
    while len(result.took) < tasks:
        if now > start + LIMIT_S:
            raise TimeoutError(f"{len(result.took)} of {tasks} tasks were done after {LIMIT_S:.0f} s")
        due = min(tasks, int((now - start) / spread_s * tasks) + 1)
        new = min(due - begun, OPEN_AT_ONCE - (begun - answered))
        if new > 0:
            began = time.perf_counter()
            running |= {stream: Task(began) for stream in connection.start(new)}
            begun += new
        try:
            frames = connection.frames(within=spread_s / tasks if begun < tasks else LIMIT_S)
        except TimeoutError:
            frames = []  # the next start is due
        now = time.perf_counter()
        for kind, flags, stream, payload in frames:
            task = running[stream]
            if kind == DATA:
                answered += not task.received
                task.received += len(payload)
            if flags & END_STREAM:
                if task.received != expected:
                    raise ConnectionError(f"a task's messages have {task.received} bytes instead of {expected}")
                result.took.append(now - task.began)
                del running[stream]
    result.seconds = now - start
    return result


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--tasks", type=int, required=True)
    arguments.add_argument("--spread", type=float, required=True, help="seconds, above 0")
    arguments.add_argument("--expected", type=int, required=True, help="bytes of a task's messages, framed")
    args = arguments.parse_args()
    connection = connected(args)
    result = drive(connection, tasks=args.tasks, spread_s=args.spread, expected=args.expected)
    connection.close()
    print(json.dumps(asdict(result)))


if __name__ == "__main__":
    main()
