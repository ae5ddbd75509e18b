"""Who may do what: whoever has a token may run jobs, and the operators alone may stop them."""

from typing import Any

from dk_trio import ModuleServer, Settings, rpc
from dk_trio.security import Authorization, Identity

OPERATORS = {"on-call", "operators.mesh.example"}  # names of tokens, and of client certificates
STOP = "/agentic_mesh_protocol.module.v1.ModuleService/StopModule"


def only_operators_stop_jobs(call: rpc.CallInfo, caller: Identity) -> None:
    if call.path == STOP and caller.kind != "process" and caller.name not in OPERATORS:
        raise PermissionError(f"{caller.name or caller.host} may not stop jobs")


def guarded(module: Any, settings: Settings) -> ModuleServer:
    return ModuleServer(module, settings=settings, interceptors=[Authorization(only_operators_stop_jobs)])
