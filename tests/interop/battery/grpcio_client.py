"""A process that runs cases with grpcio: `python -m tests.interop.battery.grpcio_client sync|aio`.

One JSON object a line on standard input ({"case", "target", "tls", "server_sees_compression", "compression",
"options"}), one a line on standard output ({"ok"} or {"error"}). A channel lives for one case and shares no connection
with another.
"""

import asyncio
import json
import sys
import traceback
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from . import google_messages
from .grpcio_aio import AioCaller
from .grpcio_features import FEATURES
from .grpcio_sync import COMPRESSION, SyncCaller, run_blocking
from .more_cases import CASES

MESSAGE_MAX = 64 << 20  # bytes; grpcio's own default of 4 MiB is below what the cases send


def channel_arguments(command: dict[str, Any]) -> dict[str, Any]:
    """Return the keyword arguments that both channel types share."""
    options = [
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.max_receive_message_length", MESSAGE_MAX),
        ("grpc.max_send_message_length", MESSAGE_MAX),
        *command.get("options", {}).items(),
    ]
    return {"options": options, "compression": COMPRESSION[command.get("compression")]}


def open_channel(library: Any, command: dict[str, Any]) -> Any:
    """Open a channel of `grpc` or of `grpc.aio`."""
    arguments = channel_arguments(command)
    if not command.get("tls"):
        return library.insecure_channel(command["target"], **arguments)
    roots = Path(command["tls"]).read_bytes()
    return library.secure_channel(command["target"], grpc.ssl_channel_credentials(roots), **arguments)


def run_sync(command: dict[str, Any], messages: Any) -> None:
    """Run one case, or one feature, on grpcio's blocking API."""
    with open_channel(grpc, command) as channel:
        if command["case"] in FEATURES:
            FEATURES[command["case"]](channel, messages)
            return
        caller = SyncCaller(channel, messages, server_sees_compression=command["server_sees_compression"])
        run_blocking(CASES[command["case"]](caller))


def run_aio(command: dict[str, Any], messages: Any) -> None:
    """Run one case on grpc.aio."""

    async def main() -> None:
        async with open_channel(grpc.aio, command) as channel:
            caller = AioCaller(channel, messages, server_sees_compression=command["server_sees_compression"])
            await CASES[command["case"]](caller)

    asyncio.run(main())


def main() -> None:
    """Serve commands until standard input ends."""
    run = {"sync": run_sync, "aio": run_aio}[sys.argv[1]]
    messages = google_messages.load()
    for line in sys.stdin:
        command = json.loads(line)
        try:
            run(command, messages)
        except Exception:  # noqa: BLE001  the boundary: whatever a case raises is its result
            answer = {"error": traceback.format_exc()}
        else:
            answer = {"ok": True}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
