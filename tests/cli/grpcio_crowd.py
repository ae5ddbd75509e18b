"""Many callers that are not ours, over one connection of grpcio.

    python grpcio_crowd.py HOST:PORT '[[COUNT, ROOT], ...]' [PAUSE_S]

Starts COUNT jobs with each ROOT and prints "begun N" when each has sent its first message. Reads on after PAUSE_S
seconds, and prints one JSON object for each job, in order: what it has sent, and its status.
"""

import contextlib
import json
import sys
import time
from typing import Any

import grpc
from google.protobuf import json_format
from grpcio_caller import PACKAGE, messages


def main(address: str, crowd: str, pause_s: str = "0") -> None:
    types = messages()
    with grpc.insecure_channel(address) as channel:
        start = channel.unary_stream(
            f"/{PACKAGE}.ModuleService/StartModule",
            request_serializer=types["StartModuleRequest"].SerializeToString,
            response_deserializer=types["StartModuleResponse"].FromString,
        )
        calls = []
        for count, root in json.loads(crowd):
            request = types["StartModuleRequest"](setup_id="setups:any", mission_id="missions:any")
            request.input.update({"root": root})
            calls += [start(request, timeout=120) for _ in range(count)]
        first = [next(call) for call in calls]
        print(f"begun {len(first)}", flush=True)
        time.sleep(float(pause_s))
        for response, call in zip(first, calls, strict=True):
            print(json.dumps(read(response, call)), flush=True)


def read(response: Any, call: Any) -> dict[str, Any]:
    responses = [json_format.MessageToDict(response)]
    with contextlib.suppress(grpc.RpcError):  # read below
        responses += map(json_format.MessageToDict, call)
    roots = [response["output"].get("root", {}) for response in responses]
    last = responses[-1]
    return {
        "protocols": [root["protocol"] for root in roots if root],
        "numbers": [root["i"] for root in roots if "i" in root],
        "failure": None if last.get("success") else last["output"],  # false is the default, which is not sent
        "status": call.code().name,
    }


if __name__ == "__main__":
    main(*sys.argv[1:])
