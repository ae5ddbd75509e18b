"""What one peer does wrong is said to it, and concerns nobody else."""

import pytest
import trio
from tests.module.sample import module_with
from tests.regressions.kit import begin, call, wait

from dk_trio.testing import serve_in_memory
from dk_trio.wire.frames import DATA, GOAWAY, SETTINGS, frame

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0, b"")


@pytest.mark.parametrize(
    "wrong",
    [frame(DATA, 0, 0, b"x"), frame(DATA, 0, 7, b"x"), frame(SETTINGS, 0, 0, b"odd"), b"\xff" * 64],
    ids=["stream 0", "idle stream", "torn settings", "noise"],
)
async def test_a_peer_that_breaks_the_rules_ends_its_own_connection(autojump_clock: object, wrong: bytes) -> None:
    async with serve_in_memory(module_with(wait)) as memory, trio.open_nursery() as nursery:
        seen = await begin(nursery, memory.client)
        bad = await memory.connect()
        await bad.send_all(PREFACE + wrong)
        said = b""
        while octets := await bad.receive_some():
            said += octets
        assert any(said[start + 3] == GOAWAY for start in _frames(said))
        await trio.sleep(10)
        assert not seen.ended.is_set()
        await memory.client.stop(seen.job_id)
        await seen.ended.wait()
        assert (await call(memory.client, timeout=1)).counts == [0]


def _frames(octets: bytes) -> list[int]:
    """Where each frame begins."""
    starts, start = [], 0
    while start < len(octets):
        starts.append(start)
        start += 9 + int.from_bytes(octets[start : start + 3], "big")
    return starts
