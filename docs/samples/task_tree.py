"""The tasks of a server, each below the nursery that it cannot outlive."""

import trio
import trio.testing
from importer import Importer

from dk_trio import ModuleClient, ModuleServer, rpc


def tree(task: trio.lowlevel.Task, depth: int = 0) -> list[str]:
    lines = ["  " * depth + task.name.rpartition(".")[2]]
    children = [child for nursery in task.child_nurseries for child in nursery.child_tasks]
    for child in sorted(children, key=lambda child: child.name):
        lines += tree(child, depth + 1)
    return lines


async def two_jobs() -> list[str]:
    """One connection, over memory, that runs two jobs."""
    server = ModuleServer(Importer)
    async with server.opened(), trio.open_nursery() as serving:
        ours, theirs = trio.testing.memory_stream_pair()

        async def connect() -> trio.abc.Stream:
            return ours

        serving.start_soon(server.serve_stream, theirs)
        (connection,) = serving.child_tasks
        async with rpc.open_channel("memory", connect=connect) as channel:
            client = ModuleClient(channel)
            job = {"count": 10}
            async with client.start(job, protocol="import") as one, client.start(job, protocol="import") as two:
                await anext(one)
                await anext(two)
                lines = tree(connection)
        serving.cancel_scope.cancel()
    return lines


if __name__ == "__main__":
    print("\n".join(trio.run(two_jobs)))
