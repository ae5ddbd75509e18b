"""A connection to PostgreSQL on Trio: libpq by way of psycopg, without threads, and without an event loop but Trio's.

Statements go out in libpq's pipeline mode: `run(BEGIN, first)` is one round trip, and `send(ROLLBACK)` is none, since
its answer is taken from the wire by whoever runs the next statement. A statement is parsed once for each connection.

Cancellation: the answers that are still to come are waited for a moment, under a shield, and dropped; the connection
can be used again, whatever its transaction is in. If they do not come, the server is asked to cancel and the
connection is closed. So a connection is either in step with its server or closed.

Only this module and those that open a PostgreSQL database import psycopg, which is an optional dependency.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn, TypeAlias

import psycopg
import trio
from grpclib.const import Status
from psycopg import generators, pq
from psycopg.adapt import AdaptersMap, Loader, Transformer
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.waiting import Ready, Wait

from dk_trio.errors import StorageServiceError

from .postgres_errors import BadUrlError, ConnectionLostError
from .work import Result, Statement, Value

if TYPE_CHECKING:
    from psycopg.abc import Buffer
    from psycopg.pq.abc import PGconn, PGresult

# Seconds for one address of a server to answer; `connect_timeout` of a URL goes before it.
CONNECT_MAX: Final = 5.0

# Seconds that a cancelled caller waits for an answer that is on its way. Statements of stores take milliseconds.
SETTLE: Final = 1.0

# Statements that a connection keeps parsed. Stores have some dozens; lists of different lengths make more of them.
PREPARED_MAX: Final = 256

# What a URL need not say. A peer that is gone shows within half a minute, though nothing is sent to it. Kerberos is
# off since libpq would ask for its tickets with blocking calls. Several hosts: the one that can be written.
_DEFAULTS: Final = {
    "fallback_application_name": "dk-trio",
    "gssencmode": "disable",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "25000",
    "target_session_attrs": "read-write",
}

_INT8, _BYTEA, _INT4, _TEXT, _FLOAT8, _UNKNOWN = 20, 17, 23, 25, 701, 0

_Key: TypeAlias = tuple[str, tuple[int, ...]]


class Answer(NamedTuple):
    """What a statement gave, and the tag of what it did: `SELECT 3`, `INSERT 0 1`, `COMMIT`."""

    result: Result
    tag: bytes


class _Expected(NamedTuple):
    """One answer that is still to come; `key` of a statement that is being parsed."""

    kind: int
    key: _Key | None = None
    name: bytes = b""


_OTHER, _STATEMENT, _SYNC = range(3)


class _NumericLoader(Loader):
    """The sum of integers is NUMERIC in PostgreSQL; stores expect the integer that SQLite gives."""

    def load(self, data: Buffer) -> int | float:
        text = bytes(data)
        return int(text) if text.lstrip(b"-").isdigit() else float(text)


class Connection:
    """A connection. One task at a time; see `connect`."""

    def __init__(self, libpq: PGconn) -> None:
        self._libpq = libpq
        self._expected: deque[_Expected] = deque()
        self._prepared: OrderedDict[_Key, bytes] = OrderedDict()
        self._count = 0
        adapters = AdaptersMap(psycopg.adapters)
        adapters.register_loader("numeric", _NumericLoader)
        self._transformer = Transformer(adapters)
        libpq.enter_pipeline_mode()

    @property
    def lost(self) -> bool:
        """Whether it is closed."""
        return self._libpq.status != pq.ConnStatus.OK

    @property
    def in_transaction(self) -> bool:
        """Whether the server may be in one; a failed one too."""
        return bool(self._expected) or self._libpq.transaction_status != pq.TransactionStatus.IDLE

    @property
    def server_version(self) -> int:
        """Such as 150018 for 15.18."""
        return self._libpq.server_version

    def close(self) -> None:
        """Tell the server to go, and close. What is closed stays so."""
        self._expected.clear()
        self._libpq.finish()

    # --- statements --------------------------------------------------------------------------------------------------

    async def run(self, *statements: Statement) -> list[Answer]:
        """Send statements and wait for their answers, one round trip for all.

        Raises:
            psycopg.Error: Of the first that failed; those after it were not run.
            StorageServiceError: INVALID_ARGUMENT, nothing was sent: a parameter that PostgreSQL has no value for.
            ConnectionLostError: Before all answers were there.

        Cancellation:
            See above; which of them were run is not known.
        """
        earlier = len(self._expected)
        self.send(*statements)
        try:
            return await self._answers(earlier)
        except trio.Cancelled:
            await self._settle()
            raise

    def send(self, *statements: Statement) -> None:
        """Send statements whose answers nobody wants to know.

        Raises:
            StorageServiceError, ConnectionLostError: See `run`.
        """
        dumped = [(statement.sql, [_dumped(value) for value in statement.parameters]) for statement in statements]
        try:
            for sql, values in dumped:
                self._send(sql, values)
            self._libpq.pipeline_sync()
            self._expected.append(_Expected(_SYNC))
            self._libpq.flush()
        except psycopg.OperationalError as error:
            self._lose(str(error), error)

    def _send(self, sql: str, values: list[_Dumped]) -> None:
        parameters, formats = [value.data for value in values], [value.format for value in values]
        types = tuple(value.type for value in values)
        key = (sql, types)
        name = self._prepared.get(key)
        if name is None:
            if len(self._prepared) >= PREPARED_MAX:
                _, oldest = self._prepared.popitem(last=False)
                self._libpq.send_query_params(b"DEALLOCATE " + oldest, None)
                self._expected.append(_Expected(_OTHER))
            self._count += 1
            name = b"s%d" % self._count
            self._libpq.send_prepare(name, numbered(sql).encode(), types)
            self._expected.append(_Expected(_OTHER, key, name))
        else:
            self._prepared.move_to_end(key)
        self._libpq.send_query_prepared(name, parameters, formats)
        self._expected.append(_Expected(_STATEMENT))

    async def _answers(self, earlier: int) -> list[Answer]:
        # What is expected shrinks with what has come, so that `_settle` goes on where a cancelled caller has stopped.
        answers: list[Answer] = []
        failure: psycopg.Error | None = None
        while self._expected:
            result = await self._result()
            expected = self._expected.popleft()
            earlier -= 1
            if result.status == pq.ExecStatus.FATAL_ERROR:
                error = psycopg.errors.error_from_result(result, encoding="utf-8")
                if earlier < 0:
                    failure = failure or error
            elif result.status in {pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK}:
                if expected.key is not None:
                    self._prepared[expected.key] = expected.name
                elif expected.kind == _STATEMENT and earlier < 0:
                    answers.append(self._answer(result))
        if failure is not None:
            raise failure
        return answers

    def _answer(self, result: PGresult) -> Answer:
        self._transformer.set_pgresult(result)
        rows: list[tuple[Any, ...]] = self._transformer.load_rows(0, result.ntuples, tuple) if result.ntuples else []
        return Answer(Result(rows, result.command_tuples or 0), result.command_status or b"")

    async def _result(self) -> PGresult:
        """The next result. Reads and writes of libpq stand together: each wakes for what it can do."""
        libpq = self._libpq
        try:
            while True:
                unsent = libpq.flush()
                if not libpq.is_busy():
                    break
                if unsent:  # more than the kernel takes; the server may have to be heard before it takes the rest
                    await _readable_or_writable(libpq.socket)
                else:
                    await trio.lowlevel.wait_readable(libpq.socket)
                libpq.consume_input()
            result = libpq.get_result()
            if result is not None and result.status != pq.ExecStatus.PIPELINE_SYNC and libpq.get_result() is not None:
                self._lose("it answered twice", None)
        except psycopg.OperationalError as error:
            self._lose(str(error), error)
        if result is None:
            self._lose(libpq.get_error_message(), None)
        if result.status == pq.ExecStatus.FATAL_ERROR:
            severity = result.error_field(pq.DiagnosticField.SEVERITY_NONLOCALIZED)
            if self.lost or severity in {b"FATAL", b"PANIC"}:
                self._lose(result.get_error_message(), None)
        return result

    def _lose(self, why: str, cause: Exception | None) -> NoReturn:
        self.close()
        raise ConnectionLostError(_one_line(why)) from cause

    async def _settle(self) -> None:
        with suppress(ConnectionLostError, psycopg.Error):
            with trio.move_on_after(SETTLE, shield=True):
                await self._answers(len(self._expected))
                return
            with trio.move_on_after(SETTLE, shield=True):
                await self._cancel()
        self.close()

    async def _cancel(self) -> None:
        if not psycopg.capabilities.has_cancel_safe():  # before libpq 17 it blocks
            return
        cancel = self._libpq.cancel_conn()
        cancel.start()
        await _driven(generators.cancel(cancel))


# --- connecting ------------------------------------------------------------------------------------------------------


async def connect(url: str) -> Connection:
    """A new connection, to the first host of the URL that accepts one.

    Raises:
        BadUrlError: libpq does not understand the URL. Its text may quote parts of it.
        ConnectionLostError: No host accepts one; the text says why of each.
    """
    try:
        parameters = {**_DEFAULTS, **conninfo_to_dict(url), "client_encoding": "UTF8"}
    except psycopg.ProgrammingError as error:
        raise BadUrlError(str(error)) from None
    seconds = str(parameters.get("connect_timeout") or CONNECT_MAX)
    if not seconds.replace(".", "", 1).isdigit():
        raise BadUrlError("connect_timeout is no number of seconds")
    timeout = float(seconds)
    failures: list[str] = []
    for attempt in await _attempts(parameters, failures):
        place = attempt.get("host") or "the local socket"
        try:
            with trio.fail_after(timeout):
                return Connection(await _driven(generators.connect(make_conninfo("", **attempt))))
        except trio.TooSlowError:
            failures.append(f"{place}: no answer within {timeout:g} s")
        except psycopg.Error as error:
            failures.append(_one_line(str(error)))
    raise ConnectionLostError("; ".join(failures))


async def _attempts(parameters: Mapping[str, Any], failures: list[str]) -> list[dict[str, Any]]:
    """One for each address of each host: libpq would look names up with blocking calls, and wait for dead hosts."""
    defaults = {option.keyword: option.val for option in pq.Conninfo.get_defaults()}
    hosts = str(parameters.get("host") or (defaults.get(b"host") or b"").decode()).split(",")
    ports = str(parameters.get("port") or (defaults.get(b"port") or b"").decode()).split(",")
    if "hostaddr" in parameters:
        return [dict(parameters)]
    attempts = []
    for index, host in enumerate(hosts):
        one = {**parameters, "host": host, "port": ports[index] if len(ports) == len(hosts) else ports[0]}
        if not host or host.startswith(("/", "@")):  # a socket of this machine
            attempts.append(one)
            continue
        try:
            found = await trio.socket.getaddrinfo(host, None, type=trio.socket.SOCK_STREAM)
        except OSError as error:
            failures.append(f"the host {host!r} is not known ({error.strerror})")
            continue
        attempts += [{**one, "hostaddr": address[4][0]} for address in found]
    return attempts


async def _driven(steps: Any) -> Any:
    """What one of psycopg's generators returns: each yields a descriptor and what it wants to do with it."""
    try:
        descriptor, wait = next(steps)
        while True:
            if wait == Wait.W:
                await trio.lowlevel.wait_writable(descriptor)
                ready = Ready.W
            else:
                await trio.lowlevel.wait_readable(descriptor)
                ready = Ready.R
            descriptor, wait = steps.send(ready)
    except StopIteration as end:
        return end.value
    finally:
        steps.close()


