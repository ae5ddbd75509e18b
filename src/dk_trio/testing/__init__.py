"""Tests of modules in one process, in virtual time: a server over memory, a provider that fails on demand, a clock.

    async def test_shouts(virtual_clock):
        result = await run_job(Shouter, {"text": "hello"})
        assert [output["text"] for output in result.outputs] == ["HELLO"]

Installed with dk-trio, a pytest plugin gives fixtures for the same, see `dk_trio.testing.plugin`. What is here needs
neither pytest nor anything else beyond dk-trio itself. Names are loaded when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dk_trio.lazy import lazily

if TYPE_CHECKING:
    from .clock import DeadlockError as DeadlockError
    from .clock import run as run
    from .clock import seed_scheduler as seed_scheduler
    from .clock import task_tree as task_tree
    from .clock import virtual_clock as virtual_clock
    from .handlers import MemoryContext as MemoryContext
    from .handlers import context_in_memory as context_in_memory
    from .handlers import run_handler as run_handler
    from .handlers import run_job as run_job
    from .jobs import JobResult as JobResult
    from .leaks import LeakError as LeakError
    from .leaks import LeakWatch as LeakWatch
    from .leaks import assert_no_leaks as assert_no_leaks
    from .memory import MemoryServer as MemoryServer
    from .memory import serve_in_memory as serve_in_memory
    from .network import Conditions as Conditions
    from .network import Network as Network
    from .provider import FakeProvider as FakeProvider
    from .simulation import History as History
    from .simulation import Violation as Violation
    from .simulation import simulate as simulate

_HOMES = {
    name: home
    for home, names in {
        "clock": "DeadlockError run seed_scheduler task_tree virtual_clock",
        "handlers": "MemoryContext context_in_memory run_handler run_job",
        "jobs": "JobResult",
        "leaks": "LeakError LeakWatch assert_no_leaks",
        "memory": "MemoryServer serve_in_memory",
        "network": "Conditions Network",
        "provider": "FakeProvider",
        "simulation": "History Violation simulate",
    }.items()
    for name in names.split()
}

__all__ = sorted(_HOMES)  # noqa: PLE0605

__getattr__, __dir__ = lazily(__name__, _HOMES)
