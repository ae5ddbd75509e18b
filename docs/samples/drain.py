"""Stop without breaking calls: SIGTERM drains the server, and 10 seconds later cancels what is left."""

import signal

import trio
from greeter_service import Greeter

from dk_trio import rpc

GRACE_SECONDS = 10


async def main(port: int = 50051, task_status: trio.TaskStatus = trio.TASK_STATUS_IGNORED) -> None:
    server = rpc.Server([Greeter()])
    listeners = await rpc.open_tcp_listeners(port, host="127.0.0.1")
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            task_status.started(await nursery.start(server.serve, listeners))
            async for _ in signals:
                await server.drain(grace=GRACE_SECONDS)
                break


if __name__ == "__main__":
    trio.run(main)
