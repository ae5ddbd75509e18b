"""What goes wrong with a PostgreSQL server, and what it is called; whether it can be reached, and asked again."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qs, unquote

import outcome
import trio
from grpclib.const import Status

from dk_trio.errors import DatabaseError, StorageServiceError

# Seconds between attempts to connect: the first, and at most; each is twice the one before.
BACKOFF: Final = 0.1
BACKOFF_MAX: Final = 5.0

# What libpq says, and the remedy. A server may speak another language: then it is the last one.
_REMEDIES: Final = (
    ("password", "Look at the user and the password of the URL; special characters are percent-encoded."),
    ('role "', "Create this user, or name another in the URL."),
    ('database "', "Create this database (`createdb`), or name another in the URL."),
    ("pg_hba.conf", "Let this user connect from here: pg_hba.conf of the server says who may."),
    ("read-only", "Name the server that can be written: this one is a standby, or set to read only."),
    ("SSL", "Look at `sslmode` and the certificates of the URL."),
    ("sslmode", "Look at `sslmode` and the certificates of the URL."),
    ("certificate", "Look at `sslmode` and the certificates of the URL."),
    ("too many", "Raise max_connections of the server, or end what holds its connections."),
    ("", "Look at host and port of the URL, and whether PostgreSQL runs there and accepts connections."),
)

_PARAMETERS: Final = "After its ? stand what libpq knows, such as `sslmode`, `connect_timeout` and `options`."
_ENCODE: Final = "Percent-encode special characters of user and password: @ is %40, / is %2F, : is %3A, ? is %3F."


# What errors mean, by SQLSTATE or its class, and the remedy. Others are mistakes of a statement: they stay as they are.
_MEANINGS: Final[Mapping[str, tuple[str, str, Status | None]]] = {
    "22003": ("a number is out of range", "Store a smaller one, or text.", Status.INVALID_ARGUMENT),
    "25006": ("it can be read only", "Name the server that can be written.", Status.UNAVAILABLE),
    "40": ("a stranger's transaction is in the way", "Try again.", Status.UNAVAILABLE),
    "42501": ("its user may not do this", "Grant the user of the URL all rights on the schema.", None),
    "53100": ("the disk is full", "Free some space on the disk of PostgreSQL.", None),
    "53": ("PostgreSQL lacks resources", "Give it more memory or connections.", Status.UNAVAILABLE),
    "54": ("a value is too large", "Shorten ids and names, which are part of an index.", Status.INVALID_ARGUMENT),
    "55P03": (
        "a stranger has locked a table",
        "End that transaction: pg_stat_activity lists them.",
        Status.UNAVAILABLE,
    ),
    "57014": (
        "the statement was cancelled",
        "Someone cancelled it, or statement_timeout is short.",
        Status.UNAVAILABLE,
    ),
    "58": ("PostgreSQL failed to read or write", "Look at its log and its disk.", None),
    "XX001": ("it is damaged", "Look at the log of PostgreSQL, and restore a copy.", None),
    "XX002": ("it is damaged", "Look at the log of PostgreSQL, and restore a copy.", None),
}


class ConnectionLostError(Exception):
    """There is no connection, or none any more; its text says why."""


class BadUrlError(Exception):
    """libpq does not understand a URL; the text may quote parts of it."""


class InDoubtError(Exception):
    """The connection was lost after COMMIT was sent.

    Args:
        token: What the transaction has left, for `Owner.committed`.
        results: What is true if it was committed.
    """

    def __init__(self, token: int, results: list[outcome.Outcome[Any]]) -> None:
        super().__init__(token)
        self.token = token
        self.results = results


def explained(name: str, error: Exception) -> Exception:
    """What the caller is told: a `StorageServiceError` with database and remedy; a statement's mistake as it is."""
    state = getattr(error, "sqlstate", None) or ""
    meaning = _MEANINGS.get(state) or _MEANINGS.get(state[:2])
    if meaning is None:
        return error
    what, remedy, status = meaning
    text = " ".join(str(error).split())
    told = StorageServiceError(f"The database {name} cannot be used: {what} ({text}).", hint=remedy, status=status)
    told.__cause__ = error
    return told


class Reach:
    """The way to a server.

    Args:
        name: Of the database, for errors.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._known = False  # it was reached once: what is given is right
        self._why = ""
        self._backoff = BACKOFF
        self._retry_at = float("-inf")

    @property
    def wait(self) -> float:
        """Seconds until the next attempt may be made; 0 or less: now."""
        return self._retry_at - trio.current_time()

    def check(self) -> None:
        """Raise while nothing should be attempted.

        Raises:
            StorageServiceError: UNAVAILABLE.
        """
        if self.wait > 0:
            raise self.unavailable()

    def found(self) -> None:
        """An attempt succeeded."""
        self._known = True
        self._backoff, self._retry_at = BACKOFF, float("-inf")

    def missed(self, why: str) -> DatabaseError | StorageServiceError:
        """An attempt failed: what to raise. A mistake of the operator, if the server was never reached."""
        # libpq ends with a question of its own, which the remedy answers.
        self._why = why = why.partition(" Is the server running")[0].rstrip(".")
        self._retry_at = trio.current_time() + self._backoff
        self._backoff = min(2 * self._backoff, BACKOFF_MAX)
        if self._known:
            return self.unavailable()
        return DatabaseError(f"The database {self._name} cannot be reached: {why}.", hint=remedy_for(why))

    def unavailable(self) -> StorageServiceError:
        """What to raise when there was a connection, and is none now."""
        return StorageServiceError(
            f"The database {self._name} cannot be reached: {self._why}.",
            hint=remedy_for(self._why),
            status=Status.UNAVAILABLE,
        )


def remedy_for(why: str) -> str:
    """What to do about a server that was not reached, by what libpq says."""
    return next(remedy for text, remedy in _REMEDIES if text in why)


def place(url: str) -> str:
    """Host and database of a URL, without what is secret.

    Raises:
        DatabaseError: It is not a URL of PostgreSQL, or a password would be taken for something else.
    """
    scheme, _, rest = url.partition("://")
    if scheme not in {"postgresql", "postgres"}:
        raise DatabaseError("The URL of the database has no scheme `postgresql://`.", hint="Begin it with that.")
    authority, *_ = re.split(r"[/?#]", rest, maxsplit=1)
    path, _, query = rest[len(authority) :].partition("?")
    user, at, hosts = authority.rpartition("@")
    ports = re.fullmatch(r"((\[[^]]*\]|[^:,]*)(:\d*)?(,|$))*", hosts)
    if "@" in user or "@" in path or ports is None or not (at or "@" not in query.partition("=")[0]):
        # Nothing of it is shown: what stands in the wrong place may be a password.
        text = "The URL of the database cannot be understood: its host and port are not where they should be."
        raise DatabaseError(text, hint=_ENCODE)
    options = {key: values[-1] for key, values in parse_qs(query).items()}
    host = options.get("host") or unquote(hosts) or "localhost"
    return f"postgresql://{host}/{options.get('dbname') or unquote(path.lstrip('/'))}".rstrip("/")


def misread(name: str, text: str) -> DatabaseError:
    """The error for a URL that libpq does not understand; what it quotes of the URL may be a password."""
    said = re.sub(r'"[^"]*"', '"..."', " ".join(text.split()))
    hint = _PARAMETERS if "query parameter" in said else _ENCODE
    return DatabaseError(f"The URL of the database {name} cannot be understood: {said}.", hint=hint)
