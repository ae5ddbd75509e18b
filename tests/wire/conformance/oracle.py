"""h2 as the oracle: the same bytes, and what h2 makes of them."""

from __future__ import annotations

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings

from .raw import GOAWAY, PREFACE, RST_STREAM, Fields, FrameReader

WINDOW = 1 << 20


class Oracle:
    """An h2 connection that takes everything and answers nothing.

    ``failed`` is the code of the connection error, if there was one; ``resets`` the streams that h2 reset, with codes.
    """

    def __init__(self, *, client: bool = False, requests: list[Fields] | None = None) -> None:
        config = h2.config.H2Configuration(client_side=client, header_encoding="latin-1")
        self.connection = h2.connection.H2Connection(config)
        self.connection.local_settings = h2.settings.Settings(
            client=client,
            initial_values={
                h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: WINDOW,
                h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: 10_000,
                h2.settings.SettingCodes.MAX_HEADER_LIST_SIZE: 16_384,
                h2.settings.SettingCodes.ENABLE_PUSH: 0,
            },
        )
        self.connection.initiate_connection()
        self.connection.increment_flow_control_window(WINDOW)
        for fields in requests or []:
            self.connection.send_headers(self.connection.get_next_available_stream_id(), fields)
        self._reader = FrameReader(PREFACE if client else b"")
        self.failed: int | None = None
        self.reason = ""
        self.opened: dict[int, Fields] = {}
        self.data: dict[int, bytes] = {}
        self.ended: set[int] = set()
        self.trailers: dict[int, Fields] = {}
        self.reset_by_peer: dict[int, int] = {}
        self.resets: dict[int, int] = {}
        self.pongs: list[bytes] = []
        self._written()

    def feed(self, chunk: bytes) -> None:
        if self.failed is not None:
            return
        try:
            events = self.connection.receive_data(chunk)
        except h2.exceptions.ProtocolError as error:
            self.failed = int(error.error_code)
            self.reason = f"{type(error).__name__}: {error}"
        else:
            for event in events:
                self._note(event)
        self._written()

    def _note(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.RequestReceived() | h2.events.ResponseReceived():
                self.opened[event.stream_id] = [tuple(field) for field in event.headers]
            case h2.events.DataReceived():
                self.data[event.stream_id] = self.data.get(event.stream_id, b"") + event.data
                if event.flow_controlled_length:
                    self.connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case h2.events.TrailersReceived():
                self.trailers[event.stream_id] = [tuple(field) for field in event.headers]
            case h2.events.PingReceived():
                self.pongs.append(event.ping_data)
            case h2.events.StreamEnded():
                self.ended.add(event.stream_id)
            case h2.events.StreamReset(remote_reset=True):
                self.reset_by_peer[event.stream_id] = int(event.error_code)

    def _written(self) -> None:
        for one in self._reader.feed(self.connection.data_to_send()):
            if one.kind == RST_STREAM:
                self.resets.setdefault(one.stream, one.code)
            elif one.kind == GOAWAY:
                assert self.failed == one.code
