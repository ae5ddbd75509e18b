"""The yardstick of the task cases: bare grpc.aio that answers StartModule as bench/echo_module.py does.

google.protobuf (upb), default options, and nothing of a module server: no validation, admission, jobs or cleanup. Its
Structs are made by assigning dicts, which is the fastest of google.protobuf's own ways. `context.write` is as fast here
as a generator, and lets a cancel arrive in the handler wherever that is.
"""

import asyncio
import os
import time
from typing import Any

import bench_pb2
import grpc

from bench import payloads, task_messages
from bench.servers import ready


def to_dict(struct: Any) -> dict[str, Any]:
    return {key: plain(value) for key, value in struct.fields.items()}


def plain(value: Any) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return to_dict(value.struct_value)
    if kind == "list_value":
        return [plain(item) for item in value.list_value.values]
    return None if kind == "null_value" else getattr(value, kind)


def reply(job_id: str, output: dict[str, Any]) -> Any:
    message = bench_pb2.ModuleReply(success=True, job_id=job_id)
    message.output = output
    return message


async def start_module(request: Any, context: Any) -> None:
    root = to_dict(request.input)["root"]
    job_id = task_messages.new_job_id()
    try:
        await context.write(reply(job_id, task_messages.start_info(job_id)))
        if sleep_s := root.get("sleep_s"):
            await asyncio.sleep(sleep_s)
        gap_s = root.get("gap_s")
        text = "x" * int(root.get("size", 0)) or root.get("text", "")
        for index in range(int(root.get("n", 1))):
            await context.write(reply(job_id, task_messages.output(text, index)))
            if gap_s:
                await asyncio.sleep(gap_s)
        await context.write(reply(job_id, task_messages.end_of_stream()))
    except asyncio.CancelledError:
        record("cancelled", job_id)
        raise


def event_log() -> int | None:
    path = os.environ.get("BENCH_EVENT_LOG")
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT) if path else None


LOG = event_log()


def record(event: str, job_id: str) -> None:
    if LOG is not None:
        os.write(LOG, f"{time.clock_gettime(time.CLOCK_MONOTONIC)} {event} {job_id}\n".encode())


async def check(request: bytes, context: Any) -> bytes:
    return task_messages.SERVING


async def main() -> None:
    start = grpc.unary_stream_rpc_method_handler(
        start_module,
        request_deserializer=bench_pb2.ModuleRequest.FromString,
        response_serializer=bench_pb2.ModuleReply.SerializeToString,
    )
    server = grpc.aio.server()
    for path, handler in (
        (payloads.START_MODULE, start),
        (task_messages.HEALTH_CHECK, grpc.unary_unary_rpc_method_handler(check)),
    ):
        service, method = path.split("/")[1:]
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    ready(port)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main())
