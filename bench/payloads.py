"""What is sent: request bodies for drivers that speak HTTP/2 but no protobuf, and the dicts of the module-like call."""

import struct
from typing import Any

UNARY = "/dk_trio.bench.Bench/Unary"
STREAM = "/dk_trio.bench.Bench/Stream"
HOLD = "/dk_trio.bench.Bench/Hold"
START_MODULE = "/agentic_mesh_protocol.module.v1.ModuleService/StartModule"

UNARY_PAYLOAD = b"x" * 16
MODULE_OUTPUTS = 10
MODULE_JOB_ID = "6f1f8c5e-3a62-4b0e-9d4c-0d2f5a0b7c11"
SETUP_ID = "setups:bench"
MISSION_ID = "missions:bench"

MODULE_INPUT: dict[str, Any] = {
    "root": {
        "protocol": "message",
        "text": "Summarise the attached report in three sentences.",
        "options": {"language": "en", "temperature": 0.2, "max_tokens": 512.0, "stream": True},
        "files": ["files:a1", "files:b2", "files:c3"],
    }
}


# For bench/echo_module.py: as many outputs of about as many bytes.
ECHO_INPUT: dict[str, Any] = {"root": {"protocol": "message", "n": float(MODULE_OUTPUTS), "size": 500.0}}


def module_output(index: int) -> dict[str, Any]:
    """One output of the module-like call: a Struct of 30 keys, nested as modules nest them."""
    return {
        "root": {
            "protocol": "message",
            "text": "The report covers three quarters; revenue grew in each of them.",
            "index": float(index),
            "final": False,
            "usage": {"input_tokens": 128.0, "output_tokens": 17.0, "cost": 0.00042, "currency": "EUR", "cached": 0.0},
            "model": {"name": "small-1", "provider": "local", "temperature": 0.2, "seed": 7.0, "top_p": 1.0},
            "citations": [
                {"file": "files:a1", "page": 3.0, "score": 0.82, "quote": "Revenue grew by 4 %."},
                {"file": "files:b2", "page": 11.0, "score": 0.61, "quote": "The second quarter was flat."},
            ],
            "annotations": {"language": "en", "sentiment": "neutral", "tags": ["report", "finance"], "reviewed": None},
        }
    }


def grpc_frame(message: bytes) -> bytes:
    """A length-prefixed message, uncompressed (gRPC over HTTP/2, `Length-Prefixed-Message`)."""
    return struct.pack(">BI", 0, len(message)) + message


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def request(*, payload: bytes = b"", count: int = 0, size: int = 0) -> bytes:
    """`dk_trio.bench.Request` on the wire: five lines here keep protobuf out of the harness process."""
    out = b"\x0a" + varint(len(payload)) + payload if payload else b""
    if count:
        out += b"\x10" + varint(count)
    if size:
        out += b"\x18" + varint(size)
    return out


def reply_size(payload: int) -> int:
    """Bytes of one framed `Reply` with so many payload bytes: what a driver must receive for each message."""
    return 5 + (1 + len(varint(payload)) + payload if payload else 0)
