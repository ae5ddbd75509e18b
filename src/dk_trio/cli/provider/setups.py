"""`dk-trio provider put-setup` and `get-setup`: setups as one flat JSON object each, the same out and in."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

import click

from dk_trio.cli._connect import Connection, connection_options, timeout_option, told
from dk_trio.cli._exits import CODES
from dk_trio.cli._output import with_integers, write_error, write_line
from dk_trio.cli.call import read_input
from dk_trio.errors import ConfigurationError
from dk_trio.extensions import SETUP_ID

from ._client import Send, metadata_option, split_address, talk

if TYPE_CHECKING:
    from ._contract import Method

_FIELDS: Final = (
    "setup_id",
    "name",
    "organisation_id",
    "owner_id",
    "module_id",
    "status",
    "setup_version_id",
    "version",
    "content",
)
# Of a new setup, where nothing else is said. A name is for people, and the id is one.
_DEFAULTS: Final = {"organisation_id": "organizations:default", "owner_id": "users:default", "status": "READY"}
_PREFIX: Final = "setups:"
_PAGE: Final = 1000

# Seconds in which what came only half into being is undone.
_UNDO: Final = 3.0
_LEFT: Final = {
    "DeleteSetup": "the new setup {setup_id} is still there. Delete it with DeleteSetup.",
    "DeleteSetupVersion": "the new version {setup_version_id} is still there. Delete it with DeleteSetupVersion.",
    "UpdateSetupVersion": "version {version!r} ({setup_version_id}) may have the new content. Put the old one again.",
}


@click.command(
    "put-setup",
    epilog=f"""\b
Examples:
  dk-trio provider put-setup '{{"name": "quotes", "module_id": "modules:m", "content": {{"prefix": "> "}}}}'
  dk-trio provider put-setup '{{"id": "setups:demo", "module_id": "modules:m", "content": {{}}}}'
  dk-trio provider put-setup 127.0.0.1:50051 setups.json --module-id modules:m
  dk-trio provider get-setup setups:a | dk-trio provider put-setup -

\b
Fields, of which a new setup needs module_id and content:
  {", ".join(_FIELDS)}

With setup_id, or id for short, exactly that setup is made or changed. Without, a setup of the same name and module is
meant if there is one, and the provider makes the id of a new one. What is not given stays as it is. A version of a
name, or an id, that is there is replaced; any other is added; it is the current one from then on. A file may also be
one for `dk-trio serve --setup`, with several setups by their ids. The ids go to stdout, one JSON object a line.

\b
{CODES}""",
)
@click.argument("words", nargs=-1, required=True, metavar="[HOST:PORT] FILE|JSON|-")
@click.option("--module-id", help="Of setups that name none.")
@timeout_option
@metadata_option
@connection_options
def put_setup(
    *,
    words: tuple[str, ...],
    module_id: str | None,
    timeout: float,
    metadata: tuple[str, ...],
    connection: Connection,
) -> int:
    """Create a setup, or add a version to it, and make that current."""
    address, rest = split_address(words)
    if len(rest) != 1:
        raise click.UsageError(f"One file or JSON object is wanted, and {len(rest)} were given.")
    text = rest[0] if rest[0] == "-" or rest[0].lstrip().startswith(("{", "[", "@")) else f"@{rest[0]}"
    setups = [_checked(setup) for setup in _setups(read_input(text, "SETUP"))]

    async def work(send: Send) -> None:
        for setup in setups:
            write_line(await _put(send, setup if module_id is None else {"module_id": module_id, **setup}))

    return talk(address, connection, timeout, metadata, work)


@click.command(
    "get-setup",
    epilog=f"""\b
Examples:
  dk-trio provider get-setup setups:a
  dk-trio provider get-setup 127.0.0.1:50051 setups:a --version 2

What is printed is what put-setup takes.

