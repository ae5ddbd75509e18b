"""Floods: frames that each cost a victim more than their sender, as endless generators, and what stops them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from .raw import (
    ACK,
    CANCEL,
    DATA,
    END,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    INITIAL_WINDOW_SIZE,
    MAX_FRAME_SIZE,
    PADDED,
    REQUEST,
    SETTINGS,
    block,
    continuation,
    data,
    frame,
    goaway,
    headers,
    literal,
    message,
    ping,
    priority,
    request,
    rst,
    settings,
    window,
)

HELD = request(path="/test.Echo/Hold")
CALM = (ENHANCE_YOUR_CALM,)


@dataclass(frozen=True)
class Flood:
    """``frames`` begin with ``opening``; the connection must have ended with one of ``codes`` after 1,000 of them."""

    name: str
    frames: Callable[[], Iterator[bytes]]
    opening: bytes = b""
    codes: tuple[int, ...] = CALM
    options: dict[str, object] = field(default_factory=dict)


def per_stream(*build: Callable[[int], bytes]) -> Callable[[], Iterator[bytes]]:
    """The same frames on one new stream after the other."""
    return lambda: (make(stream) for stream in itertools.count(1, 2) for make in build)


def repeated(*frames: bytes) -> Callable[[], Iterator[bytes]]:
    return lambda: itertools.cycle(frames)


def opened(stream: int) -> bytes:
    return headers(stream, HELD)


def ended(stream: int) -> bytes:
    return headers(stream, HELD, END)


BOMB = block(REQUEST) + b"\xbe" * 16_000  # 64 MB of fields, with an entry of 4,000 octets in the table
LOADED = headers(1, block(HELD) + literal("x", "y" * 4000, 0x40))
GREEDY = headers(1, REQUEST) + data(1, message(bytes(16_000)), END_STREAM)

FLOODS = [
    # Streams that cost a handler and are given up at once (CVE-2023-44487); streams we must reset (CVE-2025-8671).
    Flood("rapid-reset", per_stream(opened, lambda stream: rst(stream, CANCEL))),
    Flood("rapid-reset-of-whole-requests", per_stream(ended, lambda stream: rst(stream, CANCEL))),
    Flood("made-you-reset-window-0", per_stream(opened, lambda stream: window(stream, 0))),
    Flood("made-you-reset-window-overflow", per_stream(opened, lambda stream: window(stream, (1 << 31) - 1))),
    Flood("made-you-reset-data-after-end", per_stream(ended, lambda stream: data(stream, b"x"))),
    Flood("made-you-reset-headers-after-end", per_stream(ended, lambda stream: headers(stream, [("x", "y")], END))),
    Flood("made-you-reset-malformed", per_stream(lambda stream: headers(stream, request(("X", "y")), END))),
    Flood(
        "made-you-reset-content-length",
        per_stream(
            lambda stream: headers(stream, request(("content-length", "1"))), lambda stream: data(stream, b"xx")
        ),
    ),
    Flood("made-you-reset-pseudo-trailers", per_stream(opened, lambda stream: headers(stream, [(":x", "y")], END))),
    Flood("refused-streams", per_stream(opened), options={"max_streams": 10}),
    Flood("oversized-header-lists", per_stream(lambda stream: headers(stream, request(*[("a", "")] * 500), END))),
    Flood("header-bomb", per_stream(lambda stream: headers(stream + 2, BOMB, END)), LOADED),
    # Header blocks that never end (CVE-2024-27316), or that are large.
    Flood("continuation-empty", repeated(continuation(1, b"", 0)), headers(1, REQUEST, 0)),
    Flood("continuation-one-octet", repeated(continuation(1, b"\x82", 0)), headers(1, REQUEST, 0)),
    Flood("continuation-16-kib", repeated(continuation(1, block([("x", "y" * 16_000)]), 0)), headers(1, REQUEST, 0)),
    # Frames to answer or to apply.
    Flood("ping", repeated(ping())),
    Flood("ping-acks", repeated(ping(flags=ACK))),
    Flood("settings", repeated(settings((INITIAL_WINDOW_SIZE, 1000), (INITIAL_WINDOW_SIZE, 2000)))),
    Flood("settings-empty", repeated(settings())),
    Flood("settings-2730-values", repeated(settings(*[(MAX_FRAME_SIZE, 16_384)] * 2730))),
    Flood("settings-acks", repeated(frame(SETTINGS, ACK))),
    Flood("goaway", repeated(goaway(0))),
    Flood(
        "window-swings",
        repeated(settings((INITIAL_WINDOW_SIZE, 0)), settings((INITIAL_WINDOW_SIZE, 65_535))),
        b"".join(opened(stream) for stream in range(1, 400, 2)),
    ),
    # Frames without effect.
    Flood("empty-data", repeated(data(1)), opened(1)),
    Flood("padding-only-data", repeated(data(1, pad=200)), opened(1), (ENHANCE_YOUR_CALM, FLOW_CONTROL_ERROR)),
    Flood("pad-length-0-data", repeated(frame(DATA, PADDED, 1, b"\0")), opened(1)),
    Flood("empty-data-on-closed", repeated(data(1)), opened(1) + rst(1)),
    Flood("data-on-closed", repeated(data(1, b"x")), opened(1) + rst(1), (ENHANCE_YOUR_CALM, FLOW_CONTROL_ERROR)),
    Flood("headers-on-our-reset", repeated(headers(1, [("x", "y")], END)), opened(1) + window(1, 0)),
    Flood("reset-again", repeated(rst(1)), opened(1) + rst(1)),
    Flood("priority", repeated(priority(1, 3), priority(3, 5))),
    Flood("unknown", repeated(frame(0xEE, 0, 0, b"grease"))),
    Flood("unknown-on-streams", repeated(frame(0xEE, 0, 1, b"")), opened(1)),
    # Windows by the octet (CVE-2019-9511): each update is answered by a frame of one octet, or by nothing.
    Flood("window-updates-connection", repeated(window(0, 1))),
    Flood("window-updates-stream", repeated(window(1, 1)), opened(1)),
    Flood("window-updates-closed-stream", repeated(window(1, 1)), opened(1) + rst(1)),
    Flood("one-octet-windows-stream", repeated(window(1, 1)), settings((INITIAL_WINDOW_SIZE, 1)) + GREEDY),
    Flood("one-octet-windows-both", repeated(window(1, 1), window(0, 1)), settings((INITIAL_WINDOW_SIZE, 1)) + GREEDY),
    Flood(
        "zero-octet-windows",
        repeated(window(1, 1), settings((INITIAL_WINDOW_SIZE, 0)), settings((INITIAL_WINDOW_SIZE, 1))),
        settings((INITIAL_WINDOW_SIZE, 0)) + GREEDY,
    ),
    # Mixtures, so that no single budget is enough.
    Flood("mixture", repeated(ping(), settings(), window(0, 1), priority(1), frame(0xEE), data(1)), opened(1)),
]

CLIENT_FLOODS = [
    Flood("ping", repeated(ping())),
    Flood("ping-acks", repeated(ping(flags=ACK))),
    Flood("settings", repeated(settings((INITIAL_WINDOW_SIZE, 1000)))),
    Flood("settings-acks", repeated(frame(SETTINGS, ACK))),
    Flood("interim-responses", repeated(headers(1, [(":status", "103"), ("link", "x")]))),
    Flood("empty-data", repeated(data(1)), headers(1, [(":status", "200"), ("content-type", "application/grpc")])),
    Flood("priority", repeated(priority(1, 3))),
    Flood("unknown", repeated(frame(0xEE))),
    Flood("goaway", repeated(goaway((1 << 31) - 1))),
    Flood("window-updates", repeated(window(0, 1))),
    Flood("window-updates-stream", repeated(window(1, 1))),
    Flood("continuation", repeated(continuation(1, b"", 0)), headers(1, b"", 0)),
    Flood("reset-again", repeated(rst(1)), rst(1)),
    Flood("trailers-on-cancelled", repeated(headers(1, [("grpc-status", "0")], END)), options={"cancelled": True}),
    Flood("data-on-cancelled", repeated(data(1)), options={"cancelled": True}),
]
