"""A real gRPC client asks a server once before anything is measured: h2load counts HTTP statuses, not grpc-status.

Program: `python -m bench.preflight PORT [--certificate PEM]`. It also encodes the request of the module-like call
(`--module-body`) and the one for a served bench/echo_module.py (`--echo-module`, after calling it), printed in hex.
"""

import argparse
from pathlib import Path
from typing import Any

import bench_pb2
import grpc
from google.protobuf import json_format

from bench import payloads

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int, nargs="?")
    parser.add_argument("--certificate", type=Path)
    parser.add_argument("--module-body", action="store_true")
    parser.add_argument("--echo-module", action="store_true")
    args = parser.parse_args()
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
        if args.echo_module:
            check_echo_module(channel)
            print(module_request(payloads.ECHO_INPUT).SerializeToString().hex())
        else:
            check(channel)


if __name__ == "__main__":
    main()
