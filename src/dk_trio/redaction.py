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

# Ends of names, and repetitions that have an end: a caller may choose the text, and not how long this takes.
_NAME = r"(?:auth|authorization|cookie|jwt|api[-_]?key|passphrase|passwd|password|secret|signature|token)"

_NAMED = ("auth", "cookie", "jwt", "key", "pass", "secret", "signature", "token")

_SHAPES: Final = (
    # scheme://user:password@host
    (("://",), re.compile(r"(://[^\s/@:\"']{0,128}:)[^\s/@\"']{1,512}(?=@)"), rf"\g<1>{MASK}"),
    # a scheme of HTTP and its token
    (
        ("bearer", "basic"),
        re.compile(r"\b(bearer|basic)\s{1,4}[\w.~+/=-]{6,}", re.IGNORECASE),
        rf"\g<1> {MASK}",
    ),
    # a header and its value
    (
        ("authorization", "api-key", "cookie"),
        re.compile(r"\b(authorization|api-key|cookie)(\s?:\s?)(?!bearer|basic|\*)[^\s,;\"']+", re.IGNORECASE),
        rf"\g<1>\g<2>{MASK}",
    ),
    # token=abc of a URL, a form or a call
    (
        _NAMED,
        re.compile(rf"({_NAME}=[\"']?)(?![*\"'])[^\s&;,\"')]+", re.IGNORECASE),
        rf"\g<1>{MASK}",
    ),
    # "password": "abc" of JSON or a repr, ("password", "abc") of a pair
    (
        _NAMED,
        re.compile(rf"({_NAME}[\"']\s?[:,]\s?b?)([\"'])(?!\*)(?:\\.|(?!\2).){{1,4096}}\2", re.IGNORECASE),
        rf"\g<1>\g<2>{MASK}\g<2>",
    ),
)
"""Words of which one must be there, in lower case, which costs a fiftieth to find out; pattern; replacement."""


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
        lower = text.lower()
        for words, pattern, replacement in _SHAPES:
            for word in words:
                if word in lower:
                    text = pattern.sub(replacement, text)
                    break
        return text

    return redact
