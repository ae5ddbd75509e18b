"""`dk-trio schema`: the JSON schemas of a module, from its file or from a server that runs it."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import click

from ._connect import TIMEOUT, Connection, check_address, connection_options, settings_of_a_client, talk
from ._exits import CODES, Exit
from ._output import json_text, unwritten, write_error, write_line
from ._seconds import Seconds
from .completion import files

if TYPE_CHECKING:
    from dk_trio import rpc

KINDS: Final = ("input", "output", "setup", "config-setup", "secret", "cost", "select")

_Document = Callable[[str], Awaitable[dict[str, Any] | None]]


@click.command(
    epilog=f"""\b
Examples:
  dk-trio schema mymodule.py input
  dk-trio schema mypackage.modules:MyModule output --llm
  dk-trio schema 127.0.0.1:50055 config-setup --llm
  dk-trio schema 127.0.0.1:50055 > schemas.json

Without a kind it prints an object with all that the module has, by kind. --llm gives what language models and forms
take: no references, and for forms a `ui_schema` beside the `json_schema`. The fetchers of a setup are called. What the
module prints while it is imported goes to stderr.

\b
{CODES}"""
)
@click.argument("target", metavar="PATH.py[:Class] | package.module:Class | HOST:PORT", shell_complete=files)
@click.argument("kind", required=False, type=click.Choice(KINDS), metavar=f"[{'|'.join(KINDS)}]")
@click.option("--llm", is_flag=True, help="Without references, for language models and forms.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON on one line; else it is indented.")
@click.option(
    "--timeout",
    type=Seconds(),
    default=TIMEOUT,
    show_default=True,
    help="Seconds for each call of a server.",
)
@connection_options
def command(*, target: str, kind: str | None, llm: bool, as_json: bool, timeout: float, connection: Connection) -> int:
    """Print the JSON schemas of a module, served or not."""
    if not _is_address(target):
        return _from_code(target, kind, llm=llm, as_json=as_json)
    check_address(target)

    async def work(channel: rpc.Channel) -> int:
        return await _show(_remote(channel, llm=llm, timeout=timeout), kind, target, as_json=as_json)

    return talk(target, connection, work)


def _is_address(target: str) -> bool:
    """Whether it is an address, right or wrong: a class is no number."""
    last = target.rpartition(":")[2]
    return target.startswith("unix:") or (":" in target and last.isascii() and last.isdigit())


async def _show(document: _Document, kind: str | None, target: str, *, as_json: bool) -> int:
    if kind is not None:
        found = await document(kind)
        if found is None:
            write_error(f"{target} names no {kind} format, so there is no schema of it.")
            return Exit.MODULE
        _write(found, as_json=as_json)
        return Exit.OK
    every = {each: await document(each) for each in KINDS}
    _write({each: found for each, found in every.items() if found is not None}, as_json=as_json)
    return Exit.OK


def _write(document: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        write_line({**document})
        return
    text = json_text(document, indent=2)
    sys.stdout.buffer.write(text.encode("utf-8", "backslashreplace") + b"\n")
    sys.stdout.buffer.flush()


def _remote(channel: rpc.Channel, *, llm: bool, timeout: float) -> _Document:
    from grpclib.const import Status
    from grpclib.exceptions import GRPCError

    from dk_trio.client import ModuleClient

    client = ModuleClient(channel)

    async def document(kind: str) -> dict[str, Any] | None:
        try:
            if kind == "select":  # its RPC has one form
                return await client.select_schema(timeout=timeout)
            ask = getattr(client, f"{kind.replace('-', '_')}_schema")
            found: dict[str, Any] = await ask(llm_format=llm, timeout=timeout)
        except GRPCError as error:
            if error.status is Status.UNIMPLEMENTED:
                return None
            raise
        return found

    return document


def _from_code(target: str, kind: str | None, *, llm: bool, as_json: bool) -> int:
    import trio

    from dk_trio.errors import NoSchemaError
    from dk_trio.module import ModuleDefinition
    from dk_trio.schemas import ModuleSchemas
    from dk_trio.services.config import ServicesConfig

    from ._load import load_module
    from .serve import stdout_apart

    settings = settings_of_a_client()
    with stdout_apart():
        module = load_module(target)
    definition = ModuleDefinition.of(module)
    services = ServicesConfig(module.services_config_strategies, module.services_config_params, owner=definition.name)
    schemas = ModuleSchemas(definition, services, fetch_timeout=settings.services.fetch_timeout)

    async def document(kind: str) -> dict[str, Any] | None:
        try:
            if kind == "select":
                return schemas.select()
            if kind in {"setup", "config-setup"}:
                return await (schemas.setup(llm=llm) if kind == "setup" else schemas.config_setup(llm=llm))
            found: dict[str, Any] = getattr(schemas, kind)(llm=llm)
        except NoSchemaError:
            return None
        return found

    try:
        return trio.run(partial(_show, document, kind, target, as_json=as_json))
    except OSError as error:  # of stdout: a fetcher that fails is told by the schema
        return unwritten(error)
