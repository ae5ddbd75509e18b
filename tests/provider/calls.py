"""Calls as a client of any make does them, with what came back besides the reply."""

from typing import Any

from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError

from dk_trio import rpc
from dk_trio.extensions import IDEMPOTENCY_KEY
from dk_trio.pb.google.rpc import BadRequest, ErrorInfo

PACKAGE = "agentic_mesh_protocol"


async def called(channel: rpc.Channel, path: str, request: Any, reply_type: Any, **metadata: Any) -> tuple[Any, Any]:
    """Reply and initial metadata of a unary call; `path` is `storage.v1.StorageService/StoreRecord`."""
    async with channel.request(
        f"/{PACKAGE}.{path}", Cardinality.UNARY_UNARY, type(request), reply_type, metadata=metadata
    ) as stream:
        await stream.send_message(request, end=True)
        reply = await stream.recv_message()
    return reply, stream.initial_metadata


def keyed(key: str) -> dict[str, str]:
    """Metadata of a request that is to be applied once."""
    return {IDEMPOTENCY_KEY: key}


def told(error: GRPCError) -> tuple[Status, str, dict[str, str]]:
    """Status, reason and violations of an error."""
    details = list(error.details or ())
    reason = next(detail.reason for detail in details if isinstance(detail, ErrorInfo))
    fields = {
        row.field: row.description
        for detail in details
        if isinstance(detail, BadRequest)
        for row in detail.field_violations
    }
    return error.status, reason, fields
