"""The command line: one file per command, loaded when it is called.

Start-up time is part of the product, so this file imports click and nothing heavier; `dk-trio call` loads neither
pydantic nor any module. What goes wrong is told in one paragraph on stderr, and the exit code names it (`_exits`).
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any, Final, NoReturn

import click

from dk_trio import __version__
from dk_trio.errors import DkTrioError

from ._exits import TABLE, Exit, exit_of

_GROUPS: Final = {
    "Serve and develop": {
        "new": "Start a project: a module with its tests.",
        "serve": "Serve module classes over gRPC.",
        "call": "Call a module and print its outputs, one JSON object a line.",
        "schema": "Print the JSON schemas of a module, served or not.",
        "demo": "Serve an example, call it, show its stream and a cancel.",
        "sim": "Simulate whole systems from seeds, and check them.",
    },
    "Operate": {
        "provider": "Serve what modules share: setups, registry, signals, records, files, costs.",
        "jobs": "List the jobs of a module server.",
        "stop": "Stop jobs of a module server.",
        "top": "Watch a server in the terminal: jobs, tasks, gauges, stalls.",
        "doctor": "Look for what keeps a server from working here, and say what to do.",
    },
    "Configure": {
        "config": "Show every setting: its value, its source, what it means.",
        "certs": "Make an authority and certificates, to try TLS and mTLS with.",
        "completion": "Print what makes a shell complete commands and options.",
    },
}
_COMMANDS: Final = {name: about for group in _GROUPS.values() for name, about in group.items()}


class _Commands(click.Group):
    """Commands by name; a command's file is imported when the command is used, not for the list of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"{__name__}.{cmd_name}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in _COMMANDS and not name.startswith("-"):
            ctx.fail(f"No such command {name!r}.{_meant(name)}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:  # `| head`; above this, click ends the process with 1
            from ._output import unwritten

            return unwritten(error)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, _COMMANDS))
        for title, commands_of_group in _GROUPS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), about) for name, about in commands_of_group.items()])


def _meant(name: str) -> str:
    import difflib

    near = difflib.get_close_matches(name, [*_COMMANDS, "--help", "--version"], n=1)
    return f" Did you mean {near[0]!r}?" if near else " `dk-trio --help` lists them."


@click.command(
    cls=_Commands,
    epilog=f"""\b
Examples:
  dk-trio new weather
  dk-trio serve mymodule.py --port 50055
  dk-trio call 127.0.0.1:50055 --protocol message --input '{{"text": "hello"}}'
  dk-trio jobs 127.0.0.1:50055
  dk-trio doctor

\b
{TABLE}""",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)
@click.version_option(__version__, prog_name="dk-trio")
@click.pass_context
def commands(context: click.Context) -> None:
    """Agentic modules served over gRPC, natively on Trio."""
    if os.environ.get("NO_COLOR"):  # no setting of ours: a person's word to every program of the terminal
        context.color = False


def main(arguments: list[str] | None = None) -> NoReturn:
    """The console script. Ends the process with one of `Exit`, or 10 + a gRPC status."""
    try:
        code = commands.main(arguments, prog_name="dk-trio", standalone_mode=False)
        if sys.stdout is not None:  # None when the process was started without one
            sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except DkTrioError as error:
        from ._output import write_error

        write_error(error.text)
        sys.exit(exit_of(error))
    except BrokenPipeError as error:  # `| head`, with a command that does not look itself
        from ._output import unwritten

        sys.exit(unwritten(error))
    except (click.Abort, KeyboardInterrupt):
        sys.exit(Exit.INTERRUPTED)
    except BaseExceptionGroup as group:  # boundary: the end of the process
        # Ctrl-C raises in whatever task runs at that moment, and comes out of its nurseries in their groups.
        if group.subgroup(KeyboardInterrupt) is not None:
            sys.exit(Exit.INTERRUPTED)
        if group.subgroup(lambda error: not isinstance(error, BaseExceptionGroup | BrokenPipeError)) is None:
            from ._output import unwritten

            sys.exit(unwritten(BrokenPipeError()))
        raise
    sys.exit(code if isinstance(code, int) else Exit.OK)