async def _readable_or_writable(descriptor: int) -> None:
    async with trio.open_nursery() as nursery:

        async def first(wait: Any) -> None:
            await wait(descriptor)
            nursery.cancel_scope.cancel()

        nursery.start_soon(first, trio.lowlevel.wait_readable)
        nursery.start_soon(first, trio.lowlevel.wait_writable)


# --- values ----------------------------------------------------------------------------------------------------------


class _Dumped(NamedTuple):
    type: int
    data: bytes | None
    format: int


def _dumped(value: Value) -> _Dumped:
    if value is None:
        return _Dumped(_UNKNOWN, None, 0)
    if isinstance(value, str):
        if "\0" in value:
            raise _refused("Text with a NUL character cannot be stored", "PostgreSQL has no such text: leave it out.")
        try:
            return _Dumped(_TEXT, value.encode(), 0)
        except UnicodeEncodeError:
            hint = "Write it as an escape, or keep the bytes."
            raise _refused("Text with a lone surrogate cannot be stored", hint) from None
    if isinstance(value, int):
        # As narrow as it is: PostgreSQL widens by itself, and some of its functions take no BIGINT.
        kind = _INT4 if -(2**31) <= value < 2**31 else _INT8
        if not -(2**63) <= value < 2**63:
            raise _refused("An integer of more than 64 bits cannot be stored", "Store it as text.")
        return _Dumped(kind, b"%d" % value, 0)
    if isinstance(value, float):
        return _Dumped(_FLOAT8, repr(value).encode(), 0)
    return _Dumped(_BYTEA, bytes(value), 1)


def _refused(text: str, hint: str) -> StorageServiceError:
    return StorageServiceError(f"{text}.", hint=hint, status=Status.INVALID_ARGUMENT)


def numbered(sql: str) -> str:
    """A statement with `$1`, `$2`, ... in place of its question marks."""

    def parts() -> Iterator[str]:
        for number, part in enumerate(sql.split("?")):
            yield f"${number}{part}" if number else part

    return "".join(parts())


def _one_line(text: str) -> str:
    return " ".join(text.split())
