"""Messages, service bases and stubs of every protocol the package speaks.

Everything below ``agentic_mesh_protocol``, ``dk_trio``, ``google`` and ``grpc`` is generated from ``proto/`` by ``make
proto`` and committed; the rest of this package is what that code stands on. A sub-package is loaded when it is imported
and not before: importing one service does not load the others.
"""

from ._errors import DecodeError as DecodeError
from ._message import Message as Message

__all__ = ["DecodeError", "Message"]
