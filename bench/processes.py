"""Child processes of the benchmark: pinned to a core, asked for CPU time and memory, and always ended.

Two guards end them: the `with` block, and an alarm set before exec, so that nothing survives a harness that was killed.
"""

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

START_TIMEOUT_S = 30.0  # importing grpc or trio on a busy machine takes seconds
LIFETIME_S = 1200  # longer than any full run
STOP_TIMEOUT_S = 5.0
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
REPO = Path(__file__).parent.parent


class BenchError(Exception):
    """A process, a driver or a server did not do what the measurement needs; the text says which one."""


def cores() -> tuple[int, int]:
    """(core of the process under test, core of whatever drives it); the same one on a single-core machine."""
    usable = sorted(os.sched_getaffinity(0))
    return usable[0], usable[-1]


def before_exec(core: int | None) -> Callable[[], None]:
    def prepare() -> None:
        if core is not None:
            os.sched_setaffinity(0, {core})
        signal.alarm(LIFETIME_S)

    return prepare


def run_pinned(argv: Sequence[str], *, core: int, timeout: float, env: dict[str, str] | None = None) -> str:
    """Run to completion, return stdout. Raises BenchError for a failure or after `timeout` seconds."""
    try:
        done = subprocess.run(
            argv,
            preexec_fn=before_exec(core),
            capture_output=True,
            text=True,
            timeout=timeout,
            env=env,
            cwd=REPO,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise BenchError(f"{argv[0]} did not end within {timeout:.0f} s: {' '.join(argv)}") from error
    if done.returncode:
        raise BenchError(f"exit code {done.returncode}: {' '.join(argv)}\n{done.stderr[-2000:]}{done.stdout[-500:]}")
    return done.stdout


class Process:
    """A child that prints a line starting with `announces` once it is ready; `announced` is the rest of that line.

    `core` None leaves it on all of them.
    """

    def __init__(
        self, argv: Sequence[str], *, core: int | None, env: dict[str, str], announces: str = "READY "
    ) -> None:
        self.argv = list(argv)
        self.core = core
        self.env = env
        self.announces = announces
        self.announced = ""

    def __enter__(self) -> Self:
        self._stderr = tempfile.TemporaryFile(mode="w+")
        self._child: subprocess.Popen[str] = subprocess.Popen(
            self.argv,
            preexec_fn=before_exec(self.core),  # noqa: PLW1509  the parent has one thread
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
            env=self.env,
            cwd=REPO,
        )
        try:
            assert self._child.stdout is not None
            self.announced = self._await_line(self._child.stdout)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def _await_line(self, out: IO[str]) -> str:
        deadline = time.monotonic() + START_TIMEOUT_S
        with selectors.DefaultSelector() as selector:
            selector.register(out, selectors.EVENT_READ)
            while selector.select(max(0.0, deadline - time.monotonic())):
                line = out.readline()
                if line.startswith(self.announces):
                    return line.removeprefix(self.announces).strip()
                if not line:
                    break
        self._stderr.seek(0)
        raise BenchError(f"not ready: {' '.join(self.argv)}\n{self._stderr.read()[-3000:]}")

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        child = self._child
        child.terminate()
        try:
            child.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        for pipe in (child.stdin, child.stdout, self._stderr):
            if pipe is not None:
                pipe.close()

    def go_on(self) -> None:
        """Tell a child that waits for a line to continue, and wait until it announces the next thing."""
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.write("\n")
        self._child.stdin.flush()
        self.announced = self._await_line(self._child.stdout)

    @property
    def port(self) -> int:
        """The last number of the announcement: `READY 50051` and `READY 127.0.0.1:50051` both mean 50051."""
        return int(self.announced.rpartition(":")[2])

    @property
    def pid(self) -> int:
        """Of the child."""
        return self._child.pid

    def cpu_seconds(self) -> float:
        """User and system time of all threads so far."""
        return cpu_seconds(self.pid)

    def rss_bytes(self) -> int:
        """Resident memory now (proc(5), statm)."""
        return int(Path(f"/proc/{self._child.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def cpu_seconds(pid: int) -> float:
    """User and system time of all threads of a process so far (proc(5), fields 14 and 15; a tick is 10 ms)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def children_of(pid: int) -> list[int]:
    """Processes that a process has started, and that are there now."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            if int(stat.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(stat.parent.name))
    return found


def children_cpu_seconds() -> float:
    """User and system time of the children that have ended (drivers do in every sample, servers only at the end)."""
    times = os.times()
    return times.children_user + times.children_system


def python(module: str, *args: object) -> list[str]:
    return [sys.executable, "-m", module, *(str(arg) for arg in args)]


def environment(generated: Path) -> dict[str, str]:
    """The children's environment: `generated` holds the peers' messages, the repository root holds `bench`."""
    env: dict[str, Any] = dict(os.environ)
    path = [str(generated), str(REPO), *filter(None, [env.get("PYTHONPATH", "")])]
    return env | {"PYTHONPATH": os.pathsep.join(path)}
