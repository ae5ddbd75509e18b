"""`dk-trio call`: start a job, print its outputs as they arrive, end with a code that says how it went."""

from __future__ import annotations

import json
import math
import os
import socket
import sys
from pathlib import Path
from typing import Any, NoReturn

import click
from grpclib.const import Status

from ._exits import TABLE, Exit, exit_of_status


@click.command(
    epilog=f"""\b
Examples:
  dk-trio call 127.0.0.1:50055 --protocol message --input '{{"text": "hello"}}'
  dk-trio call 127.0.0.1:50055 --input '{{"root": {{"protocol": "message", "text": "hello"}}}}'
  dk-trio call unix:/run/module.sock --input @input.json --timeout 30
  echo '{{"text": "hello"}}' | dk-trio call 127.0.0.1:50055 --protocol message --input -
  dk-trio call 127.0.0.1:50055 --health

Outputs go to stdout, one JSON object a line, the first and the last message of the stream included; what goes wrong
goes to stderr. Ctrl-C cancels the job on the server. --health works with a provider, and any other gRPC server, too;
one that is not ready is exit code 24.

\b
{TABLE}"""
)
@click.argument("address", metavar="HOST:PORT")
@click.option(
    "--input",
    "input_text",
    metavar="JSON|@FILE|-",
    help='The input, or only its root: an object without "root" is wrapped. "-" reads stdin.',
)
@click.option(
    "--health", is_flag=True, help="Ask whether the server is ready, and why it is not, instead of calling it."
)
@click.option("--protocol", help="Put into the root when it has none.")
@click.option("--setup-id", default="setups:default", show_default=True)
@click.option("--mission-id", default="missions:default", show_default=True)
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), help="Seconds for the whole job.")
@click.option("--metadata", multiple=True, metavar="KEY=VALUE", help="Sent with the request; may be repeated.")
def command(
    *,
    address: str,
    input_text: str | None,
    health: bool,
    protocol: str | None,
    setup_id: str,
    mission_id: str,
    timeout: float | None,
    metadata: tuple[str, ...],
) -> int:
    """Call a module and print its outputs, one JSON object a line."""
    check_address(address)
    if timeout is not None and math.isnan(timeout):
        raise click.BadParameter("nan is no time.", param_hint="--timeout")
    if health and input_text is not None:
        raise click.UsageError("--health calls nothing, so it takes no --input.")
    if not health and input_text is None:
        raise click.UsageError("Missing option '--input'.")
    data = None if input_text is None else read_input(input_text)
    pairs: list[tuple[str, str | bytes]] = [parse_pair(pair) for pair in metadata]
    check_metadata(pairs)

    import trio
    from grpclib.exceptions import GRPCError

    from dk_trio.client import ModuleClient, channel_options
    from dk_trio.settings import Settings

    data = None if data is None else _sendable(data, protocol)
    settings = Settings.from_environment(serving=False)
    for warning in settings.warnings:
        click.echo(f"dk-trio: {warning}", err=True)

    async def call() -> int:
        async with ModuleClient.connect(address, options=channel_options(settings.channel)) as client:
            if data is None:
                from ._health import check

                found = await check(client.channel, timeout=timeout, metadata=pairs)
                write_line(found)
                return Exit.OK if found["status"] == "SERVING" else exit_of_status(Status.UNAVAILABLE)
            async with client.start(
                data, setup_id=setup_id, mission_id=mission_id, timeout=timeout, metadata=pairs
            ) as outputs:
                async for output in outputs:
                    write_line(output)
        return Exit.OK

    try:
        return trio.run(call)
    except GRPCError as error:
        click.echo(f"dk-trio: {error.status.name}: {error.message or 'no message'}", err=True)
        return exit_of_status(error.status)
    except OSError as error:  # of stdout: those of the network have become statuses
        return unwritten(error)


def _sendable(data: dict[str, Any], protocol: str | None) -> dict[str, Any]:
    """The input with its root and protocol.

    Raises:
        click.BadParameter: No server could read it.
    """
    from dk_trio.client import wrap_input
    from dk_trio.pb.google.protobuf import Struct

    try:
        data = wrap_input(data, protocol)
    except ValueError as error:
        raise click.BadParameter(f"{error}.", param_hint="--protocol") from None
    try:
        bytes(Struct.from_dict(data))
    except (TypeError, ValueError) as error:  # a lone surrogate, a nesting that no server reads, a huge number
        raise click.BadParameter(f"the input cannot be sent: {error}.", param_hint="--input") from None
    return data


