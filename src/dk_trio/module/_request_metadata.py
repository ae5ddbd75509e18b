"""The caller's metadata as a module sees it: immutable, without gRPC's own keys, with secrets masked in `repr`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

_SECRET = frozenset({"authorization", "x-api-key", "cookie", "proxy-authorization"})


class RequestMetadata(Mapping[str, str | bytes]):
    """Metadata of the request by lower-case key; keys ending in `-bin` have bytes.

    Of a key that was sent several times the mapping has the first value; `getall` has them all.

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

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(name for name, _ in self._pairs))

    def __len__(self) -> int:
        return len({name for name, _ in self._pairs})

    def getall(self, key: str) -> list[str | bytes]:
        """All values of a key, in order; empty when it was not sent."""
        key = key.lower()
        return [value for name, value in self._pairs if name == key]

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
        """A copy as a dict."""
        return dict(self)

    def to_grpc_metadata(self) -> list[tuple[str, str | bytes]]:
        """The pairs, to pass on with a call of one's own."""
        return list(self._pairs)

    def _text(self, key: str) -> str | None:
        value = self.get(key)
        return value if isinstance(value, str) else None

    def __repr__(self) -> str:
        shown = {name: "***" if name in _SECRET else value for name, value in self._pairs}
        return f"RequestMetadata({shown})"
