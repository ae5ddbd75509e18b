"""`dk-trio serve --workers` as grpcio sees it: nothing of several processes, but for what one of them takes along."""

import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import trio

from .processes import PATIENCE, serving

pytest.importorskip("grpc", reason="grpcio is the peer")

from tests.interop.grpcio_module import RETRYING, SERVICE, Peer, aside, connected, start

CREW = str(Path(__file__).with_name("crew_module.py"))


def who(peer: Peer) -> int:
    """The process that answers."""
    told = peer.start("setups:s", protocol="who")
    assert told.code == "OK", told
    [me] = told.roots("me")
    return int(me["pid"])


@contextmanager
def steady(peer: Peer) -> Iterator[Counter[str]]:
    """One call after the other for the length of the block; their codes."""
    codes: Counter[str] = Counter()
    over = threading.Event()

    def go_on() -> None:
        while not over.wait(0.02):  # leaves the cores to those who start
            codes[peer.call("StartModule", start("setups:s", protocol="who")).code] += 1

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield codes
    finally:
        over.set()
        thread.join()


async def test_workers_that_die_or_are_replaced_are_no_matter_to_clients_that_try_again() -> None:
    with ExitStack() as stack, trio.fail_after(2 * PATIENCE):
        async with serving(CREW, "--workers", "2", "--grace", "5") as server:
            plain = [stack.enter_context(connected(server.address)) for _ in range(2)]
            retrying = [stack.enter_context(connected(server.address, *RETRYING)) for _ in range(2)]
            first, second, *others = [await aside(who, peer) for peer in (*plain, *retrying)]
            assert {first, second} == {*others}
            await aside(sees_one_server, plain)

            again = retrying[others.index(first)]
            assert await aside(killed_under, plain[0]) == "UNAVAILABLE"
            assert await aside(who, again) == second  # at once, on the connection that it has made anew
            await server.wait_for(" serves")

            with steady(plain[0]) as one, steady(plain[1]) as other:
                server.process.send_signal(signal.SIGHUP)
                await server.wait_for("all workers were replaced")
            assert set(one) | set(other) == {"OK"}
            assert not {first, second} & {await aside(who, peer) for peer in (*plain, *retrying)}
            server.process.send_signal(signal.SIGTERM)
            assert await server.wait() == 0


def sees_one_server(peers: list[Peer]) -> None:
    """Whichever worker it asks."""
    for peer in peers:
        assert [peer.health(name) for name in ("", "liveness", "readiness", SERVICE)] == ["SERVING"] * 4
        assert SERVICE in peer.services()
    jobs = [{job["job_id"] for job in peer.call("GetModuleJobs").messages[0]["jobs"]} for peer in peers]
    assert jobs[0] == jobs[1]


def killed_under(peer: Peer) -> str:
    """The code of a call whose worker is killed once it has answered something."""
    pid = who(peer)
    request = start("setups:s", protocol="who", until="/nowhere/at/all")
    return peer.call("StartModule", request, then=lambda _: os.kill(pid, signal.SIGKILL)).code
