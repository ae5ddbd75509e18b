"""`dk-trio provider ask`: any RPC of the contract, with JSON in and out."""

from __future__ import annotations

import click

from dk_trio.cli._connect import Connection, connection_options, timeout_option
from dk_trio.cli._exits import CODES, Exit
from dk_trio.cli._output import write_line
from dk_trio.cli.call import read_input

from ._client import Send, metadata_option, split_address, talk


@click.command(
    "ask",
    epilog=f"""\b
Examples:
  dk-trio provider ask --list
  dk-trio provider ask --describe storage.StoreRecord
  dk-trio provider ask setup.ListSetups '{{"limit": 10}}'
  dk-trio provider ask 127.0.0.1:50051 SetupService/GetSetup '{{"setup_id": "setups:a"}}'
  dk-trio provider ask storage.StoreRecord @record.json

Without an address, that of DIGITALKIN_PROVIDER is asked. A method is SERVICE.METHOD, SERVICE/METHOD, or its bare name
where only one service has it. The request is protobuf's JSON, an empty one when none is given: names as in the .proto
files or in lowerCamelCase, enums by name, bytes as base64, times as 2026-01-31T12:00:00Z. Each reply is one line of
JSON on stdout.

\b
{CODES}""",
)
@click.argument("words", nargs=-1, metavar="[HOST:PORT] METHOD [JSON|@FILE|-]")
@click.option("--list", "listed", is_flag=True, help="Show all methods.")
@click.option("--describe", "described", metavar="METHOD", help="Show the fields of a method, with types and rules.")
@timeout_option
@metadata_option
@connection_options
def command(
    *,
    words: tuple[str, ...],
    listed: bool,
    described: str | None,
    timeout: float,
    metadata: tuple[str, ...],
    connection: Connection,
) -> int:
    """Call any method of a provider, or of a module server."""
    if listed or described:
        from ._contract import describe, find, listing

        click.echo(listing() if described is None else describe(find(described)))
        return Exit.OK
    address, rest = split_address(words)
    if not 1 <= len(rest) <= 2:
        raise click.UsageError(
            "Name one method, and after it at most one JSON object. `--list` shows all methods."
            if not rest
            else f"{len(rest)} words stand after the address; a method and one JSON object are wanted. Quote the JSON."
        )

    from ._contract import find
    from ._json import FieldError, from_json, to_json

    try:
        method = find(rest[0])
    except click.UsageError:
        if len(rest) == 2 and _is_method(rest[1]):
            raise click.UsageError(
                f"{rest[0]!r} before the method is no address. Write HOST:PORT, such as 127.0.0.1:50051."
            ) from None
        raise
    data = read_input(rest[1], "JSON") if len(rest) == 2 else {}
    try:
        request = from_json(method.request, data)
    except FieldError as error:
        told = str(error) if str(error).endswith((".", "?")) else f"{error}."
        raise click.UsageError(f"{method.short}: {told} `--describe {method.short}` shows all fields.") from None

    async def work(send: Send) -> None:
        await send(method, request, lambda reply: write_line(to_json(reply)))

    return talk(address, connection, timeout, metadata, work)


def _is_method(word: str) -> bool:
    from ._contract import find

    try:
        find(word)
    except click.UsageError:
        return False
    return True
