"""Options of the commands that serve: TLS, and who may call. They stand for variables, and go before them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

import click

Flags: TypeAlias = Sequence[tuple[str, str, object]]
"""Option, variable, value; for `load_settings`."""

_FILE: Final = click.Path(path_type=Path)
_OPTIONS: Final = (
    ("--tls-cert", "DIGITALKIN_TLS_CERT", "Serve with TLS: the certificate, its chain behind it, as PEM."),
    ("--tls-key", "DIGITALKIN_TLS_KEY", "Private key of --tls-cert, as PEM."),
    ("--tls-client-ca", "DIGITALKIN_TLS_CLIENT_CA", "Authorities whose certificates clients must show (mTLS), as PEM."),
    (
        "--auth-token-file",
        "DIGITALKIN_AUTH_TOKENS_FILE",
        "Tokens, one of which callers must show: one a line, its name before it.",
    ),
)


def security_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options, which the command gets as one argument, `security: Flags`."""
    names = [option.removeprefix("--").replace("-", "_") for option, _, _ in _OPTIONS]

    @functools.wraps(command)
    def with_security(**arguments: Any) -> Any:
        flags = [
            (option, variable, arguments.pop(name)) for name, (option, variable, _) in zip(names, _OPTIONS, strict=True)
        ]
        return command(security=flags, **arguments)

    for option, variable, about in reversed(_OPTIONS):
        with_security = click.option(option, type=_FILE, help=f"{about}  [{variable}]")(with_security)
    return with_security
