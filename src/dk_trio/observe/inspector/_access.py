"""Who may look, and who may act. Pure: headers in, a refusal or nothing out.

The inspector shows what runs and whose it is, so it is for the operator alone:

- It is bound to loopback unless told otherwise, and bound elsewhere it must have a token.
- Without a token, whoever can connect may look, and that is any page in the operator's browser whose name an attacker
  points at 127.0.0.1 (DNS rebinding). Such a request says so in its Host header, and is refused. With a token there is
  nothing to check: a browser gives the cookie to the name that it got it from.
- The token comes as `Authorization: Bearer ...`, or once as `?token=...`, which is answered with a cookie and a
  redirect, so that it does not stay in the address bar, the history and the logs. The cookie is not the token.
- A page of another origin cannot read what it asks for, but its frames and images could take the places of all who may
  look on. A browser says whose they are, and they are refused.
- To stop a job takes a header that a page of another origin cannot send, and the Origin of this page.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from dk_trio.addresses import bare, is_loopback

ACTION_HEADER: Final = "x-dk-trio"
"""Of requests that change something, with any value: no form can have it, and a script of another origin has to ask."""


class Refusal(NamedTuple):
    """Why a request is refused, for the one who sent it."""

    status: HTTPStatus
    text: str


_OF_ANOTHER_ORIGIN: Final = Refusal(HTTPStatus.FORBIDDEN, "This request comes from a page of another origin.")


class Access:
    """What requests need.

    Args:
        host: What the inspector listens on.
        token: What it asks for; None: nothing.
        actions: Whether jobs may be stopped.
    """

    def __init__(self, *, host: str, token: str | None, actions: bool) -> None:
        self._host = host
        self._token = token
        self._actions = actions
        # What a browser keeps is good for this token and of no other use.
        self.cookie = None if token is None else hmac.digest(token.encode(), b"dk-trio inspector", "sha256").hex()

    def knows(self, token: str) -> bool:
        """Whether this is the token."""
        return self._token is not None and _same(token, self._token)

    def refuses(self, headers: Mapping[str, str], cookie: str) -> Refusal | None:
        """Why this request may not look, if it may not.

        Args:
            headers: By name in lower case.
            cookie: Value of our cookie; empty when there is none.
        """
        if _foreign(headers) and headers.get("sec-fetch-dest") != "document":  # a link to the page may be anywhere
            return _OF_ANOTHER_ORIGIN
        if self.cookie is None:
            host = _name(headers.get("host", ""))
            if host == bare(self._host) or is_loopback(host):
                return None
            return Refusal(
                HTTPStatus.FORBIDDEN,
                f"The Host header names {host[:100]!r}, and only loopback is allowed without a token. Open the page as "
                "http://127.0.0.1, or set DIGITALKIN_INSPECTOR_TOKEN.",
            )
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if (scheme.lower() == "bearer" and self.knows(given.strip())) or _same(cookie, self.cookie):
            return None
        return Refusal(
            HTTPStatus.UNAUTHORIZED,
            "This inspector asks for its token (DIGITALKIN_INSPECTOR_TOKEN): open /?token=..., or send it as "
            "`Authorization: Bearer ...`.",
        )

    def refuses_action(self, headers: Mapping[str, str]) -> Refusal | None:
        """Why a request that may look may not act, if it may not."""
        if not self._actions:
            return Refusal(
                HTTPStatus.FORBIDDEN, "This inspector is read-only: set DIGITALKIN_INSPECTOR_ACTIONS=true to stop jobs."
            )
        if ACTION_HEADER not in headers:
            return Refusal(HTTPStatus.FORBIDDEN, f"A request that changes something needs the header {ACTION_HEADER}.")
        origin = headers.get("origin")
        foreign = origin is not None and urlsplit(origin).netloc.lower() != headers.get("host", "").lower()
        return _OF_ANOTHER_ORIGIN if foreign or _foreign(headers) else None


def _foreign(headers: Mapping[str, str]) -> bool:
    """Whether a browser says that a page of another origin asks."""
    return headers.get("sec-fetch-site", "same-origin") not in {"same-origin", "none"}


def _name(header: str) -> str:
    """The host in a Host header, without its port and brackets."""
    if header.startswith("["):
        return bare(header.partition("]")[0])
    return bare(header.partition(":")[0])


def _same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode(errors="surrogateescape"), expected.encode())
