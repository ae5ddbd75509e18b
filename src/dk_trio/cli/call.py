"""`dk-trio call`: start a job, print its outputs as they arrive, end with a code that says how it went."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import click

from ._exits import TABLE, Exit, exit_of_status


@click.command(
    epilog=f"""\b
Examples:
  dk-trio call 127.0.0.1:50055 --protocol message --input '{{"text": "hello"}}'
  dk-trio call 127.0.0.1:50055 --input '{{"root": {{"protocol": "message", "text": "hello"}}}}'
  dk-trio call unix:/run/module.sock --input @input.json --timeout 30
  echo '{{"text": "hello"}}' | dk-trio call 127.0.0.1:50055 --protocol message --input -

Outputs go to stdout, one JSON object a line, the first and the last message of the stream included; what goes wrong
goes to stderr. Ctrl-C cancels the job on the server.

\b
{TABLE}"""
)
@click.argument("address", metavar="HOST:PORT")
@click.option(
    "--input",
    "input_text",
    required=True,
    metavar="JSON|@FILE|-",
    help='The input, or only its root: an object without "root" is wrapped. "-" reads stdin.',
)
@click.option("--protocol", help="Put into the root when it has none.")
@click.option("--setup-id", default="setups:default", show_default=True)
@click.option("--mission-id", default="missions:default", show_default=True)
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), help="Seconds for the whole job.")
@click.option("--metadata", multiple=True, metavar="KEY=VALUE", help="Sent with the request; may be repeated.")
def command(
    *,
    address: str,
    input_text: str,
    protocol: str | None,
    setup_id: str,
    mission_id: str,
    timeout: float | None,
    metadata: tuple[str, ...],
) -> int:
    """Call a module and print its outputs, one JSON object a line."""
    check_address(address)
    data = read_input(input_text)
    pairs: list[tuple[str, str | bytes]] = [parse_pair(pair) for pair in metadata]

    import trio
    from grpclib.exceptions import GRPCError

    from dk_trio.client import ModuleClient, channel_options, wrap_input
    from dk_trio.settings import Settings

    try:
        data = wrap_input(data, protocol)
    except ValueError as error:
        raise click.BadParameter(f"{error}.", param_hint="--protocol") from None
    settings = Settings.from_environment()
    for warning in settings.warnings:
        click.echo(f"dk-trio: {warning}", err=True)

    async def call() -> None:
        async with (
            ModuleClient.connect(address, options=channel_options(settings.channel)) as client,
            client.start(data, setup_id=setup_id, mission_id=mission_id, timeout=timeout, metadata=pairs) as outputs,
        ):
            async for output in outputs:
                write_line(output)

    try:
        trio.run(call)
    except GRPCError as error:
        click.echo(f"dk-trio: {error.status.name}: {error.message or 'no message'}", err=True)
        return exit_of_status(error.status)
    except BrokenPipeError:
        # The reader of our stdout went away (`| head`). Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.BROKEN_PIPE
    return Exit.OK


def write_line(output: dict[str, Any]) -> None:
    """One output as one line of UTF-8, at once. A reader that does not read holds the call, and so the module."""
    line = json.dumps(with_integers(output), ensure_ascii=False, separators=(",", ":"))
    sys.stdout.buffer.write(line.encode("utf-8", "backslashreplace") + b"\n")
    sys.stdout.buffer.flush()


def with_integers(value: Any) -> Any:
    """Numbers as protobuf's JSON mapping prints them: the doubles of a Struct that are whole become whole numbers."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {key: with_integers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [with_integers(item) for item in value]
    return value


def check_address(address: str) -> None:
    """Refuse what cannot be an address before anything is tried."""
    if address.startswith("unix:"):
        if address == "unix:":
            raise click.BadParameter("unix: needs a path, such as unix:/run/module.sock.", param_hint="HOST:PORT")
        return
    host, colon, port = address.rpartition(":")
    if not colon or not host:
        raise click.BadParameter(f"{address!r} has no port; write HOST:PORT.", param_hint="HOST:PORT")
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise click.BadParameter(f"{address!r}: put an IPv6 address in brackets, [::1]:50055.", param_hint="HOST:PORT")
    if not (port.isascii() and port.isdigit() and 0 < int(port) <= 65535):
        raise click.BadParameter(f"{port!r} is not a port from 1 to 65535.", param_hint="HOST:PORT")


def read_input(text: str) -> dict[str, Any]:
    """The JSON object that `--input` gives, names, or is piped in."""
    if text == "-":
        source, raw = "stdin", sys.stdin.buffer.read()
    elif text.startswith("@"):
        source = text[1:]
        try:
            raw = Path(source).read_bytes()
        except OSError as error:
            raise click.BadParameter(f"{source} cannot be read: {error.strerror}.", param_hint="--input") from None
    else:
        source, raw = "the argument", text.encode("utf-8", "surrogateescape")
    try:
        data = json.loads(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise click.BadParameter(f"{source} is not UTF-8 text (byte {error.start}).", param_hint="--input") from None
    except json.JSONDecodeError as error:
        raise click.BadParameter(
            f"{source} is not JSON: line {error.lineno}, column {error.colno}: {error.msg}.", param_hint="--input"
        ) from None
    if not isinstance(data, dict):
        raise click.BadParameter(
            f"{source} holds a {type(data).__name__}; the input is a JSON object.", param_hint="--input"
        )
    return data


def parse_pair(pair: str) -> tuple[str, str]:
    """`KEY=VALUE`; keys are lower case on the wire."""
    key, equals, value = pair.partition("=")
    if not equals or not key:
        raise click.BadParameter(f"{pair!r} is not KEY=VALUE.", param_hint="--metadata")
    return key.lower(), value
