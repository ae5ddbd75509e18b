"""How a command reaches a server: its address, TLS, token and module, from options and settings."""

from __future__ import annotations

import functools
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from ._exits import Exit, exit_of_status
from ._output import harmless, unwritten, write_error
from ._seconds import Seconds
from ._settings import load_settings

if TYPE_CHECKING:
    from grpclib.exceptions import GRPCError

    from dk_trio import rpc
    from dk_trio.settings import SecuritySettings, Settings

TIMEOUT: Final = 10.0

address_argument = click.argument("address", metavar="HOST:PORT")
timeout_option = click.option(
    "--timeout",
    type=Seconds(),
    default=TIMEOUT,
    show_default=True,
    help="Seconds for each call.",
)

_FILE: Final = click.Path(path_type=Path)
_OPTIONS: Final = (
    click.option(
        "--tls/--plaintext", default=None, help="Speak TLS or not.  [default: TLS when there is a file of it]"
    ),
    click.option("--ca", type=_FILE, help="Authorities that may have signed the server's certificate, as PEM."),
    click.option("--cert", type=_FILE, help="Certificate to show to the server (mTLS), as PEM."),
    click.option("--key", type=_FILE, help="Private key of --cert, as PEM."),
    click.option("--token", metavar="TEXT|@FILE", help="Token to show to the server."),
    click.option("--module", metavar="ID", help="Which module is meant, where a server has several."),
)


@dataclass(frozen=True, kw_only=True)
class Connection:
    """What the options say about the way to a server. Where they say nothing, the settings do.

    Attributes:
        tls: Whether to speak TLS.
        ca: Authorities of the server's certificate.
        cert: The certificate to show.
        key: Its private key.
        token: What is shown in `authorization`.
        module: Which module is meant, where a server has several.
    """

    tls: bool | None = None
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    token: str | None = None
    module: str | None = None

    def over(self, settings: SecuritySettings) -> SecuritySettings:
        """The settings with what the options say in their place.

        Raises:
            SettingError: A certificate without a key, or the other way round.
        """
        given: dict[str, Any] = {}
        if self.tls is False:  # whatever the environment has for TLS
            given |= {"client_security": "insecure", "client_ca": None, "client_cert": None, "client_key": None}
        elif self.tls:
            given["client_security"] = "secure"
        elif self.ca is not None or self.cert is not None:
            given["client_security"] = None  # whoever names a file means TLS, whatever the environment says
        if self.ca is not None:
            given["client_ca"] = self.ca
        if self.cert is not None or self.key is not None:
            given |= {"client_cert": self.cert, "client_key": self.key}
        if self.token is not None:
            given["client_token"] = self.token
        return replace(settings, **given)


