"""What the pages take from the code: help of the commands, and tables of settings, states, outcomes, codes and exits.

mkdocs calls `on_pre_build` (see `hooks` in mkdocs.yml); the pages include the files. They are not committed, so they
cannot be stale.
"""

import inspect
import sys
from collections.abc import Iterator, Mapping
from dataclasses import fields
from itertools import pairwise
from pathlib import Path

import click

from dk_trio.cli import commands
from dk_trio.cli._exits import _OWN
from dk_trio.errors import (
    AdmissionError,
    ConfigurationError,
    DkTrioError,
    JobEndedError,
    ModuleDefinitionError,
    ModuleLoadError,
    RequestError,
)
from dk_trio.lifecycle import OUTCOMES, TRANSITIONS, Reason, State
from dk_trio.observe._metric_names import FOREIGN, GROUPS
from dk_trio.settings import PRESETS, Variable
from dk_trio.settings._layers import LAYERS, RPCS_PER_CPU
from dk_trio.settings._names import NOT_USED, NotUsed
from dk_trio.settings._variable import variable_of
from dk_trio.testing.simulation import SCENARIOS
from dk_trio.testing.simulation.checker import RULES

GENERATED = Path(__file__).parent / "generated"
WIDTH = 100  # characters; what a page shows without scrolling
DEFAULTS = {"DIGITALKIN_MAX_CONCURRENT_RPCS": f"{RPCS_PER_CPU} for each CPU"}  # those that depend on the machine

WHEN: Mapping[Reason, str] = {
    Reason.COMPLETED: "`end_of_stream` was sent",
    Reason.SIGNAL_CANCEL: "a `cancel` signal came",
    Reason.SIGNAL_STOP: "a `stop` signal came",
    Reason.STOP_MODULE: "`StopModule` was called",
    Reason.CLIENT_GONE: "the caller cancelled its call, or its connection was lost",
    Reason.DEADLINE: "the caller's deadline passed",
    Reason.TIMEOUT: "a time of the server passed, see below",
    Reason.SHUTDOWN: "the server stops, and the grace was over",
    Reason.FAILED: "the module's code failed",
    Reason.REFUSED: "admission had no room",
}
BEFORE_SERVING = (ConfigurationError, ModuleDefinitionError, ModuleLoadError)  # no caller ever sees them
FAMILIES = {DkTrioError, RequestError, AdmissionError, JobEndedError}  # only what derives from them is raised


def help_of(name: str) -> str:
    """The help of one command, or of all for the empty name; `group sub` is a command of a group."""
    settings = {**commands.context_settings, "max_content_width": WIDTH, "terminal_width": WIDTH}
    context = click.Context(commands, info_name="dk-trio", **settings)
    command: click.Command = commands
    for word in name.split():
        command = command.get_command(context, word)
        context = click.Context(command, info_name=word, parent=context)
    return command.get_help(context).rstrip() + "\n"


def command_names() -> Iterator[str]:
    """Every command, and those of a group behind it."""
    context = click.Context(commands)
    for name in commands.list_commands(context):
        yield name
        command = commands.get_command(context, name)
        if isinstance(command, click.Group):
            yield from (f"{name} {inner}" for inner in command.list_commands(context))


def simulation_rules() -> str:
    """What `dk_trio.testing.simulation` checks."""
    rows = (f"{name} | {inspect.getdoc(rule)}" for name, rule in RULES.items())
    return table("rule | what must hold", rows)


def simulation_scenarios() -> str:
    return table("scenario | about", (f"`{each.name}` | {each.about}" for each in SCENARIOS.values()))


def table(head: str, rows: Iterator[str]) -> str:
    lines = [f"| {head} |", "|" + "---|" * (head.count("|") + 1), *(f"| {row} |" for row in rows)]
    return "\n".join(lines) + "\n"


def default_of(row: Variable) -> str:
    """The default, in words where it depends on the machine."""
    return DEFAULTS.get(row.name) or row.default_text()


def settings(layer: str) -> str:
    rows = map(variable_of, fields(LAYERS[layer]))
    return table(
        "variable | default | value | meaning",
        (f"{' or '.join(map(code, row.names))} | {default_of(row)} | {row.expects} | {row.about}" for row in rows),
    )


def not_used() -> str:
    def row(entry: NotUsed) -> str:
        unless = f", other than {code(entry.unless)}" if entry.unless else ""
        return f"{', '.join(map(code, entry.names))}{unless} | {entry.why}"

    return table("variable | why", map(row, NOT_USED))


def states() -> str:
    """The states as a drawing: the longest way through them from left to right, every other step below it."""
    way = _longest_way(next(iter(TRANSITIONS)))
    line, column = "", {}
    for state in way:
        line += " ──> " if line else ""
        column[state] = len(line) + len(state.value) // 2
        line += state.value
    sources: dict[State, list[int]] = {}
    for state, after in TRANSITIONS.items():
        for target in after - {next_one for this, next_one in pairwise(way) if this is state}:
            sources.setdefault(target, []).append(column[state])
    # Those with most sources first: a line that goes further down then crosses no other.
    targets = sorted(sources, key=lambda target: (-len(sources[target]), list(State).index(target)))
    lines = [line]
    for number, target in enumerate(targets, 1):
        first, *others = sorted(sources[target])
        further = {at for later in targets[number:] for at in sources[later]}
        row = [" "] * first + ["─"] * (len(line) - first)
        row[first] = "├" if first in further else "└"
        for at in others:
            row[at] = "┼" if at in further else "┴"
        for at in further - {first, *others}:
            row[at] = "│"
        lines.append("".join(row) + f"──> {target.value}")
    return "\n".join(lines) + "\n"


