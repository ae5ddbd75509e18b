"""What a StartModule of bench/echo_module.py carries, for whoever answers or checks one without dk-trio.

Inputs are what drivers ask for; the outputs are dicts with the keys and lengths of a served module's, so that a peer
builds and sends as many bytes. The preflight compares both with a real answer.
"""

import uuid
from datetime import UTC, datetime
from typing import Any

from bench.payloads import MISSION_ID, MODULE_INPUT, SETUP_ID

HEALTH_CHECK = "/grpc.health.v1.Health/Check"
SERVING = b"\x08\x01"  # its answer

STREAM_OUTPUTS = 10_000
STREAM_TEXT = 100
STEP_S = 0.2
STEP_TEXT = 300
FOREVER_S = 3600.0  # longer than any process of the benchmark lives

START_INPUT = MODULE_INPUT  # one output, with the input's text
TEXT: str = MODULE_INPUT["root"]["text"]


def stream_input() -> dict[str, Any]:
    """`STREAM_OUTPUTS` outputs as fast as the caller takes them."""
    return {"root": {"protocol": "message", "n": float(STREAM_OUTPUTS), "size": float(STREAM_TEXT)}}


def steps_input(steps: int) -> dict[str, Any]:
    """The work of one task: an output and `STEP_S` of waiting, `steps` times."""
    return {"root": {"protocol": "message", "n": float(steps), "size": float(STEP_TEXT), "gap_s": STEP_S}}


def parked_input() -> dict[str, Any]:
    return {"root": {"protocol": "message", "sleep_s": FOREVER_S}}


def new_job_id() -> str:
    return str(uuid.uuid4())


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


def start_info(job_id: str) -> dict[str, Any]:
    return {
        "root": {
            "protocol": "module_start_info",
            "created_at": now(),
            "job_id": job_id,
            "mission_id": MISSION_ID,
            "setup_id": SETUP_ID,
            "setup_version_id": "setup_versions:default",
            "module_id": "unknown",
            "module_name": "echo",
            "started_at": now(),
        },
        "annotations": {"role": "system"},
    }


def output(text: str, index: int) -> dict[str, Any]:
    return {"root": {"protocol": "message", "text": text, "i": index}, "annotations": {}}


def end_of_stream() -> dict[str, Any]:
    return {"root": {"protocol": "end_of_stream", "created_at": now()}, "annotations": {"role": "system"}}


START_OUTPUTS = (start_info(new_job_id()), output(TEXT, 0), end_of_stream())
