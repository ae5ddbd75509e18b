"""The test service, health and reflection as a process: `python -m tests.interop.battery.dk_server [certificate key]`.

Prints `READY {"tcp":, "tls":, "unix":}` and ends when standard input does. Lines before that are commands:
`drain SECONDS` drains and prints `DRAINED`; `health NAME 0|1` sets a flag; `settle` waits until no handler runs and
prints the statistics as JSON.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import trio

from dk_trio import rpc

from .dk_service import InteropService
from .google_messages import DESCRIPTORS_VARIABLE

MESSAGE_MAX = 64 << 20


async def listen(folder: str) -> tuple[list[trio.abc.Listener[trio.abc.Stream]], dict[str, object]]:
    """Open every kind of listener on free addresses."""
    tcp = await rpc.open_tcp_listeners(0, host="127.0.0.1")
    path = f"{folder}/socket"
    listeners: list[trio.abc.Listener[trio.abc.Stream]] = [*tcp, await rpc.open_unix_listener(path)]
    address: dict[str, object] = {"tcp": tcp[0].socket.getsockname()[1], "unix": path}
    if len(sys.argv) > 2:
        secure = await rpc.open_tcp_listeners(0, host="127.0.0.1")
        listeners += rpc.tls_listeners(secure, rpc.server_tls_context(sys.argv[1], sys.argv[2]))
        address["tls"] = secure[0].socket.getsockname()[1]
    return listeners, address


async def obey(server: rpc.Server, service: InteropService, health: rpc.Health) -> None:
    """Follow the commands of standard input until it ends."""
    buffer = b""
    async with trio.lowlevel.FdStream(os.dup(0)) as stdin:
        async for chunk in stdin:
            *lines, buffer = (buffer + chunk).split(b"\n")
            for line in lines:
                command, *arguments = line.decode().split()
                if command == "settle":
                    await service.idle()
                    handlers = {"handlers_started": service.started, "handlers_ended": service.ended}
                    print(json.dumps(asdict(server.statistics()) | handlers), flush=True)
                elif command == "health":
                    health.set(arguments[0], arguments[1] == "1")
                elif command == "drain":
                    await server.drain(grace=float(arguments[0]))
                    print("DRAINED", flush=True)


async def main() -> None:
    """Serve until standard input ends."""
    service, health = InteropService(), rpc.Health()
    health.set("readiness", True)
    described = Path(os.environ[DESCRIPTORS_VARIABLE]).read_bytes()
    services = [service, health]
    services += rpc.reflection(services, descriptors=[described])
    options = rpc.ServerOptions(max_receive_message_bytes=MESSAGE_MAX, max_send_message_bytes=MESSAGE_MAX)
    server = rpc.Server(services, options=options)
    with tempfile.TemporaryDirectory() as folder:
        listeners, address = await listen(folder)
        async with trio.open_nursery() as nursery:
            await nursery.start(server.serve, listeners)
            print("READY", json.dumps(address), flush=True)
            await obey(server, service, health)
            nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
