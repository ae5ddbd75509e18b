"""Our messages: those of bench.proto as betterproto2's plugin would write them, and the real ones of a module."""

from dataclasses import dataclass

import betterproto2

from dk_trio.pb import Message
from dk_trio.pb.agentic_mesh_protocol.module.v1 import StartModuleRequest as ModuleRequest
from dk_trio.pb.agentic_mesh_protocol.module.v1 import StartModuleResponse as ModuleReply
from dk_trio.pb.google.protobuf import Struct

__all__ = ["ModuleReply", "ModuleRequest", "Reply", "Request", "Struct"]


@dataclass(eq=False, repr=False)
class Request(Message):
    payload: bytes = betterproto2.field(1, betterproto2.TYPE_BYTES)
    count: int = betterproto2.field(2, betterproto2.TYPE_UINT32)
    size: int = betterproto2.field(3, betterproto2.TYPE_UINT32)


@dataclass(eq=False, repr=False)
class Reply(Message):
    payload: bytes = betterproto2.field(1, betterproto2.TYPE_BYTES)
