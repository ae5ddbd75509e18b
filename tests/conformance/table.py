"""The suite as the page on remote mode shows it: how many behaviours each backend has, and where two sides differ."""

from __future__ import annotations

from collections import Counter

from . import SERVICES
from .backends import BACKENDS
from .kit import LOCAL, Check, checks


def table() -> str:
    """Services by backends, in numbers of behaviours."""
    found = [*checks()]
    columns = [
        Counter(check.service for check in found if check.holds_for(remote=it.remote, virtual=it.virtual))
        for it in BACKENDS.values()
    ]
    rows = [
        f"| service | {' | '.join(it.title for it in BACKENDS.values())} |",
        "|---" * (len(columns) + 1) + "|",
        *(f"| {service} | {' | '.join(str(column[service]) for column in columns)} |" for service in SERVICES),
        f"| together | {' | '.join(str(column.total()) for column in columns)} |",
    ]
    return "\n".join(rows) + "\n"


def differences() -> str:
    """What is true of one side only, in the words of its behaviour."""
    told = {(check.service, check.only, check.why): check for check in checks() if check.only}
    rows = ["| service | where | what |", "|---|---|---|"]
    rows += [f"| {check.service} | {_side(check)} | {check.why} |" for check in told.values()]
    return "\n".join(rows) + "\n"


def _side(check: Check) -> str:
    return "local" if check.only == LOCAL else "behind a provider"
