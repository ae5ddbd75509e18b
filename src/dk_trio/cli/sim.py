"""`dk-trio sim`: whole systems from a seed, with faults, in virtual time; and what of our promises they break."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from ._exits import CODES, Exit
from ._output import harmless, write_line

if TYPE_CHECKING:
    from dk_trio.testing.simulation.run import Result
    from dk_trio.testing.simulation.timeline import Line

_SEEDS = 100


@click.command(
    epilog=f"""\b
Examples:
  dk-trio sim
  dk-trio sim --seeds 10000 --processes 2
  dk-trio sim --seed 41 --scenario jobs --timeline --job j3
  dk-trio sim --seed 41 --scenario jobs --timeline --json | jq 'select(.event == "fault")'

A simulation has clients, servers and a provider in one process, on a network that delays, slices, cuts and goes silent.
Everything follows from the seed, so a seed shows the same each time, in every process. What happens is checked against
the promises of dk-trio: see docs/simulation.md. Without a scenario, seeds take each in turn.

\b
{CODES}"""
)
@click.option("--seed", metavar="N", type=click.IntRange(min=0), help="Play this seed alone.")
@click.option("--seeds", metavar="N", type=click.IntRange(min=1), help=f"Play so many seeds.  [default: {_SEEDS}]")
@click.option("--from", "first", metavar="M", type=click.IntRange(min=0), default=0, help="Begin with this one.")
@click.option("--scenario", metavar="NAME", help="What is simulated; --list has the names.  [default: each in turn]")
@click.option("--timeline", is_flag=True, help="Of one seed: print what happens.")
@click.option("--job", metavar="NAME", help="In a timeline: what is about this job, and faults.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one object a line: seeds, or events of a timeline.")
@click.option(
    "--processes", metavar="K", type=click.IntRange(min=1), default=1, help="Share the seeds among so many processes."
)
@click.option("--keep-going", is_flag=True, help="Do not end with the first seed that breaks a promise.")
@click.option("--quiet", is_flag=True, help="No progress on stderr.")
@click.option("--list", "listed", is_flag=True, help="List the scenarios and end.")
def command(
    *,
    seed: int | None,
    seeds: int | None,
    first: int,
    scenario: str | None,
    timeline: bool,
    job: str | None,
    as_json: bool,
    processes: int,
    keep_going: bool,
    quiet: bool,
    listed: bool,
) -> int:
    """Simulate whole systems from seeds, and check them."""
    if listed:
        _list(as_json=as_json)
        return Exit.OK
    if seed is not None and (seeds is not None or first):
        raise click.UsageError("--seed is one seed, --seeds and --from are many. Give the one or the other.")
    if seed is None and (timeline or job is not None):
        raise click.UsageError("A timeline is of one seed: say which with --seed.")
    if job is not None and not timeline:
        raise click.UsageError("--job chooses lines of a timeline: add --timeline.")
    _check_scenario(scenario)
    if seed is not None:
        return _one(seed, scenario, timeline=timeline, job=job, as_json=as_json)
    return _many(
        range(first, first + (seeds or _SEEDS)),
        scenario,
        as_json=as_json,
        processes=processes,
        keep_going=keep_going,
        progress=not quiet,
    )


def _list(*, as_json: bool) -> None:
    from dk_trio.testing.simulation.scenarios import SCENARIOS

    for scenario in SCENARIOS.values():
        if as_json:
            write_line({"name": scenario.name, "about": scenario.about})
        else:
            click.echo(f"{scenario.name:<{max(map(len, SCENARIOS))}}  {scenario.about}")


def _check_scenario(name: str | None) -> None:
    import difflib

    from dk_trio.testing.simulation.scenarios import SCENARIOS

    if name is None or name in SCENARIOS:
        return
    near = difflib.get_close_matches(name, SCENARIOS, n=1)
    meant = f"Did you mean {near[0]!r}?" if near else f"There are {', '.join(SCENARIOS)}."
    raise click.BadParameter(f"no scenario is called {name!r}. {meant}", param_hint="--scenario")


# -- one seed ---------------------------------------------------------------------------------------------------------


def _one(seed: int, scenario: str | None, *, timeline: bool, job: str | None, as_json: bool) -> int:
    from dk_trio.testing.simulation.run import as_json as row_of
    from dk_trio.testing.simulation.run import simulate
    from dk_trio.testing.simulation.timeline import about

    result = simulate(seed, scenario)
    jobs = {event.job: None for event in result.history.events if event.job}
    if job is not None and job not in jobs:
        raise click.BadParameter(f"this seed has no job {job!r}. It has {', '.join(jobs)}.", param_hint="--job")
    if timeline and as_json:
        for event in result.history.events:
            if job is None or about(event, job):
                click.echo(event.line())
    elif as_json:
        write_line(row_of(result))
    else:
        _tell(result, timeline=timeline, job=job)
    return Exit.VIOLATED if result.violations else Exit.OK


def _tell(result: Result, *, timeline: bool, job: str | None) -> None:
    from dk_trio.testing.simulation.run import as_json as row_of
    from dk_trio.testing.simulation.timeline import excerpt
    from dk_trio.testing.simulation.timeline import timeline as lines_of

    from ._sim_batch import Tally, tell_failure

    row = row_of(result)
    if timeline:
        _print(lines_of(result.history.events, job=job, violations=result.violations))
        for line in result.logs:
            click.echo(harmless(f"log {line}"))
    elif result.violations:
        _print(excerpt(result.history.events, result.violations))
    if result.violations:
        tell_failure(row)
    tally = Tally()
    tally.add(row)
    for line in tally.lines():
        click.echo(line)


def _print(lines: Iterable[Line]) -> None:
    for line in lines:
        colour = "red" if line.guilty else "yellow" if line.struck else None
        click.secho(harmless(line.text), fg=colour, bold=line.guilty)


# -- many -------------------------------------------------------------------------------------------------------------


def _many(
    seeds: range, scenario: str | None, *, as_json: bool, processes: int, keep_going: bool, progress: bool
) -> int:
    from ._sim_batch import Progress, Tally, elsewhere, here, tell_failure

    tally, bar = Tally(), Progress(len(seeds), shown=progress)
    rows = here(seeds, scenario) if processes == 1 else elsewhere(seeds, scenario, processes)
    try:
        for row in rows:
            tally.add(row)
            if as_json:
                write_line(row)
            elif row["violations"]:
                bar.clear()
                tell_failure(row)
            if row["violations"] and not keep_going:
                break
            bar.show(tally)
    finally:  # also when it is interrupted: what was done is done
        rows.close()
        bar.clear()
        if as_json:
            write_line(tally.as_json())
        else:
            for line in tally.lines():
                click.echo(line)
    return Exit.VIOLATED if tally.violations else Exit.OK
