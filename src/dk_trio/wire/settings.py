"""The peer's SETTINGS: their values, and which values RFC 9113 section 6.5.2 forbids."""

from __future__ import annotations

from collections.abc import Iterable

from .errors import PeerError
from .frames import (
    DEFAULT_FRAME_SIZE,
    DEFAULT_WINDOW,
    ENABLE_PUSH,
    HEADER_TABLE_SIZE,
    INITIAL_WINDOW_SIZE,
    LARGEST_FRAME_SIZE,
    LARGEST_WINDOW,
    MAX_CONCURRENT_STREAMS,
    MAX_FRAME_SIZE,
    MAX_HEADER_LIST_SIZE,
    ErrorCode,
)
from .hpack import DEFAULT_TABLE_BYTES


class PeerSettings:
    """What the peer has told us, starting from the protocol's defaults. Sizes are bytes; None means no limit."""

    __slots__ = (
        "header_table_size",
        "initial_window_size",
        "max_concurrent_streams",
        "max_frame_size",
        "max_header_list_size",
    )

    def __init__(self) -> None:
        self.header_table_size = DEFAULT_TABLE_BYTES
        self.max_concurrent_streams: int | None = None
        self.initial_window_size = DEFAULT_WINDOW
        self.max_frame_size = DEFAULT_FRAME_SIZE
        self.max_header_list_size: int | None = None

    def __repr__(self) -> str:
        return f"<PeerSettings {', '.join(f'{name}={getattr(self, name)}' for name in self.__slots__)}>"

    def apply(self, pairs: Iterable[tuple[int, int]], *, from_server: bool) -> None:
        """Take pairs in their order; unknown identifiers are ignored. Raises `PeerError` for a forbidden value."""
        for key, value in pairs:
            if key == HEADER_TABLE_SIZE:
                self.header_table_size = value
            elif key == ENABLE_PUSH:
                if value > 1 or (value and from_server):
                    raise PeerError(ErrorCode.PROTOCOL_ERROR, f"SETTINGS_ENABLE_PUSH is {value}")
            elif key == MAX_CONCURRENT_STREAMS:
                self.max_concurrent_streams = value
            elif key == INITIAL_WINDOW_SIZE:
                if value > LARGEST_WINDOW:
                    raise PeerError(ErrorCode.FLOW_CONTROL_ERROR, f"SETTINGS_INITIAL_WINDOW_SIZE is {value}")
                self.initial_window_size = value
            elif key == MAX_FRAME_SIZE:
                if not DEFAULT_FRAME_SIZE <= value <= LARGEST_FRAME_SIZE:
                    raise PeerError(ErrorCode.PROTOCOL_ERROR, f"SETTINGS_MAX_FRAME_SIZE is {value}")
                self.max_frame_size = value
            elif key == MAX_HEADER_LIST_SIZE:
                self.max_header_list_size = value
