"""`dk-trio call`: start a job, print its outputs as they arrive, end with a code that says how it went."""

from __future__ import annotations

import json
import sys
from codecs import BOM_UTF8
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click
from grpclib.const import Status

from ._connect import Connection, address_argument, check_address, connection_options, talk
from ._exits import CODES, Exit, exit_of_status
from ._output import write_line
from ._seconds import Seconds

if TYPE_CHECKING:
    from dk_trio import rpc


@click.command(
    epilog=f"""\b
Examples:
  dk-trio call 127.0.0.1:50055 --protocol message --input '{{"text": "hello"}}'
  dk-trio call 127.0.0.1:50055 --input '{{"root": {{"protocol": "message", "text": "hello"}}}}'
  dk-trio call unix:/run/module.sock --input @input.json --timeout 30
  echo '{{"text": "hello"}}' | dk-trio call 127.0.0.1:50055 --protocol message --input -
  dk-trio call module.example:443 --ca ca.pem --token @token --protocol message --input @input.json
  dk-trio call 127.0.0.1:50055 --health

Outputs go to stdout, one JSON object a line, the first and the last message of the stream included; what goes wrong
goes to stderr. Ctrl-C cancels the job on the server. --health works with a provider, and any other gRPC server, too;
one that is not ready is exit code 24.

\b
{CODES}"""
)
@address_argument
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
@click.option("--timeout", type=Seconds(), help="Seconds for the whole job; without it, as long as it takes.")
@click.option("--metadata", multiple=True, metavar="KEY=VALUE", help="Sent with the request; may be repeated.")
@click.option("--json", is_flag=True, expose_value=False, help="What it prints anyway: JSON, one object a line.")
@connection_options
def command(
    *,
    address: str,
    connection: Connection,
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
    if health and input_text is not None:
        raise click.UsageError("--health calls nothing, so it takes no --input.")
    if not health and input_text is None:
        raise click.UsageError("Missing option '--input'.")
    data = None if input_text is None else read_input(input_text)
    pairs: list[tuple[str, str | bytes]] = [parse_pair(pair) for pair in metadata]
    check_metadata(pairs)

    data = None if data is None else _sendable(data, protocol)

    async def work(channel: rpc.Channel) -> int:
        if data is None:
            from ._health import check

            found = await check(channel, timeout=timeout, metadata=pairs)
            write_line(found)
            return Exit.OK if found["status"] == "SERVING" else exit_of_status(Status.UNAVAILABLE)

        from dk_trio.client import ModuleClient

        async with ModuleClient(channel).start(
            data, setup_id=setup_id, mission_id=mission_id, timeout=timeout, metadata=pairs
        ) as outputs:
            async for output in outputs:
                write_line(output)
        return Exit.OK

    return talk(address, connection, work)


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


class _NotJSONError(Exception):
    pass


def _no_constant(text: str) -> NoReturn:
    # Python's own reader takes NaN and Infinity.
    raise _NotJSONError(f"{text} is no JSON value")


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
        data = json.loads(raw.removeprefix(BOM_UTF8).decode("utf-8"), parse_constant=_no_constant)
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
    except ValueError:  # it is JSON, but for Python
        raise click.BadParameter(
            f"{source} holds a whole number of more than {sys.get_int_max_str_digits()} digits.", param_hint=hint
        ) from None
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
