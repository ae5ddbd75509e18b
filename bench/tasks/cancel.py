"""Cancel parked tasks, and see in the server's event log when each of them felt it.

`--mode burst` cancels all of them in one write, `spread` one after the other at random times, and `refill` all of them
in one write with as many new calls in the next one: they are accepted only when the slots of the old ones come free.
Prints the seconds from each write to the line `<CLOCK_MONOTONIC> cancelled <job_id>` of the log (see
bench/echo_module.py), and with `refill` those from the new calls' write to the first message of each.
"""

import json
import random
import re
import time
from pathlib import Path

from bench.raw_driver import DATA, END_STREAM, OPEN_AT_ONCE, RawConnection
from bench.tasks.arguments import connected, parser

MODES = ("burst", "spread", "refill")
SETTLE_S = 0.3  # from a task's first message to its sleep
SPREAD_S = 1.0
LOG_TIMEOUT_S = 10.0
LOG_POLL_S = 0.005
JOB_ID = re.compile(rb"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def monotonic() -> float:
    return time.clock_gettime(time.CLOCK_MONOTONIC)


def first_messages(connection: RawConnection, streams: range) -> dict[int, tuple[str, float]]:
    """The job's id and the time of arrival, by stream. Raises ConnectionError when a call is refused or ends."""
    found: dict[int, tuple[str, float]] = {}
    while len(found) < len(streams):
        frames = connection.frames()
        now = monotonic()
        for kind, flags, stream, payload in frames:
            if stream not in streams:
                continue  # one that was cancelled
            job_id = JOB_ID.search(payload)
            if flags & END_STREAM or (kind == DATA and (job_id is None or b"module_start_info" not in payload)):
                raise ConnectionError(f"a call was not accepted: {payload[:300]!r}")
            if kind == DATA and job_id is not None:
                found[stream] = (job_id[0].decode(), now)
    return found


def cancel(connection: RawConnection, jobs: dict[int, str], *, mode: str) -> dict[str, float]:
    """Cancel the stream of every job; when each of the frames was written, by job id."""
    if mode != "spread":
        written = monotonic()
        connection.cancel(jobs)
        return dict.fromkeys(jobs.values(), written)
    order = random.sample(list(jobs), len(jobs))
    start = monotonic()
    times = {}
    for stream, after in zip(order, sorted(random.uniform(0, SPREAD_S) for _ in order), strict=True):
        time.sleep(max(0.0, start + after - monotonic()))
        times[jobs[stream]] = monotonic()
        connection.cancel([stream])
    return times


def felt(log: Path, jobs: set[str]) -> dict[str, float]:
    """When each job was cancelled, as the server's log says. Raises TimeoutError when some are not in it."""
    deadline = monotonic() + LOG_TIMEOUT_S
    while True:
        lines = [line.split() for line in log.read_text().splitlines(keepends=True) if line.endswith("\n")]
        times = {job_id: float(at) for at, event, job_id in lines if event == "cancelled" and job_id in jobs}
        if len(times) == len(jobs):
            return times
        if monotonic() > deadline:
            raise TimeoutError(f"{len(jobs) - len(times)} of {len(jobs)} jobs did not feel their cancel")
        time.sleep(LOG_POLL_S)


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--tasks", type=int, required=True)
    arguments.add_argument("--mode", choices=MODES, required=True)
    arguments.add_argument("--log", type=Path, required=True, help="the server's BENCH_EVENT_LOG")
    args = arguments.parse_args()
    connection = connected(args)
    jobs: dict[int, str] = {}
    while len(jobs) < args.tasks:
        streams = connection.start(min(OPEN_AT_ONCE, args.tasks - len(jobs)))
        jobs |= {stream: job_id for stream, (job_id, _) in first_messages(connection, streams).items()}
    time.sleep(SETTLE_S)
    written = cancel(connection, jobs, mode=args.mode)
    answered = []
    if args.mode == "refill":
        began = monotonic()
        answered = [at - began for _, at in first_messages(connection, connection.start(args.tasks)).values()]
    times = felt(args.log, set(written))
    connection.close()
    print(json.dumps({"took": [times[job_id] - at for job_id, at in written.items()], "answered": answered}))


if __name__ == "__main__":
    main()
