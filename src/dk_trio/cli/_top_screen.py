"""What `dk-trio top` shows of a snapshot. Pure: a snapshot in, something that rich can print out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, Literal

from rich.console import Group, RenderableType
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

_JOBS_SHARE: Final = 3  # jobs get a third of the lines, and tasks what is left
_GAP: Final = 2  # characters between two columns
_WIDE: Final = 120
_JOB_COLUMNS: Final = ("job", "module", "state", ">age", ">waited", "protocol", ">outputs", "mission", "setup")
_FREE: Final = frozenset({"module", "protocol", "mission", "setup", "error"})
_NARROW: Final = frozenset({"module", ">waited", "setup"})  # columns that a narrow terminal has no room for
_ID_MAX: Final = 40  # characters of an id that a caller has chosen
_STALLS: Final = 3
_ENDED: Final = 5
_REASONS: Final = {"completed": "green", "failed": "red", "timeout": "red", "refused": "yellow"}


def screen(
    snapshot: dict[str, Any],
    *,
    width: int = 200,
    height: int | None = None,
    chosen: int | None = None,
    note: str = "",
    paused: bool = False,
) -> RenderableType:
    """A snapshot as a screen.

    Args:
        snapshot: Of the inspector.
        width: Characters of a line; below `_WIDE` some columns are left out.
        height: Lines that there are; None: as many as it takes.
        chosen: Number of the job that is marked.
        note: Something to tell, below.
        paused: Whether it stands still.
    """
    snapshot, note = printable(snapshot), printable(note)
    sessions = [session for server in snapshot["servers"] for session in server["sessions"]]
    stalls = (snapshot["loop"] or {}).get("last_stalls", [])[: -_STALLS - 1 : -1]
    ended = snapshot["ended"][:_ENDED]
    tasks = list(_tasks(snapshot["tasks"]["root"], ""))
    shown = len(sessions)
    if height is not None:
        shown = min(shown, max(3, height // _JOBS_SHARE))
        used = 5 + shown + 2 + (len(stalls) + 1 if stalls else 0) + (len(ended) + 2 if ended else 0) + 2
        tasks = tasks[: max(3, height - used)]
    first = 0 if chosen is None else max(0, min(chosen - shown // 2, len(sessions) - shown))
    parts: list[RenderableType] = [_head(snapshot, paused=paused), _gauges(snapshot), *_links(snapshot)]
    parts += [
        _rule(f"jobs {len(sessions)}"),
        _jobs(sessions[first : first + shown], chosen - first if chosen is not None else None, width),
    ]
    parts += [_rule(f"tasks {snapshot['tasks']['total']}"), *tasks]
    if stalls:
        parts += [_rule("stalls"), *(_stall(stall, snapshot["at"]) for stall in stalls)]
    if ended:
        parts += [_rule("ended last"), _ended(ended, width)]
    if note or chosen is not None:
        keys = "↑↓ choose   s stop   space pause   q end" if snapshot["actions"] else "space pause   q end   read-only"
        parts.append(Text(note or keys, "yellow" if note else "dim", no_wrap=True, overflow="ellipsis"))
    return Group(*parts)


def printable(value: Any) -> Any:
    """A snapshot without what a terminal would obey: ids and errors are a caller's, and may hold escape sequences."""
    if isinstance(value, str):
        return (
            value
            if value.isprintable()
            else "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in value)
        )
    if isinstance(value, dict):
        return {key: printable(each) for key, each in value.items()}
    if isinstance(value, list):
        return [printable(each) for each in value]
    return value


def duration(seconds: float | None) -> str:
    """A time as people write it: `12 ms`, `3.4 s`, `7 min`."""
    if seconds is None:
        return ""
    if seconds < 0.0995:
        return f"{seconds * 1000:.{1 if seconds < 0.00995 else 0}f} ms"
    if seconds < 120:
        return f"{seconds:.{1 if seconds < 10 else 0}f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _rule(title: str) -> Rule:
    return Rule(Text(title, "bold"), align="left", style="dim")


def _line(*parts: tuple[str, str]) -> Text:
    line = Text(no_wrap=True, overflow="ellipsis")
    for text, style in parts:
        line.append(text, style)
    return line


def _head(snapshot: dict[str, Any], *, paused: bool) -> Text:
    process = snapshot["process"]
    names = [name for server in snapshot["servers"] for name in server["modules"].values()]
    if snapshot["provider"] is not None:
        names.append("services-provider")
    told = f"worker {process['worker']}  pid {process['pid']}  dk-trio {process['version']}"
    return _line((", ".join(names), "bold"), (f"  {told}", "dim"), ("  paused" if paused else "", "yellow"))


