"""A PostgreSQL server of the tests' own: `postgres_url` gives each test an empty schema of it.

    from tests.postgres import postgres_url as postgres_url  # in the conftest.py of a directory

It is looked for in PATH and where Debian puts it; where there is none, the tests that ask for it are skipped.
PostgreSQL refuses to run as root: then it runs as `postgres` or `nobody`. Its data do not outlive the run, so nothing
is synced to disk; killed processes lose nothing by that, since what they wrote is the kernel's.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

_NAMES = itertools.count(1)

_OPTIONS = (
    "fsync=off",
    "listen_addresses=127.0.0.1",
    "shared_buffers=32MB",
    "max_wal_size=256MB",
    "max_connections=60",
)


class PostgresServer:
    """A server on a free port of the loopback device, with a user `tester` whose password is `p@ss/word`.

    Args:
        programs: Where `initdb` and `postgres` are.
        options: Settings, each `name=value`.
    """

    def __init__(self, programs: Path, options: tuple[str, ...] = _OPTIONS) -> None:
        self._programs = programs
        self._options = options
        self._user = None if os.geteuid() else next(name for name in ("postgres", "nobody") if _uid(name) is not None)
        self.directory = Path(tempfile.mkdtemp(prefix="dk-trio-postgres-"))
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port: int = listener.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None
        if self._user is not None:
            shutil.chown(self.directory, self._user)
        password = self.directory / "password"
        password.write_text("p@ss/word")
        password.chmod(0o644)
        users = ("-U", "tester", "-A", "scram-sha-256", f"--pwfile={password}")
        self._run("initdb", "-D", self._data, *users, "-E", "UTF8", *self._locale(), "--no-sync")
        try:
            self.start()
        except BaseException:
            self.remove()
            raise

    def _locale(self) -> tuple[str, ...]:
        """The rules of a language, where text is in another order than that of its code points, if there are any."""
        usage = subprocess.run([self._programs / "initdb", "--help"], capture_output=True, check=True).stdout
        icu = ("--locale-provider=icu", "--icu-locale=en-US") if b"--icu-locale" in usage else ()
        return ("--locale=C.UTF-8", *icu)

    @property
    def _data(self) -> str:
        return str(self.directory / "data")

    def url(self, database: str = "postgres", *, password: str = "p%40ss%2Fword") -> str:
        """Of a database of this server."""
        return f"postgresql://tester:{password}@127.0.0.1:{self.port}/{database}"

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [self._programs / program, *arguments],
            capture_output=True,
            user=self._user,
            cwd=self.directory,
            check=False,
        )
        assert done.returncode == 0, (done.stdout + done.stderr).decode()

    def start(self) -> None:
        """It accepts connections when this returns."""
        # It does not outlive tests that are killed themselves.
        tied = ["setpriv", "--pdeathsig", "INT", "--"] if shutil.which("setpriv") else []
        settings = [part for option in self._options for part in ("-c", option)]
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *tied,
                    self._programs / "postgres",
                    "-D",
                    self._data,
                    "-p",
                    str(self.port),
                    "-k",
                    self.directory,
                    *settings,
                ],
                user=self._user,
                cwd=self.directory,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + 30
        while not self._answers():
            assert self._process.poll() is None, (self.directory / "log").read_text()
            assert time.monotonic() < deadline, "PostgreSQL did not start"
            time.sleep(0.02)

    def _answers(self) -> bool:
        import psycopg

        try:
            self.sql("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    @property
    def running(self) -> bool:
        """Whether it was started, and neither stopped nor killed."""
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        """As an operator does: open connections are told to go."""
        assert self._process is not None
        self._process.send_signal(signal.SIGINT)
        self._process.wait(30)

    def kill(self) -> None:
        """All its processes at once, with SIGKILL: none can end what it was about."""
        assert self._process is not None
        for pid in [self._process.pid, *self.backends()]:
            with contextlib.suppress(ProcessLookupError):  # gone meanwhile
                os.kill(pid, signal.SIGKILL)
        self._process.wait(30)

    def backends(self) -> list[int]:
        """The processes that the server has started."""
        assert self._process is not None
        return [
            int(directory.name)
            for directory in Path("/proc").iterdir()
            if directory.name.isdigit() and _parent(directory) == self._process.pid
        ]

    def remove(self) -> None:
        """The server and its data."""
        if self.running:
            self.kill()
        for _ in range(100):  # a process of the server may be about to end, and write its last file
            shutil.rmtree(self.directory, ignore_errors=True)
            if not self.directory.exists():
                return
            time.sleep(0.05)

    def sql(self, statement: str, url: str | None = None) -> list[tuple[object, ...]]:
        """Run outside of a transaction."""
        import psycopg

        with psycopg.connect(url or self.url(), autocommit=True) as connection:
            cursor = connection.execute(statement)  # type: ignore[call-overload]
            return cursor.fetchall() if cursor.description else []

    def new_schema(self) -> str:
        """The URL of an empty schema: as good as a database of its own, and made in a hundredth of the time."""
        name = f"test_{next(_NAMES)}"
        self.sql(f"CREATE SCHEMA {name}")
        return f"{self.url()}?options=-csearch_path%3D{name}"


def _uid(name: str) -> int | None:
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        return None


def _parent(process: Path) -> int | None:
    try:
        return int((process / "stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, ValueError):
        return None


def programs() -> Path | None:
    """Where PostgreSQL is, the newest first; None when it is not installed."""
    found = shutil.which("postgres")
    places = [Path(found).parent] if found else []
    debian = Path("/usr/lib/postgresql").glob("*/bin")
    places += sorted(debian, key=lambda path: path.parent.name.zfill(3), reverse=True)
    return next((place for place in places if (place / "initdb").exists()), None)


@functools.cache
def shared_server() -> PostgresServer:
    """One server for all tests of a run; whoever stops it starts it again."""
    pytest.importorskip("psycopg")
    place = programs()
    if place is None:
        pytest.skip("there is no `postgres` in PATH or /usr/lib/postgresql/*/bin")
    if not os.geteuid() and _uid("postgres") is None and _uid("nobody") is None:
        pytest.skip("PostgreSQL does not run as root, and there is neither a user `postgres` nor `nobody`")
    server = PostgresServer(place)
    atexit.register(server.remove)
    return server


@pytest.fixture
def postgres_server() -> PostgresServer:
    """The server that all tests share."""
    return shared_server()


@pytest.fixture
def postgres_url() -> str:
    """The URL of a schema that is empty, and this test's alone."""
    return shared_server().new_schema()