\b
{CODES}""",
)
@click.argument("words", nargs=-1, required=True, metavar="[HOST:PORT] SETUP_ID")
@click.option("--version", metavar="NAME", help="Of the version; the current one without it.")
@timeout_option
@metadata_option
@connection_options
def get_setup(
    *, words: tuple[str, ...], version: str | None, timeout: float, metadata: tuple[str, ...], connection: Connection
) -> int:
    """Show a setup with one of its versions."""
    # An id has a colon, as an address has: whatever comes last is the id.
    address, _ = split_address(words[:-1])
    if len(words) > 2:
        raise click.UsageError(f"One setup id is wanted, and {len(words) - 1} were given.")
    request: dict[str, Any] = {"setup_id": words[-1]}
    if version is not None:
        request["version"] = version

    async def work(send: Send) -> None:
        reply = await _call(send, "GetSetup", request)
        write_line(_flat(reply.setup, reply.setup_version))

    return talk(address, connection, timeout, metadata, work)


def _setups(data: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The setups of a file: one, or several by their ids."""
    if not data or not all(key.startswith(_PREFIX) for key in data):
        yield data
        return
    for key, entry in data.items():
        if not isinstance(entry, dict):
            raise click.UsageError(f"{key}: expected an object, got {entry!r}.")
        yield {"setup_id": key, **(entry if "content" in entry else {"content": entry})}


