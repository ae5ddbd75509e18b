"""`dk-trio doctor`: what keeps a server from working here, and what to do about it.

All checks run at the same time, each within its own deadline: a host that does not answer and a disk that hangs hold up
nothing else. What blocks runs in threads, which are left behind when the deadline passes.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

import click

from dk_trio.cli._connect import Connection, check_address, connection_options
from dk_trio.cli._exits import CODES, Exit
from dk_trio.cli._output import harmless, is_terminal, json_option, unwritten, write_line
from dk_trio.cli._seconds import Seconds
from dk_trio.cli._settings import load_settings, settings_options

if TYPE_CHECKING:
    from dk_trio.settings import Settings

    from ._finding import Finding

_TIMEOUT: Final = 5.0
_COLOURS: Final = {"ok": "green", "warn": "yellow", "fail": "red"}

Probe: TypeAlias = "Callable[[], AsyncIterator[Finding]]"


@click.command(
    epilog=f"""\b
Examples:
  dk-trio doctor
  dk-trio doctor 127.0.0.1:50055
  dk-trio doctor --preset small --env-file production.env
  dk-trio doctor --json | jq -c 'select(.level != "ok")'

It reads the settings as `dk-trio serve` would here, and looks at what they lead to: ports, files of TLS and tokens, the
services-provider, limits of the system, the clock, packages, the directory of data; with an address also at the server
that runs there. A line is ok, warn (it works, but not as well, as safely or as long as it should) or fail; with a fail
the exit code is {Exit.UNFIT.value}. Nothing is changed, and no check takes longer than --timeout.

\b
{CODES}"""
)
@click.argument("address", required=False, metavar="[HOST:PORT]")
@settings_options
@json_option
@click.option(
    "--timeout",
    type=Seconds(),
    default=_TIMEOUT,
    show_default=True,
    help="Seconds for each check.",
)
@connection_options
def command(
    *,
    address: str | None,
    env_file: Path | None,
    preset: str | None,
    as_json: bool,
    timeout: float,
    connection: Connection,
) -> int:
    """Look for what keeps a server from working here, and say what to do."""
    if address is not None:
        check_address(address)
    import trio

    settings, about_settings = _settings(env_file, preset)
    probes: dict[str, Probe] = {
        "settings": partial(_given, about_settings),
        **_probes(settings, address, connection, timeout),
    }
    try:
        findings = trio.run(_examine, probes, timeout, partial(_show, as_json=as_json))
        _sum_up(findings, as_json=as_json)
    except OSError as error:  # of stdout: each check tells of its own
        return unwritten(error)
    return Exit.UNFIT if any(finding.level.value == "fail" for finding in findings) else Exit.OK


def _settings(env_file: Path | None, preset: str | None) -> tuple[Settings, Sequence[Finding]]:
    """The settings, or the defaults in their place; and what is to be said of them."""
    from dk_trio.errors import SettingError
    from dk_trio.settings import Settings

    from ._finding import fail, ok, warn

    try:
        settings = load_settings(env_file=env_file, preset=preset)
    except SettingError as error:
        return Settings(), [fail(error.message, error.hint or "All below is looked at with the defaults.")]
    changed = sum(row.changed for row in settings.sources)
    told = f"{len(settings.sources)} settings, {changed} of them other than the default; `dk-trio config` shows them."
    return settings, [ok(told, changed=changed), *(warn(text, "") for text in settings.warnings)]


def _probes(settings: Settings, address: str | None, connection: Connection, timeout: float) -> Mapping[str, Probe]:
    """The checks by name, in the order in which they are told."""
    from ._clock import clock
    from ._data import data
    from ._finding import ok
    from ._limits import limits
    from ._packages import packages
    from ._ports import ports
    from ._security import security
    from ._servers import server

    each = timeout / 2  # seconds for an answer: then the check itself says what is wrong
    probes: dict[str, Probe] = {
        "ports": partial(_in_thread, lambda: ports(settings)),
        "security": partial(_in_thread, lambda: security(settings.security)),
        "provider": partial(_given, [ok("Local mode: no services-provider is needed.")]),
        "limits": partial(_in_thread, lambda: limits(settings)),
        "clock": clock,
        "packages": partial(_in_thread, lambda: packages(settings)),
        "data": partial(_in_thread, lambda: data(settings)),
    }
    if settings.services.mode == "remote":
        provider = settings.services.provider
        probes["provider"] = partial(server, "The provider", provider, Connection(), settings, timeout=each)
    if address is not None:
        probes["server"] = partial(server, "The server", address, connection, settings, timeout=each)
    return probes


async def _given(findings: Sequence[Finding]) -> AsyncIterator[Finding]:
    for finding in findings:
        yield finding


async def _in_thread(look: Callable[[], Iterator[Finding]]) -> AsyncIterator[Finding]:
    import trio

    # A disk or a name server that hangs must not hold us: its thread is left behind, and ends with the process.
    for finding in await trio.to_thread.run_sync(lambda: list(look()), abandon_on_cancel=True):
        yield finding


async def _examine(probes: Mapping[str, Probe], timeout: float, show: Callable[[str, Finding], None]) -> list[Finding]:
    """Run all checks at the same time, and tell their findings in order, as soon as that is possible."""
    import trio

    from ._finding import fail

    done: dict[str, list[Finding]] = {}
    waiting = list(probes)
    told: list[Finding] = []

    async def run(name: str, probe: Probe) -> None:
        found: list[Finding] = []
        with trio.move_on_after(timeout) as scope:
            async for finding in probe():
                found.append(finding)  # noqa: PERF401  what was found before the deadline counts
        if scope.cancelled_caught:
            found.append(
                fail(f"No answer within {timeout:g} s.", "Something hangs here: a disk, a name server, a peer.")
            )
        done[name] = found
        while waiting and waiting[0] in done:
            for finding in done[waiting[0]]:
                _progress("")
                show(waiting[0], finding)
                told.append(finding)
            del waiting[0]
        _progress(", ".join(waiting_for for waiting_for in probes if waiting_for not in done))

    async with trio.open_nursery() as nursery:
        for name, probe in probes.items():
            nursery.start_soon(run, name, probe)
    return told


def _progress(names: str) -> None:
    """On a terminal, what is still looked at, in a line that the next one replaces."""
    if sys.stderr is not None and sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{f'looking at: {names}' if names else ''}")  # click would take the \x1b for a colour
        sys.stderr.flush()


def _show(check: str, finding: Finding, *, as_json: bool) -> None:
    level = finding.level.value
    if as_json:
        line = {"check": check, "level": level, "text": finding.text, **finding.facts}
        write_line(line | ({"remedy": finding.remedy} if finding.remedy else {}))
        return
    head = f"{level:<4}  {check:<8}  "
    remedy = f"\n{' ' * len(head)}" if is_terminal() else " "  # below the text; a program wants one line
    text = f"{finding.text}{remedy}{finding.remedy}" if finding.remedy else finding.text
    click.echo(click.style(head[: len(level)], fg=_COLOURS[level]) + head[len(level) :] + harmless(text))


def _sum_up(findings: Sequence[Finding], *, as_json: bool) -> None:
    if as_json:
        return
    levels = [finding.level.value for finding in findings]
    click.echo(f"\n{levels.count('fail')} failed, {levels.count('warn')} warnings, {levels.count('ok')} ok.")
