"""`dk-trio completion`: the script by which a shell completes commands and options."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

_INSTALLED = {
    "bash": 'eval "$(dk-trio completion bash)"       # in ~/.bashrc',
    "zsh": 'eval "$(dk-trio completion zsh)"        # in ~/.zshrc',
    "fish": "dk-trio completion fish | source        # in ~/.config/fish/config.fish",
}


def files(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """For an argument that may be a file, among others: the shell offers those that there are."""
    from click.shell_completion import CompletionItem

    return [CompletionItem(incomplete, type="file")]


@click.command(epilog="\b\nExamples:\n" + "\n".join(f"  {line}" for line in _INSTALLED.values()))
@click.argument("shell", type=click.Choice(list(_INSTALLED)))
@click.pass_context
def command(context: click.Context, *, shell: str) -> None:
    """Print what makes a shell complete commands and options."""
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None  # the choice above
    click.echo(kind(context.find_root().command, {}, "dk-trio", "_DK_TRIO_COMPLETE").source())
