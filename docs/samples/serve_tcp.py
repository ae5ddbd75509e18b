"""Serve a generated service on a TCP port."""

import trio
from greeter_service import Greeter

from dk_trio import rpc


async def main(port: int = 50051, task_status: trio.TaskStatus = trio.TASK_STATUS_IGNORED) -> None:
    server = rpc.Server([Greeter()])
    listeners = await rpc.open_tcp_listeners(port, host="127.0.0.1")
    await server.serve(listeners, task_status=task_status)


if __name__ == "__main__":
    trio.run(main)