def _gauges(snapshot: dict[str, Any]) -> Text:
    parts: list[tuple[str, str]] = []

    def gauge(name: str, value: str, style: str = "bold") -> None:
        parts.extend([(f"{name} ", "dim"), (value, style), ("   ", "")])

    for server in snapshot["servers"]:
        admission = server["admission"]
        full = admission["running"] >= admission["slots"]
        gauge("running", f"{admission['running']}/{admission['slots']}", "bold yellow" if full else "bold")
        gauge("waiting", str(admission["queued"]) + (f"/{admission['queue']}" if admission["queue"] else ""))
        refused = admission["rejected_by_gate"] + admission["rejected_by_slot"]
        gauge("refused", str(refused), "bold yellow" if refused else "bold")
    rpcs = [server["rpc"] for server in snapshot["servers"]]
    if snapshot["provider"] is not None:
        rpcs.append(snapshot["provider"]["rpc"])
    gauge("RPCs", str(sum(each["rpcs"] for each in rpcs)))
    gauge("connections", str(sum(each["connections"] for each in rpcs)))
    loop = snapshot["loop"]
    if loop is not None:
        gauge("loop lag", duration(loop["recent"]), "bold red" if loop["recent"] > 1 else "bold")
        gauge("stalls", str(loop["stalls"]), "bold red" if loop["stalls"] else "bold")
    return _line(*parts[:-1])


def _links(snapshot: dict[str, Any]) -> Iterator[Text]:
    """What leads out of each server: its channels, and in remote mode its provider."""
    for server in snapshot["servers"]:
        channels, provider = server["channels"], server["provider"]
        parts = [("channels ", "dim"), (f"{channels['channels']} ({channels['in_use']} in use)", "")]
        if provider is not None:
            out, registration = provider["signals"]["outbound"], provider["registration"]
            standing = "not registered" if not registration or not registration["registered"] else "registered"
            trouble = registration["trouble"] if registration else ""
            parts += [
                ("   signals ", "dim"),
                (f"{out['delivered']} in {out['batches']} batches, {out['pending']} wait", ""),
                ("   provider ", "dim"),
                (f"{provider['target']} {standing} {trouble}".rstrip(), "yellow" if trouble else ""),
            ]
        yield _line(*parts)


def _jobs(sessions: list[dict[str, Any]], chosen: int | None, width: int) -> RenderableType:
    if not sessions:
        return Text("none", "dim")
    columns = [column for column in _JOB_COLUMNS if width >= _WIDE or column not in _NARROW]
    rows = []
    for session in sessions:
        row = {
            **session,
            "mission": _cut(session["mission"]),
            "setup": _cut(session["setup"]),
            "age": duration(session["age"]),
            "waited": duration(session["waited"]),
        }
        rows.append([Text(str(row[column.removeprefix(">")])) for column in columns])
    return _table(columns, rows, width, marked=chosen)


def _cut(text: str) -> str:
    return text if len(text) <= _ID_MAX else f"{text[: _ID_MAX - 1]}…"


def _ended(jobs: list[dict[str, Any]], width: int) -> Table:
    rows = [
        [
            Text(duration(job["ago"])),
            Text(job["job"]),
            Text(job["reason"].replace("_", " "), _REASONS.get(job["reason"], "")),
            Text(duration(job["ran"])),
            Text(str(job["outputs"])),
            Text(job["error"]),
        ]
        for job in jobs
    ]
    return _table([">ago", "job", "how", ">ran", ">outputs", "error"], rows, width)


def _table(columns: Sequence[str], rows: Sequence[Sequence[Text]], width: int, *, marked: int | None = None) -> Table:
    """A table of one line a row; `>` stands before columns of numbers. Free text is cut where there is no room."""
    names = [column.removeprefix(">") for column in columns]
    widths = [max(len(name), *(row[number].cell_len for row in rows)) for number, name in enumerate(names)]
    free = sorted((number for number, name in enumerate(names) if name in _FREE), key=widths.__getitem__)
    room = width - _GAP * len(columns) - sum(each for number, each in enumerate(widths) if number not in free)
    for left, number in enumerate(free):  # the short ones first: what they leave is for the others
        widths[number] = max(len(names[number]), min(widths[number], room // (len(free) - left)))
        room -= widths[number]
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="dim")
    for name, column, cells in zip(names, columns, widths, strict=True):
        side: Literal["left", "right"] = "left" if name == column else "right"
        table.add_column(name, justify=side, no_wrap=True, overflow="ellipsis", width=cells)
    for number, row in enumerate(rows):
        table.add_row(*row, style="reverse" if number == marked else "")
    return table


def _stall(stall: dict[str, Any], now: float) -> Text:
    job = stall["ids"].get("job", "")
    where = stall["where"] or stall["task"] or "the stack could not be taken"
    told = f"  {duration(now - stall['at'])} ago  {where}{f'  job {job}' if job else ''}"
    return _line((duration(stall["duration"]), "bold red"), (told, ""))


def _tasks(node: dict[str, Any], indent: str) -> Iterator[Text]:
    where = " at ".join(filter(None, [node["waits"], node["author"] or node["at"]]))
    job = f" job {node['job']}" if node["job"] and node["job"] not in node["name"] else ""
    waited = node["seconds"] or 0.0
    yield _line(
        (indent, ""),
        (f"{node['count']} x " if node["count"] > 1 else "", "green"),
        (node["name"], "bold"),
        (f"  ≥{duration(waited)}" if waited >= 1 else "", "yellow"),
        (f"{job}  {where}" if where else job, "dim"),
    )
    for nursery in node["nurseries"]:
        for child in nursery:
            yield from _tasks(child, indent + "  ")
    if node["more"]:
        yield _line((f"{indent}  ... {node['more']} more", "dim"))
