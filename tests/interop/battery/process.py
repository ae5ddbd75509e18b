"""Peers as processes: a server that says where it listens, a client that runs one case a line.

Both end when their standard input is closed, so a test run that dies takes them along. Every wait is bounded.
"""

import json
import selectors
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

OPTIONS_VARIABLE = "DK_INTEROP_SERVER_OPTIONS"  # further options of a grpcio server, as JSON
START_TIMEOUT = 30.0  # seconds until the first line; a loaded machine imports slowly
STOP_TIMEOUT = 10.0
CASE_TIMEOUT = 30.0


class PeerError(Exception):
    """A peer ended, hung, or said something else than the battery's lines; the text has its standard error."""


class Peer:
    """A child process that speaks in lines."""

    def __init__(self, command: Sequence[str], *, environment: Mapping[str, str], log: Path) -> None:
        self.command = list(command)
        self.environment = dict(environment)
        self.log = log
        self._buffer = b""
        self._process: subprocess.Popen[bytes] | None = None

    def __repr__(self) -> str:
        state = "idle" if self._process is None else f"pid {self._process.pid}"
        return f"<{type(self).__name__} {' '.join(self.command)} ({state})>"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start the process."""
        self._buffer = b""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=self.environment
            )

    @property
    def alive(self) -> bool:
        """True while the process runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The running process."""
        assert self._process is not None, "not started"
        return self._process

    def write_line(self, text: str) -> None:
        """Send one line to the process."""
        assert self.process.stdin is not None
        self.process.stdin.write(text.encode() + b"\n")
        self.process.stdin.flush()

    def read_line(self, timeout: float) -> str:
        """Return the next line of standard output, or raise PeerError after `timeout` seconds."""
        assert self.process.stdout is not None
        deadline = time.monotonic() + timeout
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._buffer:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise self.error(f"said nothing for {timeout} s")
                chunk = self.process.stdout.read1(65536)  # type: ignore[attr-defined]
                if not chunk:
                    raise self.error(f"ended with exit code {self.process.wait(STOP_TIMEOUT)}")
                self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.decode(errors="replace")

    def error(self, what: str) -> PeerError:
        """Return an error with the end of the process's standard error."""
        log = self.log.read_text(errors="replace")[-3000:] if self.log.exists() else ""
        return PeerError(f"{' '.join(self.command)} {what}\n{log}")

    def stop(self) -> int:
        """Close standard input, wait, kill what is still there; return the exit code."""
        if self._process is None:
            return 0
        process, self._process = self._process, None
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.close()
            return process.wait(STOP_TIMEOUT)
        except (subprocess.TimeoutExpired, BrokenPipeError):
            process.kill()
            return process.wait(STOP_TIMEOUT)
        finally:
            process.stdout.close()


class ServerPeer(Peer):
    """A server process; `address` is {"tcp": port, "tls": port, "unix": path}, kinds it cannot serve left out."""

    address: dict[str, Any]

    def start(self) -> None:
        """Start it and wait until it listens."""
        super().start()
        while not (line := self.read_line(START_TIMEOUT)).startswith("READY "):
            pass  # ruby's server prints warnings
        self.address = json.loads(line.removeprefix("READY "))

    @property
    def target(self) -> str:
        """The plaintext TCP address."""
        return f"127.0.0.1:{self.address['tcp']}"


class ClientPeer(Peer):
    """A client process that runs cases; started by the first one, and again after one that hung."""

    def output(self, *arguments: str) -> str:
        """Run the command to its end, with further arguments, and return what it prints."""
        command = [*self.command, *arguments]
        done = subprocess.run(command, env=self.environment, capture_output=True, timeout=START_TIMEOUT, check=True)
        return done.stdout.decode()

    def begin(self, case: str, target: str, **command: Any) -> None:
        """Start one case against a target."""
        if not self.alive:
            self.stop()
            self.start()
        self.write_line(json.dumps({"case": case, "target": target, "server_sees_compression": False, **command}))

    def next_note(self, timeout: float = CASE_TIMEOUT) -> str:
        """Wait for the next stage that the running case tells of."""
        line = self._next("NOTE ", timeout)
        assert line.startswith("NOTE "), line
        return line.removeprefix("NOTE ")

    def finish(self, timeout: float = CASE_TIMEOUT) -> None:
        """Wait for the end of the running case; raise AssertionError with the peer's traceback when it failed."""
        answer = json.loads(self._next("{", timeout))
        assert "error" not in answer, f"{self.command[1:]}:\n{answer['error']}"

    def run(self, case: str, target: str, *, timeout: float = CASE_TIMEOUT, **command: Any) -> None:
        """Run one case from its beginning to its end."""
        self.begin(case, target, **command)
        self.finish(timeout)

    def _next(self, wanted: str, timeout: float) -> str:
        """Return the next line that is meant for us: ruby's client prints its progress, too."""
        try:
            while not (line := self.read_line(timeout)).startswith((wanted, "{")):
                pass
        except PeerError:
            self.process.kill()  # the next case gets a new one
            raise
        return line
