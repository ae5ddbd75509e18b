"""What the pages tell a reader to type exists: every command of `dk-trio`, and every option that follows it."""

import re
from pathlib import Path

import click
import pytest

from dk_trio.cli import commands

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

_TYPED = re.compile(r"(?<![\w/=-])dk-trio ([a-z][^`\n|;&>]*)")
_QUOTED = re.compile(r"'[^']*'?|\"[^\"]*\"?")


def typed(page: Path) -> list[str]:
    """What follows `dk-trio` on a page, lines that go on put together, without what is in quotes."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    return [_QUOTED.sub("''", match) for match in _TYPED.findall(text)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_options_that_a_page_names_exist(page: Path) -> None:
    context = click.Context(commands)
    for line in typed(page):
        names = line.split()
        options = [re.match(r"--?[A-Za-z-]+", word) for word in names if word.startswith("-")]
        if not options:  # it may be a sentence
            continue
        command: click.Command | None = commands.get_command(context, names[0])
        assert command is not None, line
        inner = command.get_command(context, names[1]) if isinstance(command, click.Group) and names[1:] else None
        known = {
            option
            for one in (command, inner)
            if one is not None
            for parameter in one.get_params(context)
            for option in (*parameter.opts, *parameter.secondary_opts)
        }
        for found in options:
            assert found is not None, line
            assert found.group() in known, f"dk-trio {line}"


def test_commands_are_found() -> None:
    assert sum(len(typed(page)) for page in PAGES) > 100
