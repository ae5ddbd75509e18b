"""What the commands that talk to a running provider share: address, channel, and what a status is told as."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

import click

from dk_trio.cli._exits import Exit, exit_of_status
from dk_trio.cli.call import check_address, check_metadata, parse_pair, unwritten

if TYPE_CHECKING:
    from grpclib.exceptions import GRPCError

    from dk_trio import rpc

    from ._contract import Method


class Send(Protocol):
    """Sends a request and calls a function with each reply; raises GRPCError."""

    async def __call__(
        self, method: Method, request: Any, each: Callable[[Any], object], extra: Mapping[str, str] = ..., /
    ) -> None:
        """`extra` is metadata of this call alone."""


timeout_option = click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=10.0,
    show_default=True,
    help="Seconds for each call.",
)
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
    address: str | None, timeout: float, metadata: tuple[str, ...], work: Callable[[Send], Awaitable[None]]
) -> int:
    """Run `work` with a channel to a provider; the exit code.

    Args:
        address: Of the provider; None is the one of the settings.
        timeout: Seconds for each call.
        metadata: `KEY=VALUE`, sent with each request.
        work: What to ask.
    """
    pairs: list[tuple[str, str | bytes]] = [parse_pair(pair) for pair in metadata]
    check_metadata(pairs)

    import trio
    from grpclib.exceptions import GRPCError

    from dk_trio import rpc
    from dk_trio.client import channel_options
    from dk_trio.settings import Settings

    settings = Settings.from_environment(serving=False)
    for warning in settings.warnings:
        click.echo(f"dk-trio: {warning}", err=True)
    target = address or settings.services.provider

    async def run() -> None:
        async with rpc.open_channel(target, options=channel_options(settings.channel)) as channel:
            await work(partial(_send, channel, timeout, pairs))

    try:
        trio.run(run)
    except GRPCError as error:
        click.echo(f"dk-trio: {target}: {told(error)}", err=True)
        return exit_of_status(error.status)
    except OSError as error:  # of stdout
        return unwritten(error)
    return Exit.OK


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


def told(error: GRPCError) -> str:
    """A status as one paragraph: its message, and the fields that it refuses and the message does not name."""
    text = f"{error.status.name}: {error.message or 'no message'}"
    details = error.details if isinstance(error.details, list) else []
    violations = [row for detail in details for row in getattr(detail, "field_violations", ())]
    return " ".join([text, *(_told(row.field, row.description, text) for row in violations if row.field not in text)])


def _told(field: str, rule: str, text: str) -> str:
    """What a message does not say of a field that was refused; often it tells the rule, and not of what."""
    return f"({field})" if rule.lower() in text.lower() else f"{field}: {rule}."
