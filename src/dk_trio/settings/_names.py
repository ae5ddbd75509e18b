"""Names that are set and not read: those of the existing SDK that mean nothing here, and those that were mistyped."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

_PREFIXES = ("DIGITALKIN_", "SERVER_")

# Two edits in a name of 30 characters, one in the shortest; measured over single typos of all names.
_NEAR = 0.9


class NotUsed(NamedTuple):
    """Names that mean nothing here for one reason."""

    names: tuple[str, ...]
    why: str
    unless: str = ""
    """A value that says what holds here anyway; it needs no answer."""


NOT_USED = (
    NotUsed(
        ("SERVER_MAX_WORKERS",),
        "there is no synchronous server with a pool of threads; DIGITALKIN_WORKERS is the number of processes",
    ),
    NotUsed(
        ("SERVER_CHANNEL_COMMUNICATION_MODE",), "a server is always asynchronous, and there is no other", unless="async"
    ),
    NotUsed(
        ("SERVER_CHANNEL_MTLS",), "clients must show a certificate when DIGITALKIN_TLS_CLIENT_CA is set", unless="false"
    ),
    NotUsed(("SERVER_CHANNEL_DATABASE_URL",), "a module has no database of its own; `dk-trio provider --db` has one"),
    NotUsed(
        ("SERVER_CHANNEL", "SERVER_GRPC", "SERVER_GRPC_OPTIONS"),
        "a whole group of settings as JSON is not read; set its variables one by one, such as SERVER_CHANNEL_PORT",
    ),
    NotUsed(
        ("SERVER_GRPC_OPTIONS_MAX_PINGS_WITHOUT_DATA",),
        "the PINGs of a connection are bounded by the time between them alone",
    ),
    NotUsed(
        ("SERVER_GRPC_OPTIONS_KEEPALIVE_PERMIT_WITHOUT_CALLS",),
        "PINGs without calls are always permitted",
        unless="true",
    ),
    NotUsed(
        (
            "SERVER_NAME",
            *(
                f"DIGITALKIN_{name}"
                for name in """
                RSTREAM_TIMEOUT RSTREAM_MAX_TIMEOUTS RSTREAM_MAX_RETRIES RSTREAM_INITIAL_CREDIT RSTREAM_QUEUE_SIZE
                RSTREAM_BATCH_DELAY RSTREAM_CONTEXT_SWITCH TASKIQ_PREFETCH TASKIQ_RESULT_BACKEND_URL
                ORPHAN_SESSION_TIMEOUT ORPHAN_CHECK_INTERVAL
                """.split()
            ),
            *(
                f"RABBITMQ_{name}"
                for name in """
                RSTREAM_HOST RSTREAM_PORT RSTREAM_USERNAME RSTREAM_PASSWORD RSTREAM_SSL RSTREAM_SSL_VERIFY
                BROKER_HOST BROKER_PORT BROKER_USERNAME BROKER_PASSWORD BROKER_SCHEME
                """.split()
            ),
        ),
        "jobs run in the process that serves them, without taskiq and RabbitMQ",
    ),
)
"""The variables of the existing SDK that are not read, and why: who sets one must not believe in it."""


def why_not_used(name: str) -> str | None:
    """Why a variable of the existing SDK is not read; none for all other names."""
    return next((row.why for row in NOT_USED if name in row.names), None)


def warnings_for(environ: Mapping[str, str], *, read: Collection[str]) -> Iterator[str]:
    """One line for each reason not to read a variable that is set, and for each name that was probably mistyped.

    Args:
        environ: The variables that are set.
        read: The names that this version reads.
    """
    for row in NOT_USED:
        names = [name for name in row.names if environ.get(name, "").lower() not in {"", row.unless}]
        if names:
            yield f"{', '.join(names)} {'is' if len(names) == 1 else 'are'} set but not used: {row.why}."
    known = {name for row in NOT_USED for name in row.names}
    for name in sorted(environ):
        if name.startswith(_PREFIXES) and name not in read and name not in known and (near := nearest(name, read)):
            yield f"{name} is not a known variable; did you mean {near}?"


def nearest(name: str, read: Collection[str], *, likeness: float = _NEAR) -> str | None:
    """The known name that resembles this one most; none when it resembles nothing. `likeness` is from 0 to 1."""
    import difflib  # 5 ms that only a mistyped variable needs

    matches = difflib.get_close_matches(name, read, n=1, cutoff=likeness)
    return matches[0] if matches else None
