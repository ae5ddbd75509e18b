"""The commands as a whole: their list, their help, what a slip of the finger gets, and what a start does not load."""

import subprocess
import sys
from pathlib import Path

import click
import pytest

from dk_trio.cli import _COMMANDS, _GROUPS, commands
from dk_trio.cli._exits import Exit
from dk_trio.cli._seconds import Seconds

from .processes import environment, here

HEAVY = {
    *("trio", "pydantic", "grpclib.client", "rich", "starlette", "hypercorn", "prometheus_client", "opentelemetry"),
    *("watchfiles", "ssl", "sqlite3", "asyncio", "difflib", "importlib.metadata", "logging", "subprocess", "socket"),
    *("dk_trio.client", "dk_trio.server", "dk_trio.settings", "dk_trio.module", "dk_trio.rpc", "dk_trio.cli.serve"),
}


def every_command() -> list[tuple[str, click.Command]]:
    context = click.Context(commands)
    return [(name, commands.get_command(context, name)) for name in commands.list_commands(context)]


def test_every_command_is_in_the_list_once_with_its_own_words() -> None:
    told = here("--help").stdout.decode()
    assert len(_COMMANDS) == sum(map(len, _GROUPS.values()))
    for title in _GROUPS:
        assert f"{title}:\n" in told
    for name, about in _COMMANDS.items():
        assert f"  {name} " in told
        assert about.endswith(".")


@pytest.mark.parametrize(("name", "command"), every_command(), ids=list(_COMMANDS))
def test_every_command_has_examples(name: str, command: click.Command) -> None:
    told = here(name, "--help").stdout.decode()
    assert told.startswith(f"Usage: dk-trio {name}")
    examples = told.partition("Examples:\n")[2]
    assert f"dk-trio {name}" in examples.partition("\n\n")[0]
    assert max(map(len, told.splitlines())) <= 120


def every_time() -> list[tuple[str, click.Parameter]]:
    groups = [(name, command) for name, command in every_command() if isinstance(command, click.Group)]
    inner = [(f"{name} {key}", command) for name, group in groups for key, command in group.commands.items()]
    return [
        (name, option)
        for name, command in [*every_command(), *inner]
        for option in command.params
        if isinstance(option.type, click.FloatRange) and option.name != "grace"  # a setting, which judges it
    ]


def test_times_are_refused_by_all_commands_in_the_same_way() -> None:
    times = every_time()
    assert {"call", "doctor", "jobs", "schema", "stop", "top", "provider ask"} <= {name for name, _ in times}
    for name, option in times:
        for value in ("nan", "inf", "-inf", "0", "-1", "soon", ""):
            with pytest.raises(click.BadParameter) as caught:
                option.type.convert(value, option, None)
            told = caught.value.message
            assert told.startswith(f"{value!r} is no such time. Give a number of seconds "), (name, value)
            assert (f"or leave {option.opts[0]} out." in told) == (not isinstance(option.default, float))


@pytest.mark.parametrize(("value", "taken"), [("0", 0.0), ("2", 2.0), ("2.01", None), ("-0.1", None)])
def test_a_time_may_have_bounds(value: str, taken: float | None) -> None:
    if taken is not None:
        assert Seconds(0, 2).convert(value, None, None) == taken
        return
    with pytest.raises(click.BadParameter, match="from 0 to 2, such as"):
        Seconds(0, 2).convert(value, None, None)


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("jbos", "'jobs'"),
        ("sreve", "'serve'"),
        ("Call", "'call'"),
        ("complete", "'completion'"),
        ("version", "'--version'"),
    ],
)
def test_a_slip_of_the_finger(word: str, meant: str) -> None:
    done = here(word)
    assert done.returncode == Exit.USAGE
    assert f"No such command '{word}'. Did you mean {meant}?" in done.stderr.decode()


def test_a_word_that_is_like_no_command() -> None:
    assert "No such command 'xyzzy'. `dk-trio --help` lists them." in here("xyzzy").stderr.decode()


def test_an_option_in_place_of_a_command() -> None:
    assert "No such option '--versoin'" in here("--versoin").stderr.decode().replace(": --versoin", " '--versoin'")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_the_shell_s_own(shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("click.shell_completion.BashComplete._check_version", lambda *_: None)  # it starts a bash
    done = here("completion", shell)
    assert done.returncode == Exit.OK
    assert f"_DK_TRIO_COMPLETE={shell}_complete" in done.stdout.decode()


@pytest.mark.parametrize(
    ("words", "place", "found"),
    [
        ("dk-trio co", 1, ["completion"]),
        ("dk-trio provider get", 2, ["get-setup"]),
        ("dk-trio schema x.py ", 3, ["input", "output", "setup", "config-setup", "secret", "cost", "select"]),
        ("dk-trio stop x:1 --tok", 3, ["--token"]),
        ("dk-trio config DIGITALKIN_GRA", 2, ["DIGITALKIN_GRACE"]),
        ("dk-trio serve my", 2, ["my"]),  # of the kind `file`, by which the shell looks for itself
    ],
)
def test_what_a_shell_is_told(words: str, place: int, found: list[str]) -> None:
    done = here(_DK_TRIO_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=str(place))
    values = [line.partition(",")[2] for line in done.stdout.decode().splitlines()]
    assert [value for value in values if value in found] == found


def loaded(*arguments: str) -> set[str]:
    """The modules that a command has loaded when it ends, in an interpreter of its own."""
    code = (
        "import sys; from dk_trio.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "finally: print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment(),
    )
    assert done.returncode == 0, done.stderr
    return set(done.stderr.splitlines()[-1].split())


def test_a_start_loads_click_and_little_else() -> None:
    assert sorted(loaded("--version") & HEAVY) == []


def test_help_of_all_commands_loads_none_of_them() -> None:
    assert not {f"dk_trio.cli.{name}" for name in _COMMANDS} & loaded("--help")


def test_help_of_commands_loads_nothing_that_serves() -> None:
    """One interpreter for all: each command file may import click, and what only holds names and numbers."""
    code = (
        "import sys, importlib\n"
        f"for name in {list(_COMMANDS)!r}: importlib.import_module('dk_trio.cli.' + name)\n"
        "print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True, env=environment()
    )
    refused = {"trio", "pydantic", "dk_trio.client", "dk_trio.server", "dk_trio.module", "dk_trio.rpc", "rich", "ssl"}
    assert sorted(set(done.stdout.split()) & refused) == []


def test_every_command_has_its_place_in_the_documentation() -> None:
    page = (Path(__file__).parents[2] / "docs" / "command-line.md").read_text()
    assert [name for name in _COMMANDS if f"\n## dk-trio {name}\n" not in page] == []
