"""Options of every command that reads all settings: a file of variables, and a preset."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from dk_trio.settings import Settings

ENV_FILE = Path(".env")
"""The file that counts when no other is given; it need not exist."""

_Function = TypeVar("_Function", bound=Callable[..., Any])


def settings_options(function: _Function) -> _Function:
    """The options `--env-file` and `--preset`, for the parameters `env_file: Path | None` and `preset: str | None`."""
    env_file = click.option(
        "--env-file",
        type=click.Path(path_type=Path),
        help=f"File of NAME=value lines; the environment goes before it.  [default: {ENV_FILE}, if present]",
    )
    preset = click.option(
        "--preset",
        type=click.Choice(["small", "medium", "large", "railway"]),
        help="Values of the tuning guide for a size of machine; whatever is set goes before them.",
    )
    return env_file(preset(function))


def log_options(function: _Function) -> _Function:
    """The options `--log-level` and `--log-format`, for the parameters of `log_flags`."""
    level = click.option(
        "--log-level",
        type=click.Choice(["debug", "info", "warning", "error"], case_sensitive=False),
        help="Least level of what is logged to stderr.  [DIGITALKIN_LOG_LEVEL, default: info]",
    )
    form = click.option(
        "--log-format",
        type=click.Choice(["auto", "json", "text"], case_sensitive=False),
        help="auto is text on a terminal.  [DIGITALKIN_LOG_FORMAT, default: auto]",
    )
    return level(form(function))


def log_flags(log_level: str | None, log_format: str | None) -> tuple[tuple[str, str, object], ...]:
    """What the options of the log say, for `load_settings`."""
    return ("--log-level", "DIGITALKIN_LOG_LEVEL", log_level), ("--log-format", "DIGITALKIN_LOG_FORMAT", log_format)


def load_settings(
    *,
    env_file: Path | None = None,
    preset: str | None = None,
    flags: Iterable[tuple[str, str, object]] = (),
    serving: bool = True,
    export: bool = False,
) -> Settings:
    """The settings of this process: flag, else environment, else file, else preset, else default.

    Args:
        env_file: Of the option; without, `.env` in the working directory counts when it exists.
        preset: Of the option.
        flags: Options that stand for variables: option, variable, and value; None when the option was not given. As
            `("--port", "SERVER_CHANNEL_PORT", port)`.
        serving: Whether the process serves; a client in a server's environment need not hear of its limits.
        export: Whether what else is in the file goes into the environment, for the code that is served. A client has no
            use for it, and the file may be a stranger's: OPENSSL_CONF and LD_PRELOAD name code that is loaded.

    Raises:
        SettingError: Something that was set cannot be used; it tells of all of it. Or the file cannot be read.
    """
    from dk_trio.settings import Flag, Settings

    if env_file is None and _is_file(ENV_FILE):
        env_file = ENV_FILE
    return Settings.load(
        flags=[Flag(*flag) for flag in flags], env_file=env_file, preset=preset, serving=serving, export=export
    )


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # the working directory cannot be looked into, as under `sudo -u` in somebody's home
        return False
