"""The table of cases against a ServerConnection, fed frame by frame as a reader on the network may get it."""

import re

import pytest

from . import (
    cases_control,
    cases_framing,
    cases_grpc,
    cases_hpack,
    cases_messages,
    cases_streams,
    cases_windows,
)
from .case import Case
from .judge import holds, play
from .raw import call, ping
from .server_peer import HANDSHAKE, ServerPeer

CASES: list[Case] = [
    *cases_framing.CASES,
    *cases_streams.CASES,
    *cases_control.CASES,
    *cases_windows.CASES,
    *cases_hpack.CASES,
    *cases_messages.CASES,
    *cases_grpc.CASES,
]
PROBE_STREAM = 9_001
NO_ID_LEFT = {"5.1.1/largest"}


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_case(case):
    peer = ServerPeer(**case.options)
    play(case, peer, HANDSHAKE)
    if case.name in NO_ID_LEFT:
        holds(case.outcome, peer, ping(b"liveness"), 0)
    else:
        holds(case.outcome, peer, ping(b"liveness") + call(PROBE_STREAM), PROBE_STREAM)


def test_the_table_is_a_table():
    names = [case.name for case in CASES]
    assert len(names) == len(set(names))
    assert len([name for name in names if not name.startswith("grpc/")]) >= 300  # h2spec has 146 for both RFCs
    for case in CASES:
        assert re.match(r"(rfc7541-)?\d+(\.\d+)*/|grpc/", case.name), "a case names its source"
        assert case.text