def _longest_way(state: State) -> list[State]:
    ways = (_longest_way(after) for after in sorted(TRANSITIONS[state], key=list(State).index))
    return [state, *max(ways, key=len, default=[])]


def outcomes() -> str:
    def row(reason: Reason) -> str:
        outcome = OUTCOMES[reason]
        status = "OK" if outcome.error is None else f"{outcome.error.status.name}, {codes(outcome.error)}"
        # Only a job that had its slot has sent START, and sends STOP.
        signal = code(outcome.signal) if reason is not Reason.REFUSED else "not sent"
        cells = (code(reason.value), WHEN[reason], status, outcome.state.value, outcome.module_status.name, signal)
        return " | ".join(cells)

    return table(
        "reason | when | the caller gets | last state | GetModuleStatus | reason in the STOP signal", map(row, Reason)
    )


def codes(error: type[DkTrioError]) -> str:
    """The code of an outcome's error; admission has two ways to refuse, the author's code many to fail."""
    kinds = AdmissionError.__subclasses__() if error is AdmissionError else [error]
    return " or ".join(code(kind.code) for kind in kinds)


def errors() -> str:
    def tree(kind: type[DkTrioError]) -> Iterator[type[DkTrioError]]:
        yield kind
        for derived in kind.__subclasses__():
            if derived.__module__.startswith("dk_trio."):  # and not an author's own
                yield from tree(derived)

    rows = {}  # by code: a kind that shares the code of its base says more
    for kind in tree(DkTrioError):
        if kind not in FAMILIES and not issubclass(kind, BEFORE_SERVING):
            meaning = inspect.getdoc(kind).split("\n\n")[0].replace("\n", " ")
            rows[kind.code] = f"{code(kind.code)} | {kind.status.name} | {kind.fault.value} | {meaning}"
    return table("code | status | who can mend it | meaning", iter(rows.values()))


def exits() -> str:
    return table("exit code | why", (f"{exit_code.value} | {why}" for exit_code, why in _OWN.items()))


def presets() -> str:
    """The presets side by side; a dash where one leaves a variable to its default."""
    names = dict.fromkeys(name for preset in PRESETS.values() for name in preset)
    return table(
        f"variable | {' | '.join(PRESETS)}",
        (f"{code(name)} | {' | '.join(preset.get(name, '–') for preset in PRESETS.values())}" for name in names),
    )


def metrics() -> str:
    """Every metric, group by group."""
    parts = []
    for group, rows in GROUPS.items():
        told = (
            f"{code(row.name)} | {row.kind} | {', '.join(map(code, row.labels)) or '–'} | {row.about}" for row in rows
        )
        parts.append(f"### {group}\n\n" + table("name | type | labels | meaning", told))
    return "\n".join(parts)


def foreign_metrics() -> str:
    return ", ".join(map(code, FOREIGN)) + ".\n"


def one_setting() -> str:
    """What `dk-trio config NAME` prints."""
    from click.testing import CliRunner

    command = commands.get_command(click.Context(commands), "config")
    return CliRunner().invoke(command, ["max_queued_tasks", "--preset", "medium"], env={}).stdout


def of_tests() -> dict[str, str]:
    """What tests know: which of them carries what, and what they did when they last ran at their night size."""
    root = str(Path(__file__).parent.parent)
    if root not in sys.path:  # mkdocs runs this, not pytest
        sys.path.append(root)
    from tests.conformance.table import differences, table
    from tests.reliability import figures
    from tests.settings.table import guide_table, other_table

    return {
        "conformance.md": table(),
        "differences.md": differences(),
        "simulation-rules.md": simulation_rules(),
        "simulation-scenarios.md": simulation_scenarios(),
        "reliability-promises.md": figures.promises(),
        "reliability-batteries.md": figures.batteries(),
        "reliability-mutants.md": figures.mutants(),
        "reliability-coverage.md": figures.coverage(),
        "variables-guide.md": guide_table(),
        "variables-other.md": other_table(),
    }


def code(text: str) -> str:
    return f"`{text}`"


def files() -> dict[str, str]:
    """Name -> content of every generated file."""
    out = {
        "dk-trio.txt": help_of(""),
        "states.txt": states(),
        "outcomes.md": outcomes(),
        "errors.md": errors(),
        "exits.md": exits(),
        "not-used.md": not_used(),
        "presets.md": presets(),
        "config-one.txt": one_setting(),
        "metrics.md": metrics(),
        "metrics-foreign.md": foreign_metrics(),
    }
    out |= of_tests()
    out |= {f"{name.replace(' ', '-')}.txt": help_of(name) for name in command_names()}
    return out | {f"settings-{layer}.md": settings(layer) for layer in LAYERS}


def on_pre_build(config: object) -> None:
    """A hook of mkdocs. Unchanged files are left alone, or `mkdocs serve` would build for ever."""
    GENERATED.mkdir(exist_ok=True)
    for name, content in files().items():
        path = GENERATED / name
        if not path.exists() or path.read_text() != content:
            path.write_text(content)
