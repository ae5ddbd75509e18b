"""The words of a history: who notes which event, with which fields. What no table has cannot be noted.

A check that looks for an event which nobody notes can never fail; so a misspelt word is an error where it is noted.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

EVENTS: Final[Mapping[str, Mapping[str, str]]] = MappingProxyType(
    {
        "world": {
            # Bounds. Sizes are of each server, times are virtual seconds. `delivery`: the longest that a small message
            # takes between two hosts without a fault; `detect`: the longest until one notices that the other is gone
            # without a word; `hold`: the longest that the provider holds a poll; `poll`: the longest from a signal in
            # the provider to its job, if something disturbs them; `strike`: the longest wait at a point. `memory`:
            # bytes of one server's buffers. `lease`: until a server that says nothing is not found any more.
            # `provider`: whether there is one.
            "begin": "seed scenario slots queue cleanup_grace completion_timeout delivery detect hold poll strike "
            "memory lease provider",
            # `where`: names of hosts; one: all that it does; two: between them; `*`: everywhere. `until`: if known.
            "fault": "what where until?",
            "heal": "what where",
            # At a point of `dk_trio.buggify`: `what` is wait, cancel, cut or fail. Whom it may have harmed, if known;
            # `where` as of a fault: a connection that is cut may have carried other jobs, too.
            "strike": "point what seconds? job? server? where?",
            "quiet": "",
            # The package has told of an exception that nothing which others do may lead to.
            "defect": "text where?",
            # Lists of what is left: texts for people. `borrowed`: by server {"running": n, "admitted": n}.
            "end": "tasks_left streams_left borrowed sessions_left threads",
        },
        "client": {
            "start": "job server setup deadline_at? pause?",  # `pause`: seconds that it takes for each output
            "output": "job protocol number? run?",  # `run`: which one of the runs of the job, where it is not the first
            "cancel": "job",
            "status": "job status message on_corrupted",
            "stop": "job",
            "stop_reply": "job ok",
        },
        "author": {
            "initialize": "",
            "initialize_end": "how",  # returned, raised, cancelled
            "handler": "deadline_at?",  # as its code sees it
            "send": "number size?",
            "sent": "number",
            "send_failed": "number",
            "call": "child deadline_at?",
            "called": "child status",
            "cancelled": "",
            "handler_end": "how",
            "cleanup": "",
            "cleanup_end": "how",
            "store": "record",
            "stored": "record",
            "sin": "what",  # about to do what no module should: shield itself, swallow a cancellation, ...
            "over": "",
        },
        "server": {
            "asked": "job",  # for admission: gets into the line in this step
            "slot": "job",  # it gets its slot in this step; a strike may come before it is `admitted`, that is, begins
            "admitted": "job",
            "gauge": "running admitted slots queue queued",
            "answered": "job action",  # who asks for its end hears that it is cancelled
            "outcome": "job reason state",  # values of `lifecycle.Reason` and `lifecycle.State`
            "crash": "",
            "restart": "",
            "vanish": "",  # at the very end, when nothing is left to be done: as a crash, and for good
            "drain_begin": "grace?",
            "drain_end": "",
            "memory": "buffered",
            "lost": "job",  # a signal of it: the server has told so
        },
        "provider": {
            "signal": "task action reason seq",  # as committed; `reason` is `none` where it ends nothing
            "signal_sent": "task action",  # somebody asks for the end of a job
            "signal_taken": "task action",  # and the provider has acknowledged that
            "registered": "found",  # whom the registry finds, when a look is taken
            "record": "record times",
            "crash": "",
            "restart": "",
        },
    }
)
"""By kind of actor and event, the fields; those with `?` may be left out."""


_FIELDS: Final = {
    (kind, event): (
        frozenset(name for name in names.split() if name[-1] != "?"),
        frozenset(names.replace("?", "").split()),
    )
    for kind, events in EVENTS.items()
    for event, names in events.items()
}
"""What an event needs, and what it may have."""


def misspelt(actor: str, event: str, fields: Mapping[str, Any]) -> str | None:
    """What is wrong with an event, in words; None when it is one of the table."""
    kind, _, name = actor.partition("/")
    if kind not in EVENTS or bool(name) == (kind in {"world", "provider"}):
        return f"no actor is called {actor!r}"
    if (kind, event) not in _FIELDS:
        return f"{kind} notes no {event!r}, but {', '.join(EVENTS[kind])}"
    needed, known = _FIELDS[kind, event]
    given = fields.keys()
    if needed <= given <= known:
        return None
    if missing := needed - given:
        return f"{event!r} of {kind} needs {', '.join(sorted(missing))}"
    return f"{event!r} of {kind} has no {', '.join(sorted(given - known))}"
