"""Every target, fed by hypothesis: any bytes, programs made of plausible steps, and what real peers sent, mutated."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tests.sizes import size

from .targets import TARGETS, seeds
from .wire import Run, program

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of fields that are deprecated, set all the same

COMMON = settings(deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)
EXAMPLES = size(60, 20_000)

SMALL = st.sampled_from([0, 1, 2, 3, 4, 5, 7, 9, 13, 64, 128, 239, 255])
STREAMS = st.sampled_from([1, 1, 1, 3, 3, 5, 7, 0, 2])
STEPS = st.integers(0, 20)
OPERANDS = st.builds(
    lambda stream, flags, rest: bytes((stream, flags)) + rest, STREAMS, SMALL, st.lists(SMALL, max_size=4).map(bytes)
)
REQUESTS = st.builds(lambda stream, kind, flags: (2, bytes((stream, kind, flags))), STREAMS, st.integers(0, 5), SMALL)
MESSAGES = st.builds(
    lambda stream, body, flag, end: (6, bytes((stream, len(body))) + body + bytes((flag, end))),
    STREAMS, st.binary(max_size=20), st.integers(0, 1), st.integers(0, 1),
)  # fmt: skip
OPENED = st.builds(lambda path: (17, bytes((path, 1, 2, 3))), st.integers(0, 3))
APPLICATION = st.tuples(st.integers(15, 20), SMALL.map(lambda octet: bytes((octet,))))
PROGRAMS = st.builds(
    lambda steps, joined: program(*steps, joined=joined),
    st.lists(st.one_of(REQUESTS, MESSAGES, OPENED, APPLICATION, st.tuples(STEPS, OPERANDS)), max_size=40),
    st.booleans(),
)


@st.composite
def mutated(draw, name):
    """One of the inputs that a fuzzer begins with, and some damage to it."""
    octets = bytearray(draw(st.sampled_from(SEEDS[name])))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(octets)))
        change = draw(st.sampled_from(["set", "insert", "remove", "repeat", "cut"]))
        if change == "set":
            octets[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
        elif change == "insert":
            octets[at:at] = draw(st.binary(max_size=4))
        elif change == "remove":
            del octets[at : at + draw(st.integers(1, 12))]
        elif change == "repeat":
            octets[at:at] = octets[at : at + draw(st.integers(1, 40))]
        elif len(octets) > 100:
            del octets[at + 50 :]
    return bytes(octets)


SEEDS = {name: seeds(name) for name in TARGETS}


@pytest.mark.parametrize("name", TARGETS)
def test_seeds(name: str) -> None:
    for octets in SEEDS[name]:
        TARGETS[name](octets)


@pytest.mark.parametrize("name", TARGETS)
def test_any_bytes(name: str) -> None:
    @settings(COMMON, max_examples=EXAMPLES)
    @given(st.binary(max_size=300))
    @example(b"")
    def check(octets: bytes) -> None:
        TARGETS[name](octets)

    check()


@pytest.mark.parametrize("name", TARGETS)
def test_mutated_seeds(name: str) -> None:
    @settings(COMMON, max_examples=EXAMPLES)
    @given(mutated(name))
    def check(octets: bytes) -> None:
        TARGETS[name](octets)

    check()


@pytest.mark.parametrize("name", ["server", "client"])
def test_programs(name: str) -> None:
    @settings(COMMON, max_examples=size(150, 50_000))
    @given(PROGRAMS)
    def check(octets: bytes) -> None:
        TARGETS[name](octets)

    check()


def test_programs_get_far() -> None:
    """What a real client has sent opens streams, until its messages are too large here; a call made by steps ends."""
    run = Run(SEEDS["server"][0], client=False).run()
    assert run.connection._highest_peer_stream >= 5
    steps = [(2, b"\1\0\0"), (6, b"\1\5hello\0\1"), (16, b""), (18, b"\0\5"), (19, b"\0\0")]
    run = Run(program(*steps), client=False).run()
    assert run.error is None
    assert not run.connection.streams
