"""The table itself is checked: h2 judges each case that is about HTTP/2, and every difference is argued here.

One kind of difference is general and not listed: h2 ends the connection for most errors that concern one stream, which
RFC 9113 section 5.4 allows and a server of many calls should not do.
"""

import pytest

from . import test_client, test_server
from .case import ConnectionFails, StreamFails
from .client_peer import HANDSHAKE as FROM_SERVER
from .oracle import Oracle
from .raw import REQUEST
from .server_peer import HANDSHAKE as FROM_CLIENT

GOAWAY_ENDS_ALL = "h2 forbids every frame behind a GOAWAY; section 6.8 lets what is under way finish"
LIMITS = "our own limit or option; h2 was given none"
NO_PREFACE_CHECK = "h2 does not hold the peer to SETTINGS as its first frame (section 3.4: MUST)"

DISAGREEMENTS = {
    "3.4/no-settings": NO_PREFACE_CHECK,
    "3.4/ping-before-settings": NO_PREFACE_CHECK,
    "3.4/ack-before-settings": NO_PREFACE_CHECK,
    "4.1/reserved-bit-window-update": "section 6.9: the reserved bit MUST be ignored; hyperframe counts it",
    "4.2/length-alone": "h2 waits for the whole frame before it says that it is too long",
    "5.1.2/over-the-limit": LIMITS,
    "5.2/stream-window-exceeded": LIMITS,
    "5.2/padding-counts": LIMITS,
    "5.2/connection-is-credited": "DATA on a reset stream gets STREAM_CLOSED from both; the case looks at credit",
    "5.4.2/stream-errors-are-alone": "the general difference: h2 does not leave the neighbours",
    "6.5.2/list-too-large-in-trailers": LIMITS,
    "6.8/calls-go-on": GOAWAY_ENDS_ALL,
    "6.8/new-calls": GOAWAY_ENDS_ALL,
    "6.8/unknown-code": GOAWAY_ENDS_ALL,
    "6.8/shrinking": GOAWAY_ENDS_ALL,
    "6.8/growing": "section 6.8: the last stream MUST NOT increase; h2 does not look",
    "rfc7541-4.2/thrice": "section 4.2 needs two updates at most; C core refuses a third, hpack does not count",
    "8.1.1/length-too-large-with-trailers": "h2 holds content-length only against END_STREAM on DATA",
    "8.1.1/length-without-body": "... so END_STREAM on HEADERS escapes it too",
    "8.3.1/relative-path": "section 8.3.1: an absolute path; h2 checks that it is not empty",
    "8.3.1/without-authority": "gRPC clients may omit :authority (RFC 9113 only says SHOULD); h2 demands it or host",
    "client/3.4/no-settings": NO_PREFACE_CHECK,
    "client/3.4/ack-first": NO_PREFACE_CHECK,
    "client/3.4/http-1": "the text reads as a frame of 4.7 MB, for which h2 waits",
    "client/5.1/idle-reset": "section 6.4: RST_STREAM on an idle stream MUST be a connection error; h2 lets it pass",
    "client/5.2/window-exceeded": LIMITS,
    "client/6.5.2/list-too-large": LIMITS,
    "client/6.8/goaway-goes-on": GOAWAY_ENDS_ALL,
    "client/6.8/goaway-in-two-steps": GOAWAY_ENDS_ALL,
    "client/6.8/goaway-debug": GOAWAY_ENDS_ALL,
    "client/6.8/goaway-growing": "section 6.8: the last stream MUST NOT increase; h2 does not look",
    "client/8.1.1/length-too-large": "h2 holds content-length only against END_STREAM on DATA, gRPC ends with trailers",
    "client/8.1.1/length-trailers-only": "... or with its only headers",
    "client/8.6/101": "section 8.6: HTTP/2 has no 101; h2 takes it for any interim response",
    **dict.fromkeys(
        (f"client/8.3.2/status-{how}" for how in ("word", "short", "long", "empty", "zero", "sign", "unicode")),
        "RFC 9110 section 15: a status has three digits; h2 leaves the value to its user",
    ),
}


def verdict(oracle):
    return "connection" if oracle.failed is not None else "stream" if oracle.resets else "fine"


def expected(outcome):
    kinds = set()
    for one in outcome if isinstance(outcome, tuple) else (outcome,):
        kinds |= {"connection"} if isinstance(one, ConnectionFails) else set()
        kinds |= {"connection", "stream"} if isinstance(one, StreamFails) else set()
    return kinds or {"fine"}


def replay(case, oracle, handshake):
    oracle.feed(handshake if case.preface is None else case.preface)
    for step in case.steps:
        if isinstance(step, bytes):
            oracle.feed(step)
    return verdict(oracle)


SERVER_CASES = [case for case in test_server.CASES if not case.name.startswith("grpc/")]
CLIENT_CASES = [case for case in test_client.CASES if "/grpc/" not in case.name]


@pytest.mark.parametrize("case", SERVER_CASES, ids=[case.name for case in SERVER_CASES])
def test_h2_as_server(case):
    agrees = replay(case, Oracle(), FROM_CLIENT) in expected(case.outcome)
    assert agrees == (case.name not in DISAGREEMENTS)


@pytest.mark.parametrize("case", CLIENT_CASES, ids=[case.name for case in CLIENT_CASES])
def test_h2_as_client(case):
    oracle = Oracle(client=True, requests=[REQUEST, REQUEST])
    agrees = replay(case, oracle, FROM_SERVER) in expected(case.outcome)
    assert agrees == (case.name not in DISAGREEMENTS)


def test_each_disagreement_is_about_a_case():
    assert set(DISAGREEMENTS) <= {case.name for case in SERVER_CASES + CLIENT_CASES}
