"""gRPC over HTTP/2 without I/O, both roles: bytes in, events out.

Feed what the transport delivers to `ServerConnection.receive` or `ClientConnection.receive`, write what `take` returns,
and override the `on_*` hooks of `Stream`. No trio, no socket, no clock in here. `connection.py` explains how it works.
"""

from __future__ import annotations

from .client import ClientConnection as ClientConnection
from .client import ClientStream as ClientStream
from .compression import DecompressionError as DecompressionError
from .compression import MessageTooLarge as MessageTooLarge
from .connection import Connection as Connection
from .endpoint import ConnectionEvents as ConnectionEvents
from .errors import LocalError as LocalError
from .errors import PeerError as PeerError
from .errors import PrefaceError as PrefaceError
from .errors import WireError as WireError
from .frames import ErrorCode as ErrorCode
from .heads import Refusal as Refusal
from .heads import RequestHead as RequestHead
from .heads import ResponseHead as ResponseHead
from .limits import Limits as Limits
from .limits import Rate as Rate
from .server import ServerConnection as ServerConnection
from .stream import HIGH_WATER as HIGH_WATER
from .stream import MessageFault as MessageFault
from .stream import Stream as Stream
