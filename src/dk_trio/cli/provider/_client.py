"""What the commands that talk to a running provider share: its address, and requests on a channel to it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

import click

from dk_trio.cli import _connect
from dk_trio.cli._connect import Connection, check_address
from dk_trio.cli.call import check_metadata, parse_pair

if TYPE_CHECKING:
    from dk_trio import rpc

    from ._contract import Method


class Send(Protocol):
    """Sends a request and calls a function with each reply; raises GRPCError."""

    async def __call__(
        self, method: Method, request: Any, each: Callable[[Any], object], extra: Mapping[str, str] = ..., /
    ) -> None:
        """`extra` is metadata of this call alone."""


metadata_option = click.option(
    "--metadata", multiple=True, metavar="KEY=VALUE", help="Sent with each request; may be repeated."
)


def split_address(words: tuple[str, ...]) -> tuple[str | None, list[str]]:
    """The address that comes first, if one does, and the other words."""
    if words and is_address(words[0]):
        check_address(words[0])
        return words[0], list(words[1:])
    return None, list(words)


def is_address(word: str) -> bool:
    """Whether a word is an address, right or wrong; neither a method nor JSON has a colon in its place."""
    return word.startswith("unix:") or (":" in word and not word.lstrip().startswith(("{", "[{", "@")))


def talk(
    address: str | None,
    connection: Connection,
    timeout: float,
    metadata: tuple[str, ...],
    work: Callable[[Send], Awaitable[None]],
) -> int:
    """Run `work` with a channel to a provider; the exit code.

    Args:
        address: Of the provider; None is the one of the settings.
        connection: What the options say of TLS and token.
        timeout: Seconds for each call.
        metadata: `KEY=VALUE`, sent with each request.
        work: What to ask.
    """
    pairs: list[tuple[str, str | bytes]] = [parse_pair(pair) for pair in metadata]
    check_metadata(pairs)

    async def on(channel: rpc.Channel) -> None:
        await work(partial(_send, channel, timeout, pairs))

    return _connect.talk(address, connection, on)


async def _send(
    channel: rpc.Channel,
    timeout: float,
    metadata: list[tuple[str, str | bytes]],
    method: Method,
    request: Any,
    each: Callable[[Any], object],
    extra: Mapping[str, str] = MappingProxyType({}),
) -> None:
    pairs = [*metadata, *extra.items()]
    async with channel.request(
        method.route, method.cardinality, method.request, method.reply, timeout=timeout, metadata=pairs
    ) as stream:
        await stream.send_message(request, end=True)
        while (reply := await stream.recv_message()) is not None:
            each(reply)
