"""A real gRPC client asks a server once before anything is measured: h2load counts HTTP statuses, not grpc-status.

Program: `python -m bench.preflight PORT [--certificate PEM]`. It also encodes the request of the module-like call
(`--module-body`) and the one for a served bench/echo_module.py (`--echo-module`, after calling it), printed in hex, and
those of the task cases (`--tasks`, after one call when there is a port) with the sizes of their answers, as JSON.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import bench_pb2
import grpc
from google.protobuf import json_format

from bench import payloads, task_messages

TIMEOUT_S = 10.0


def module_request(given: dict[str, Any]) -> Any:
    request = bench_pb2.ModuleRequest(setup_id=payloads.SETUP_ID, mission_id=payloads.MISSION_ID)
    request.input.update(given)
    return request


def check_echo_module(channel: grpc.Channel) -> None:
    """As many outputs as were asked for, between the module's first and last message. Raises like `check`."""
    call = channel.unary_stream(
        payloads.START_MODULE, bench_pb2.ModuleRequest.SerializeToString, bench_pb2.ModuleReply.FromString
    )
    replies = list(call(module_request(payloads.ECHO_INPUT), timeout=TIMEOUT_S))
    protocols = [reply.output["root"]["protocol"] for reply in replies]
    assert protocols == ["module_start_info", *["message"] * payloads.MODULE_OUTPUTS, "end_of_stream"], protocols
    assert all(reply.success for reply in replies)


def check(channel: grpc.Channel) -> None:
    """Raises grpc.RpcError for a status other than OK, AssertionError for a wrong answer."""

    def streaming(path: str, request: Any, reply_type: Any) -> Any:
        call = channel.unary_stream(path, type(request).SerializeToString, reply_type.FromString)
        return call(request, timeout=TIMEOUT_S)

    echo = channel.unary_unary(payloads.UNARY, bench_pb2.Request.SerializeToString, bench_pb2.Reply.FromString)
    reply = echo(bench_pb2.Request(payload=payloads.UNARY_PAYLOAD), timeout=TIMEOUT_S)
    assert reply.payload == payloads.UNARY_PAYLOAD, reply

    replies = list(streaming(payloads.STREAM, bench_pb2.Request(count=40, size=100), bench_pb2.Reply))
    assert [len(reply.payload) for reply in replies] == [100] * 40

    outputs = list(streaming(payloads.START_MODULE, module_request(payloads.MODULE_INPUT), bench_pb2.ModuleReply))
    assert [json_format.MessageToDict(reply.output) for reply in outputs] == [
        payloads.module_output(index) for index in range(payloads.MODULE_OUTPUTS)
    ]
    assert all(reply.success and reply.job_id == payloads.MODULE_JOB_ID for reply in outputs)

    held = streaming(payloads.HOLD, bench_pb2.Request(), bench_pb2.Reply)
    assert next(held).payload == b""
    held.cancel()


def module_reply(output: dict[str, Any]) -> Any:
    reply = bench_pb2.ModuleReply(success=True, job_id=task_messages.new_job_id())
    reply.output.update(output)
    return reply


def check_tasks(channel: grpc.Channel) -> None:
    """An answer has the keys and lengths of task_messages, so that a peer's are the same. Raises like `check`."""
    call = channel.unary_stream(
        payloads.START_MODULE, bench_pb2.ModuleRequest.SerializeToString, bench_pb2.ModuleReply.FromString
    )
    found = list(call(module_request(task_messages.START_INPUT), timeout=TIMEOUT_S))
    for reply, expected in zip(found, map(module_reply, task_messages.START_OUTPUTS), strict=True):
        assert shape(reply) == shape(expected), f"{reply} is not like {expected}"
        assert reply.ByteSize() == expected.ByteSize(), f"{reply} has {reply.ByteSize()} bytes: {expected}"
        assert reply.job_id == found[0].output["root"]["job_id"], reply


def shape(reply: Any) -> Any:
    output = json_format.MessageToDict(reply.output)
    return reply.success, output["root"]["protocol"], sorted(output["root"]), output["annotations"]


def tasks(steps: int) -> dict[str, dict[str, Any]]:
    """By case: the encoded request in hex, and the framed bytes of a whole answer."""
    given = {
        "start": (task_messages.START_INPUT, 1, len(task_messages.TEXT)),
        "stream": (task_messages.stream_input(), task_messages.STREAM_OUTPUTS, task_messages.STREAM_TEXT),
        "steps": (task_messages.steps_input(steps), steps, task_messages.STEP_TEXT),
        "parked": (task_messages.parked_input(), 0, 0),
    }
    first, _, last = (5 + module_reply(output).ByteSize() for output in task_messages.START_OUTPUTS)
    found = {}
    for name, (document, count, size) in given.items():
        each = 5 + module_reply(task_messages.output("x" * size, 0)).ByteSize()
        body = module_request(document).SerializeToString().hex()
        found[name] = {"body": body, "answer_bytes": first + count * each + last}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int, nargs="?")
    parser.add_argument("--certificate", type=Path)
    parser.add_argument("--module-body", action="store_true")
    parser.add_argument("--echo-module", action="store_true")
    parser.add_argument("--tasks", type=int, metavar="STEPS", help="steps of one task of the budget cases")
    args = parser.parse_args()
    if args.tasks and not args.port:
        print(json.dumps(tasks(args.tasks)))
        return
    if args.module_body:
        print(module_request(payloads.MODULE_INPUT).SerializeToString().hex())
        return
    target = f"localhost:{args.port}"
    if args.certificate:
        credentials = grpc.ssl_channel_credentials(args.certificate.read_bytes())
        channel = grpc.secure_channel(target, credentials)
    else:
        channel = grpc.insecure_channel(target)
    with channel:
        if args.tasks:
            check_tasks(channel)
            print(json.dumps(tasks(args.tasks)))
        elif args.echo_module:
            check_echo_module(channel)
            print(module_request(payloads.ECHO_INPUT).SerializeToString().hex())
        else:
            check(channel)


if __name__ == "__main__":
    main()
