"""`dk-trio call --health`: readiness with its reason, of module servers, providers and any other server."""

import pytest
import trio

from dk_trio import rpc
from dk_trio.cli._exits import Exit

from .processes import beside, here, outputs_of, provider_here


async def test_a_provider_that_is_ready() -> None:
    async with provider_here() as address:
        done = await beside("call", address, "--health")
    assert outputs_of(done.stdout) == [{"name": "readiness", "status": "SERVING"}]
    assert done.returncode == Exit.OK


@pytest.mark.parametrize("name", ["readiness", ""])
async def test_a_server_that_is_not_ready_says_why(name: str) -> None:
    why = "the disk is full: 100 % of it"
    health = rpc.Health()
    health.set(name, False, why=why)
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
            await nursery.start(rpc.Server([health]).serve, listeners)
            port = listeners[0].socket.getsockname()[1]
            done = await beside("call", f"127.0.0.1:{port}", "--health")
            nursery.cancel_scope.cancel()
    assert outputs_of(done.stdout) == [{"name": name, "status": "NOT_SERVING", "why": why}]
    assert done.returncode == 24


def test_nobody_answers() -> None:
    done = here("call", "127.0.0.1:1", "--health")
    assert done.returncode == 24
    assert b"cannot connect to '127.0.0.1:1'" in done.stderr


@pytest.mark.parametrize(
    ("options", "told"), [(["--health", "--input", "{}"], b"takes no --input"), ([], b"Missing option '--input'")]
)
def test_either_health_or_an_input(options: list[str], told: bytes) -> None:
    done = here("call", "127.0.0.1:1", *options)
    assert done.returncode == Exit.USAGE
    assert told in done.stderr
