"""The tokens that a server takes: one of the settings, and those of a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from hmac import compare_digest
from itertools import takewhile
from pathlib import Path
from typing import Final

from dk_trio.errors import TokenFileError

_SHORT: Final = 16
"""Characters below which a token can be guessed; 16 of base64 are 96 bits."""


@dataclass(frozen=True, slots=True)
class Token:
    """A token, which is never shown.

    Attributes:
        name: Who is known by it, for logs, limits and authorization.
        secret: The token itself.
    """

    name: str
    secret: bytes = field(repr=False)


def read_tokens(path: Path) -> Sequence[Token]:
    """The tokens of a file: one a line, a name may stand before it. A word that begins with `#` begins a comment.

        # deployed with the mesh
        scheduler  6nM3sV...
        kT9dQe...

    A token without a name is known by its line, as `token-3`. A file without tokens lets nobody in.

    Raises:
        TokenFileError: It cannot be read, or a line is none.
    """
    where = f"DIGITALKIN_AUTH_TOKENS_FILE={path} (--auth-token-file) cannot be used"
    try:
        text = path.read_text(encoding="ascii")
    except FileNotFoundError:
        raise TokenFileError(f"{where}: there is no such file.", hint="Write one token a line into it.") from None
    except OSError as error:
        raise TokenFileError(
            f"{where}: {error.strerror}.", hint="Let this process, and nobody else, read it."
        ) from None
    except UnicodeDecodeError:
        raise TokenFileError(f"{where}: it is not ASCII text.", hint="A token is printable ASCII.") from None
    tokens: list[Token] = []
    for number, line in enumerate(text.splitlines(), 1):
        # Not the sign anywhere: of a token that has it in its middle, what stands before it would be enough.
        words = [*takewhile(lambda word: not word.startswith("#"), line.split())]
        if len(words) > 2 or not all(word.isprintable() for word in words):
            # Not the line itself: what is wrong with it may be a token.
            raise TokenFileError(
                f"{where}: line {number} has more than a name and a token, or signs that cannot be printed.",
                hint="Write `TOKEN` or `NAME TOKEN`, and comments behind a #.",
            )
        if words:
            tokens.append(Token(words[0] if len(words) == 2 else f"token-{number}", words[-1].encode()))
    return tokens


def known(tokens: Sequence[Token], shown: str) -> Token | None:
    """The token that was shown, if it is one of these. All are compared, each in constant time."""
    secret = shown.encode("utf-8", "surrogateescape")
    found: Token | None = None
    for token in tokens:
        if compare_digest(token.secret, secret) and secret:  # an empty one is nobody's, whoever has made it
            found = token
    return found


def weak(tokens: Sequence[Token]) -> Sequence[str]:
    """Names of tokens that can be guessed."""
    return [token.name for token in tokens if len(token.secret) < _SHORT]