def connection_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of `Connection`, which the command gets as one argument, `connection`."""

    @functools.wraps(command)
    def with_connection(
        *,
        tls: bool | None,
        ca: Path | None,
        cert: Path | None,
        key: Path | None,
        token: str | None,
        module: str | None,
        **others: Any,
    ) -> Any:
        if (cert is None) != (key is None):
            raise click.UsageError("--cert and --key belong together: give both, or neither.")
        if tls is False and (ca is not None or cert is not None):
            raise click.UsageError("--plaintext contradicts --ca and --cert, which are for TLS.")
        token = None if token is None else _token(token)
        connection = Connection(tls=tls, ca=ca, cert=cert, key=key, token=token, module=module)
        return command(connection=connection, **others)

    for option in reversed(_OPTIONS):
        with_connection = option(with_connection)
    return with_connection


def _token(text: str) -> str:
    """The token itself, or the one in a file: what stands on a command line, other users of the machine can read."""
    if text.startswith("@"):
        try:
            text = Path(text[1:]).read_text(encoding="ascii").strip()
        except OSError as error:
            raise click.BadParameter(f"{text[1:]} cannot be read: {error.strerror}.", param_hint="--token") from None
        except UnicodeDecodeError:
            raise click.BadParameter(f"{text[1:]} is not ASCII text.", param_hint="--token") from None
    if not text or not text.isascii() or not text.isprintable() or " " in text:
        raise click.BadParameter(
            "a token is printable ASCII without spaces, and this one is not.", param_hint="--token"
        )
    return text


def settings_of_a_client() -> Settings:
    """The settings, `.env` included, their warnings told."""
    settings = load_settings(serving=False)
    for warning in settings.warnings:
        write_error(warning)
    return settings


@asynccontextmanager
async def opened(address: str, connection: Connection, settings: Settings) -> AsyncIterator[rpc.Channel]:
    """A channel to a server, for the length of the block.

    Raises:
        ConfigurationError: A file for TLS cannot be used, or the token would go there in plaintext.
    """
    from dk_trio import rpc
    from dk_trio.client import channel_options
    from dk_trio.security import ClientSecurity, exposed

    security = ClientSecurity(connection.over(settings.security))
    security.check(address)
    modules = [] if connection.module is None else [_for_module(connection.module)]
    async with (
        security.opened(),
        rpc.open_channel(
            address,
            options=channel_options(settings.channel),
            ssl_context=security.tls,
            interceptors=[*security.interceptors, *modules],
        ) as channel,
    ):
        if text := exposed(channel):
            write_error(f"{text}.")
        yield channel


def talk(address: str | None, connection: Connection, work: Callable[[rpc.Channel], Awaitable[int | None]]) -> int:
    """Run `work` with a channel to a server; the exit code.

    Args:
        address: `HOST:PORT` or `unix:PATH`; None is the provider of the settings.
        connection: What the options say.
        work: What to ask. Its exit code, or None for 0.
    """
    import trio
    from grpclib.exceptions import GRPCError

    settings = settings_of_a_client()
    target = address or settings.services.provider

    async def run() -> int:
        async with opened(target, connection, settings) as channel:
            return await work(channel) or Exit.OK

    try:
        return trio.run(run)
    except GRPCError as error:
        write_error(f"{target}: {told(error)}")
        return exit_of_status(error.status)
    except OSError as error:  # of stdout: those of the network have become statuses
        return unwritten(error)


def told(error: GRPCError) -> str:
    """A status as one paragraph: its message, and the fields that it refuses and the message does not name."""
    text = f"{error.status.name}: {error.message or 'no message'}"
    details = error.details if isinstance(error.details, list) else []
    violations = [row for detail in details for row in getattr(detail, "field_violations", ())]
    missing = (_told(row.field, row.description, text) for row in violations if row.field not in text)
    return harmless(" ".join([text, *missing]))


def _told(field: str, rule: str, text: str) -> str:
    """What a message does not say of a field that was refused; often it tells the rule, and not of what."""
    return f"({field})" if rule.lower() in text.lower() else f"{field}: {rule}."


def _for_module(module: str) -> rpc.Interceptor:
    """An interceptor that says which module of a server is meant."""
    from dk_trio.extensions import MODULE_ID

    @asynccontextmanager
    async def say(call: rpc.CallInfo) -> AsyncIterator[None]:
        call.metadata.setdefault(MODULE_ID, module)
        yield

    return say


# --- addresses -------------------------------------------------------------------------------------------------------


def check_address(address: str) -> None:
    """Refuse what cannot be an address before anything is tried."""
    if address.startswith("unix:"):
        if address == "unix:":
            raise click.BadParameter("unix: needs a path, such as unix:/run/module.sock.", param_hint="HOST:PORT")
        return
    if "://" in address:
        raise click.BadParameter(f"{address!r} is a URL; write HOST:PORT, and --tls for TLS.", param_hint="HOST:PORT")
    host, colon, port = address.rpartition(":")
    if not colon or not host:
        raise click.BadParameter(f"{address!r} has no port; write HOST:PORT.", param_hint="HOST:PORT")
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise click.BadParameter(f"{address!r}: put an IPv6 address in brackets, [::1]:50055.", param_hint="HOST:PORT")
    if host.startswith("[") and not _is_ipv6(host[1:-1]):
        raise click.BadParameter(f"{host!r} is not an IPv6 address.", param_hint="HOST:PORT")
    if not (port.isascii() and port.isdigit() and 0 < int(port) <= 65535):
        raise click.BadParameter(f"{port!r} is not a port from 1 to 65535.", param_hint="HOST:PORT")


def _is_ipv6(text: str) -> bool:
    try:
        socket.inet_pton(socket.AF_INET6, text.partition("%")[0])
    except OSError:
        return False
    return True
