"""`dk-trio provider` as another implementation would be: it honours nothing beyond the contract and holds no polls."""

from __future__ import annotations

import sys
from typing import Any

from dk_trio import cli
from dk_trio.provider import _base, _server, task_manager


def main() -> None:
    task_manager.TaskManagerServicer.get_signals = at_once  # type: ignore[method-assign]
    _base.HONOURED = _server.HONOURED = ""  # type: ignore[misc]
    cli.main(sys.argv[1:])


async def at_once(self: Any, message: Any) -> Any:
    from dk_trio.pb.agentic_mesh_protocol.task_manager.v1 import GetSignalsResponse, Task

    await self._load()
    found = await self._pending(task_manager._jobs(message.task_ids), 0)
    return GetSignalsResponse(tasks=[Task.parse(signal.message) for signal in found])


if __name__ == "__main__":
    main()