def unwritten(error: OSError) -> int:
    """Tell why stdout takes no more; the exit code."""
    # Python would complain once more when it flushes at exit.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if isinstance(error, BrokenPipeError):  # its reader went away, such as `| head`
        return Exit.BROKEN_PIPE
    click.echo(f"dk-trio: the output cannot be written: {error.strerror}.", err=True)
    return Exit.DEFECT


def write_line(output: dict[str, Any]) -> None:
    """One output as one line of UTF-8, at once. A reader that does not read holds the call, and so the module."""
    line = json.dumps(with_integers(output), ensure_ascii=False, separators=(",", ":"))
    if sys.stdout is None:  # the process was started without one
        return
    sys.stdout.buffer.write(line.encode("utf-8", "backslashreplace") + b"\n")
    sys.stdout.buffer.flush()


def with_integers(value: Any) -> Any:
    """Numbers as protobuf's JSON mapping prints them: the doubles of a Struct that are whole become whole numbers."""
    if isinstance(value, float):
        if value.is_integer():
            return int(value)
        # "NaN", "Infinity", "-Infinity" there: JSON has no such numbers.
        return value if math.isfinite(value) else json.dumps(value)
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
    if host.startswith("[") and not _is_ipv6(host[1:-1]):
        raise click.BadParameter(f"{host!r} is not an IPv6 address.", param_hint="HOST:PORT")
    if not (port.isascii() and port.isdigit() and 0 < int(port) <= 65535):
        raise click.BadParameter(f"{port!r} is not a port from 1 to 65535.", param_hint="HOST:PORT")


class _NotJSONError(Exception):
    pass


def _no_constant(text: str) -> NoReturn:
    # Python's own reader takes NaN and Infinity.
    raise _NotJSONError(f"{text} is no JSON value")


def _is_ipv6(text: str) -> bool:
    try:
        socket.inet_pton(socket.AF_INET6, text.partition("%")[0])
    except OSError:
        return False
    return True


def read_input(text: str, hint: str = "--input") -> dict[str, Any]:
    """The JSON object that an argument gives, names, or is piped in; `hint` is the argument's name in errors."""
    if text == "-":
        source, raw = "stdin", sys.stdin.buffer.read() if sys.stdin is not None else b""
    elif text.startswith("@"):
        source = text[1:]
        if not source:
            raise click.BadParameter("@ needs the name of a file after it.", param_hint=hint)
        try:
            raw = Path(source).read_bytes()
        except OSError as error:
            raise click.BadParameter(f"{source} cannot be read: {error.strerror}.", param_hint=hint) from None
    else:
        source, raw = "the argument", text.encode("utf-8", "surrogateescape")
    try:
        data = json.loads(raw.decode("utf-8"), parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        raise click.BadParameter(f"{source} is not UTF-8 text (byte {error.start}).", param_hint=hint) from None
    except json.JSONDecodeError as error:
        raise click.BadParameter(
            f"{source} is not JSON: line {error.lineno}, column {error.colno}: {error.msg}.", param_hint=hint
        ) from None
    except _NotJSONError as error:
        raise click.BadParameter(f"{source} is not JSON: {error}.", param_hint=hint) from None
    except RecursionError:
        raise click.BadParameter(f"{source} is nested too deep.", param_hint=hint) from None
    if not isinstance(data, dict):
        raise click.BadParameter(
            f"{source} holds a {type(data).__name__}; the input is a JSON object.", param_hint=hint
        )
    return data


def parse_pair(pair: str) -> tuple[str, str]:
    """`KEY=VALUE`; keys are lower case on the wire."""
    key, equals, value = pair.partition("=")
    if not equals or not key:
        raise click.BadParameter(f"{pair!r} is not KEY=VALUE.", param_hint="--metadata")
    return key.lower(), value


def check_metadata(pairs: list[tuple[str, str | bytes]]) -> None:
    """Refuse keys and values that gRPC cannot carry."""
    from dk_trio.wire.metadata import encode_metadata

    try:
        encode_metadata(pairs)
    except (TypeError, ValueError) as error:
        raise click.BadParameter(f"{error}.", param_hint="--metadata") from None
