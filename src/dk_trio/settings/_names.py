"""Names of variables: those that exist but have no effect yet, and the question whether a name was mistyped."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

_PREFIX = "DIGITALKIN_"

# Variables of the tuning guide that this version does not read. Setting one is legal and is answered by a line that
# says so: an operator must not believe in a limit that nobody applies.
NOT_USED: frozenset[str] = frozenset()

# Two edits in a name of 30 characters, one in the shortest; measured over single typos of all names.
_NEAR = 0.9


def warnings_for(environ: Mapping[str, str], *, read: Collection[str]) -> Iterator[str]:
    """One line for each variable without effect: known but not used by this version, or probably mistyped.

    Args:
        environ: The variables that are set.
        read: The names that this version reads.
    """
    for name in sorted(environ):
        if not name.startswith(_PREFIX) or name in read:
            continue
        if name in NOT_USED:
            yield f"{name} is set but not used by this version."
        elif near := _nearest(name, read):
            yield f"{name} is not a known variable; did you mean {near}?"


def _nearest(name: str, read: Collection[str]) -> str | None:
    import difflib  # 5 ms that only a mistyped variable needs

    matches = difflib.get_close_matches(name, [*read, *NOT_USED], n=1, cutoff=_NEAR)
    return matches[0] if matches else None
