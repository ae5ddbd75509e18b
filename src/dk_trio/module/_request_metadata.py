"""The caller's metadata as a module sees it: immutable, without gRPC's own keys, with secrets masked in `repr`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from dk_trio.extensions import MODULE_ID
from dk_trio.redaction import MASK, SECRET_NAME

# They speak of one connection or one call, not of what the caller wants: RFC 9110 section 7.6.1, RFC 9113 section
# 8.2.2, gRPC's call definition. Passed on, they would lie about ours, or be refused on the way out; and whoever is
# called next is another module.
NOT_FORWARDED: Final = frozenset(
    {
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        MODULE_ID,
        "host",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "user-agent",
    }
)


class RequestMetadata(Mapping[str, str | bytes]):
    """Metadata of the request by lower-case key; keys ending in `-bin` have bytes.

    Of a key that was sent several times the mapping has the first value; `getall` has them all. Two are equal when all
    their keys have the same values, in the same order.

    Args:
        pairs: Key and value in the order they were sent. Keys that start with `grpc-` are dropped.
    """

    __slots__ = ("_pairs",)

    def __init__(self, pairs: Iterable[tuple[str, str | bytes]] = ()) -> None:
        self._pairs = tuple((key.lower(), value) for key, value in pairs if not key.lower().startswith("grpc-"))

    def __getitem__(self, key: str) -> str | bytes:
        key = key.lower()
        for name, value in self._pairs:
            if name == key:
                return value
        raise KeyError(key)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and any(name == key.lower() for name, _ in self._pairs)

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(name for name, _ in self._pairs))

    def __len__(self) -> int:
        return len({name for name, _ in self._pairs})

    def __eq__(self, other: object) -> bool:
        if isinstance(other, RequestMetadata):
            return self._lists() == other._lists()
        return super().__eq__(other)

    def __hash__(self) -> int:
        return hash(frozenset(self._pairs))

    def getall(self, key: str) -> list[str | bytes]:
        """All values of a key, in order; empty when it was not sent."""
        return self._lists().get(key.lower(), [])

    @property
    def authorization(self) -> str | None:
        """The `authorization` header."""
        return self._text("authorization")

    @property
    def bearer_token(self) -> str | None:
        """The token of `authorization: Bearer <token>`, the scheme in any case."""
        scheme, _, token = (self.authorization or "").partition(" ")
        return token.strip() or None if scheme.lower() == "bearer" else None

    @property
    def api_key(self) -> str | None:
        """The `x-api-key` header."""
        return self._text("x-api-key")

    def to_dict(self) -> dict[str, str | bytes]:
        """A copy as a dict, with the first value of each key."""
        return dict(self)

    def to_grpc_metadata(self) -> list[tuple[str, str | bytes]]:
        """The pairs to pass on with a call of one's own: all values of all keys, but those of the caller's own call."""
        return [(name, value) for name, value in self._pairs if name not in NOT_FORWARDED and not name.startswith(":")]

    def _text(self, key: str) -> str | None:
        value = self.get(key)
        return value if isinstance(value, str) else None

    def _lists(self) -> dict[str, list[str | bytes]]:
        lists: dict[str, list[str | bytes]] = {}
        for name, value in self._pairs:
            lists.setdefault(name, []).append(value)
        return lists

    def __repr__(self) -> str:
        shown = [(name, MASK if SECRET_NAME.fullmatch(name) else value) for name, value in self._pairs]
        return f"RequestMetadata({shown})"
