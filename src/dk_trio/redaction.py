"""What must not be written anywhere: names that stand for a secret, and texts in which one may stand.

A look at names and shapes, not a proof: it catches what programs write by accident. A value that is masked although it
is no secret costs a look; the other way round costs a key.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Final

MASK: Final = "***"

SECRET_NAME: Final = re.compile(
    r"(.*[-_.])?"
    r"(auth|authorization|cookie|credentials?|jwt|key|apikey|passphrase|passwd|password|secret|session|signature|token)"
    r"(-bin)?",
    re.IGNORECASE,
)
"""Names of headers, fields and parameters whose values are secrets: whole names, or their last word."""

SHORTEST: Final = 6
"""Characters of the shortest configured secret that is looked for: a shorter one would mask half of every text."""

# Every repetition has an end: a caller may choose what is looked through, and must not choose how long that takes.
_NAME = (
    r"[\w.-]{0,32}(?:auth|authorization|cookie|jwt|api[-_]?key|passphrase|passwd|password|secret|signature|token)(?!\w)"
)

_SHAPES: Final = (
    # scheme://user:password@host
    (re.compile(r"(://[^\s/@:\"']{0,128}:)[^\s/@\"']{1,512}(?=@)"), rf"\g<1>{MASK}"),
    # a scheme of HTTP and its token
    (re.compile(r"\b(bearer|basic)\s{1,4}[\w.~+/=-]{6,}", re.IGNORECASE), rf"\g<1> {MASK}"),
    # a header and its value
    (
        re.compile(r"\b(authorization|api-key|cookie)(\s?:\s?)(?!bearer|basic|\*)[^\s,;\"']+", re.IGNORECASE),
        rf"\g<1>\g<2>{MASK}",
    ),
    # token=abc of a URL, a form or a call
    (re.compile(rf"\b({_NAME}=[\"']?)(?![*\"'])[^\s&;,\"')]+", re.IGNORECASE), rf"\g<1>{MASK}"),
    # "password": "abc" of JSON or a repr, ("password", "abc") of a pair
    (
        re.compile(rf"([\"']{_NAME}[\"']\s?[:,]\s?b?)([\"'])(?!\*)(?:\\.|(?!\2).){{1,4096}}\2", re.IGNORECASE),
        rf"\g<1>\g<2>{MASK}\g<2>",
    ),
)

# Most texts have none of these, and one look says so.
_SUSPICIOUS: Final = re.compile(r"://|bearer|basic|auth|cookie|jwt|key|pass|secret|signature|token", re.IGNORECASE)


def redactor(secrets: Iterable[str] = ()) -> Callable[[str], str]:
    """A function that masks secrets in a text: the given ones wherever they stand, others where their place tells.

    Args:
        secrets: Configured values. Those of fewer than `SHORTEST` characters are not looked for.
    """
    known = sorted({secret for secret in secrets if len(secret) >= SHORTEST}, key=len, reverse=True)

    def redact(text: str) -> str:
        for secret in known:
            if secret in text:
                text = text.replace(secret, MASK)
        if _SUSPICIOUS.search(text) is not None:
            for shape, replacement in _SHAPES:
                text = shape.sub(replacement, text)
        return text

    return redact
