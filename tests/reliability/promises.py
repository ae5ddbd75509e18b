"""The promises, each with the tests that carry it: files, folders, or single tests."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Promise:
    """What users may rely on.

    Attributes:
        name: P1 to P10, as simulations name what is violated.
        title: In a few words.
        text: What exactly.
        proof: Tests whose subject it is, below `tests/`. Simulations check P1 to P9 in every seed besides.
    """

    name: str
    title: str
    text: str
    proof: tuple[str, ...]


PROMISES = (
    Promise(
        name="P1",
        title="No silent loss",
        text="An output whose `send` returned reaches the client once and in order, or the client gets a status that "
        "is not `OK`.",
        proof=(
            "module/test_delivery.py",
            "faults/test_every_offset.py",
            "cli/test_delivery.py",
            "regressions/test_loss_hangs_and_cancellation.py",
            "properties/test_storm.py",
        ),
    ),
    Promise(
        name="P2",
        title="One end",
        text="A job has one outcome, one START and one STOP, with its reason.",
        proof=(
            "module/test_session.py",
            "module/test_lifecycle.py",
            "properties/test_session_machine.py",
            "properties/test_every_checkpoint.py",
        ),
    ),
    Promise(
        name="P3",
        title="Nothing outlives its owner",
        text="A job ends with its call, a call with its connection, a connection with its server. No task, slot, "
        "socket, lease or file is left.",
        proof=(
            "soak",
            "module/test_author_leftovers.py",
            "module/test_lost_callers.py",
            "module/test_freed_at_once.py",
            "properties/test_every_checkpoint_services.py",
            "rpc/test_server_cancellation.py",
        ),
    ),
    Promise(
        name="P4",
        title="Capacity is conserved",
        text="Running jobs are at most the slots, admitted ones at most slots and queue, in the order of arrival; back "
        "to zero after any exception and any cancellation.",
        proof=("admission", "properties/test_every_checkpoint.py", "properties/test_storm.py"),
    ),
    Promise(
        name="P5",
        title="Cancel arrives",
        text="At the next checkpoint, from client, signal, deadline or shutdown, with its reason. Cleanup runs once, "
        "in a bounded time.",
        proof=(
            "rpc/test_server_cancellation.py",
            "module/test_remote_signals.py",
            "module/test_timeouts.py",
            "module/test_drain.py",
            "cli/test_shutdown.py",
            "regressions/test_loss_hangs_and_cancellation.py",
        ),
    ),
    Promise(
        name="P6",
        title="Deadlines travel",
        text="No nested call outlives the deadline of the one that it is made for.",
        proof=("rpc/test_deadlines_travel.py", "rpc/test_channel_deadlines.py", "services/test_query.py"),
    ),
    Promise(
        name="P7",
        title="Signals arrive",
        text="At least once, in order for each job, in bounded batches and delays, flushed at the end. A loss is told.",
        proof=(
            "signals",
            "provider/test_signals.py",
            "provider/test_signals_kept.py",
            "properties/test_every_checkpoint_mesh.py",
        ),
    ),
    Promise(
        name="P8",
        title="Bounded memory",
        text="Every buffer has a number; a slow reader pushes back to the author's `send`.",
        proof=(
            "rpc/test_server_flow.py",
            "wire/test_unread_messages.py",
            "wire/conformance/test_floods.py",
            "provider/test_slow_readers.py",
            "soak",
        ),
    ),
    Promise(
        name="P9",
        title="A bad peer or module hurts only itself",
        text="Floods, garbage, corrupted bytes and an author's mistakes end their own connection or job; bystanders "
        "do not notice.",
        proof=(
            "faults/test_floods.py",
            "wire/conformance/test_bystander.py",
            "module/test_author_sins.py",
            "module/test_author_failures.py",
            "fuzz",
            "security/test_limits.py",
        ),
    ),
    Promise(
        name="P10",
        title="No silent configuration",
        text="Every variable of the guides works, is checked at start, and is shown with its source.",
        proof=(
            "settings/test_effects.py",
            "settings/test_bad_values.py",
            "settings/test_table.py",
            "settings/test_sources.py",
            "cli/test_config.py",
        ),
    ),
)
