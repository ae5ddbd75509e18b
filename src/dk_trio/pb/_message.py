"""The base class of every generated message."""

from __future__ import annotations

import betterproto2


class Message(betterproto2.Message):
    """A protobuf message."""


Message.__annotations__ = {}