def _checked(setup: dict[str, Any]) -> dict[str, Any]:
    if "id" in setup:
        setup = {"setup_id": setup["id"], **{key: value for key, value in setup.items() if key != "id"}}
    for key in setup:
        if key not in _FIELDS:
            near = difflib.get_close_matches(key, _FIELDS, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"A setup has {', '.join(_FIELDS)}."
            raise click.UsageError(f"{key}: there is no such field. {hint}")
    setup = {key: value for key, value in setup.items() if value is not None}
    if "content" not in setup:
        raise click.UsageError('content: must be set, the object that jobs run with, such as {"content": {}}.')
    # All of it before the first call: nothing is made of a setup of which something is wrong.
    _request("CreateSetup", {key: setup[key] for key in ("name", *_DEFAULTS, "module_id") if key in setup})
    _request("CreateSetupVersion", {key: setup[key] for key in ("version", "content") if key in setup})
    _request("UpdateSetupVersion", {key: setup[key] for key in ("setup_version_id",) if key in setup})
    if "setup_id" in setup:
        key = setup["setup_id"]
        if not isinstance(key, str) or not key.removeprefix(_PREFIX) or not (key.isascii() and key.isprintable()):
            raise click.UsageError(f"setup_id: must be a text of printable ASCII such as setups:demo, not {key!r}.")
        setup["setup_id"] = _PREFIX + key.removeprefix(_PREFIX)
    return setup


async def _put(send: Send, setup: dict[str, Any]) -> dict[str, str]:
    """Create or change a setup; its ids. What a call has done is undone when a later one fails."""
    undo: dict[str, dict[str, Any]] = {}
    try:
        there = await _existing(send, setup)
        if there is None:
            there = await _created(send, setup)
            undo["DeleteSetup"] = {"setup_id": there.id}
        version = await _put_version(send, there, setup, undo)
        changed = {
            "setup_id": there.id,
            "name": setup.get("name", there.name),
            "owner_id": setup.get("owner_id", there.owner_id),
            "status": setup.get("status", there.status.value),
            "current_setup_version": _version(version),
        }
        await _call(send, "UpdateSetup", changed)
    except BaseException:
        await _undone(send, undo)
        raise
    return {"setup_id": there.id, "setup_version_id": version.id, "version": version.version}


async def _undone(send: Send, undo: Mapping[str, dict[str, Any]]) -> None:
    """Undo what can be undone, and tell of the rest; why it is undone is told after that."""
    import trio
    from grpclib.exceptions import GRPCError

    for method, request in undo.items():
        with trio.move_on_after(_UNDO, shield=True) as scope:
            try:
                await _call(send, method, request)
            except GRPCError as error:
                write_error(f"{_LEFT[method].format(**request)} ({method}: {told(error)})")
        if scope.cancelled_caught:
            write_error(f"{_LEFT[method].format(**request)} ({method}: no answer within {_UNDO:g} s)")


async def _existing(send: Send, setup: dict[str, Any]) -> Any:
    """The setup of this id, or else the one of this name and module; None when there is none."""
    if "setup_id" in setup:
        from grpclib.const import Status
        from grpclib.exceptions import GRPCError

        try:
            there = (await _call(send, "GetSetup", {"setup_id": setup["setup_id"]})).setup
        except GRPCError as error:
            if error.status is Status.NOT_FOUND:
                return None
            raise
        if (module_id := setup.get("module_id", there.module_id)) != there.module_id:
            raise click.UsageError(
                f"module_id: {there.id} is a setup of {there.module_id}, and cannot become one of {module_id}."
                " Give the new one another id."
            )
        return there
    name, module_id = setup.get("name", setup.get("module_id")), setup.get("module_id")
    seen = 0
    while True:
        page = await _call(send, "ListSetups", {"limit": _PAGE, "offset": seen})
        for row in page.setups:
            if row.name == name and row.module_id == module_id:
                return row
        seen += len(page.setups)
        if not page.setups or seen >= page.total_count:
            return None


async def _created(send: Send, setup: dict[str, Any]) -> Any:
    if not setup.get("module_id"):
        raise click.UsageError("module_id: must be set for a new setup, here or with --module-id.")
    given = {key: setup[key] for key in ("name", *_DEFAULTS, "module_id") if key in setup}
    asked = setup.get("setup_id")
    new = {**_DEFAULTS, "name": asked or setup["module_id"], **given}
    made = (await _call(send, "CreateSetup", new, {} if asked is None else {SETUP_ID: asked})).setup
    if asked is not None and made.id != asked:
        await _call(send, "DeleteSetup", {"setup_id": made.id})
        raise ConfigurationError(
            f"The provider gave the new setup another id than {asked!r}, so it was deleted again.",
            hint="Only a provider of dk-trio lets a client choose ids. Leave the id out, and use what is printed.",
        )
    return made


async def _put_version(send: Send, there: Any, setup: dict[str, Any], undo: dict[str, dict[str, Any]]) -> Any:
    """The version. How it is undone is added to `undo`, unless the setup is new and is deleted with all that it has."""
    found = (await _call(send, "SearchSetupVersions", {"setup_id": there.id})).setup_versions
    name, key = setup.get("version"), setup.get("setup_version_id")
    old = next((row for row in found if (row.id == key if key else row.version == name)), None)
    if old is not None:
        change = {"setup_version_id": old.id, "version": name or old.version, "content": setup["content"]}
        if not undo:  # before the call, whose reply may be lost
            undo["UpdateSetupVersion"] = {"setup_version_id": old.id, "version": old.version, "content": _content(old)}
        return (await _unless_refused(send, "UpdateSetupVersion", change, undo)).setup_version
    if name is None:
        names = {row.version for row in found}
        name = next(text for number in range(len(found) + 1, 2 * len(found) + 2) if (text := str(number)) not in names)
    new = {"setup_id": there.id, "version": name, "content": setup["content"]}
    added = (await _call(send, "CreateSetupVersion", new)).setup_version
    if not undo:
        undo["DeleteSetupVersion"] = {"setup_version_id": added.id}
    return added


async def _unless_refused(send: Send, method: str, data: dict[str, Any], undo: dict[str, dict[str, Any]]) -> Any:
    """A call of which nothing is to be undone when the provider has surely not applied it."""
    from grpclib.const import Status
    from grpclib.exceptions import GRPCError

    try:
        return await _call(send, method, data)
    except GRPCError as error:
        if error.status not in {Status.UNAVAILABLE, Status.DEADLINE_EXCEEDED, Status.INTERNAL, Status.UNKNOWN}:
            undo.pop(method, None)
        raise


async def _call(send: Send, method: str, data: dict[str, Any], metadata: Mapping[str, str] | None = None) -> Any:
    replies: list[Any] = []
    await send(*_request(method, data), replies.append, metadata or {})
    return replies[0]


def _request(method: str, data: dict[str, Any]) -> tuple[Method, Any]:
    """A request of SetupService.

    Raises:
        click.UsageError: A field cannot have its value.
    """
    from ._contract import find
    from ._json import FieldError, from_json

    found = find(f"setup.{method}")
    try:
        return found, from_json(found.request, data)
    except FieldError as error:
        raise click.UsageError(f"{error}.") from None


def _version(version: Any) -> dict[str, Any]:
    return {"id": version.id, "setup_id": version.setup_id, "version": version.version, "content": _content(version)}


def _content(version: Any) -> dict[str, Any]:
    content: dict[str, Any] = with_integers(version.content.to_dict()) if version.content is not None else {}
    return content


def _flat(setup: Any, version: Any) -> dict[str, Any]:
    from ._contract import enum_names

    flat = {
        "setup_id": setup.id,
        "name": setup.name,
        "organisation_id": setup.organisation_id,
        "owner_id": setup.owner_id,
        "module_id": setup.module_id,
        "status": enum_names(type(setup.status)).get(setup.status.value, setup.status.value),
    }
    if version is not None:
        flat |= {"setup_version_id": version.id, "version": version.version, "content": _content(version)}
    return flat
