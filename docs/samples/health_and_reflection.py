"""Let others see what is served, and whether it is well."""

from pathlib import Path

import trio
from greeter_service import Greeter

from dk_trio import rpc

DESCRIPTORS = Path(__file__).parent / "gen" / "greeter.bin"  # written by protoc


async def main(port: int = 50051, task_status: trio.TaskStatus = trio.TASK_STATUS_IGNORED) -> None:
    health = rpc.Health()  # the empty name, the server as a whole, is well from the start
    health.set("readiness", False)  # not yet: still warming up

    services = [Greeter(), health]
    server = rpc.Server([*services, *rpc.reflection(services, descriptors=[DESCRIPTORS.read_bytes()])])
    listeners = await rpc.open_tcp_listeners(port, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        task_status.started(await nursery.start(server.serve, listeners))
        await trio.sleep(1)  # load what the service needs
        health.set("readiness", True)


if __name__ == "__main__":
    trio.run(main)
