"""The health service: what Check and Watch say, and that a Watch neither misses, nor repeats, nor holds up a drain."""

from __future__ import annotations

from urllib.parse import unquote

import pytest
import trio
import trio.testing
from grpclib.const import Status

from dk_trio import rpc
from dk_trio.pb.grpc.health.v1 import HealthCheckRequest, HealthCheckResponse
from dk_trio.pb.grpc.health.v1 import HealthCheckResponseServingStatus as Serving
from dk_trio.rpc.health import FAREWELL

from .wire_client import Call, WireClient, connected

CHECK = "/grpc.health.v1.Health/Check"
WATCH = "/grpc.health.v1.Health/Watch"


async def check(client: WireClient, service: str) -> Serving | tuple[Status, str | None]:
    call = await client.call(CHECK, HealthCheckRequest(service=service))
    outcome = await call.status()
    if outcome != (Status.OK, None):
        return outcome
    return HealthCheckResponse.FromString(call.next_message()).status


async def watch(client: WireClient, service: str) -> Call:
    return await client.call(WATCH, HealthCheckRequest(service=service))


async def told(call: Call) -> list[Serving]:
    """What a watcher was told and has not read, once nothing moves any more."""
    await trio.testing.wait_all_tasks_blocked()
    states = []
    while (data := call.next_message()) is not None:
        states.append(HealthCheckResponse.FromString(data).status)
    return states


async def test_check(autojump_clock):
    health = rpc.Health()
    health.set("a.B", serving=False)
    async with connected(rpc.Server([health])) as client:
        assert await check(client, "") is Serving.SERVING  # the server as a whole, from the beginning
        assert await check(client, "a.B") is Serving.NOT_SERVING
        health.set("a.B", serving=True)
        assert await check(client, "a.B") is Serving.SERVING
        unknown = (Status.NOT_FOUND, "the health of service 'x' is not known here")
        assert await check(client, "x") == unknown
        health.clear("a.B")
        assert (await check(client, "a.B"))[0] is Status.NOT_FOUND
        health.clear("never there")


async def why(client: WireClient, service: str) -> str | None:
    call = await client.call(CHECK, HealthCheckRequest(service=service))
    found = (await call.headers()).get("health-why")
    await call.status()
    return None if found is None else unquote(found)


async def test_check_tells_why_not(autojump_clock):
    health = rpc.Health()
    reason = "the services-provider at [::1]:50051 does not answer: 50 % of nothing, ça va"
    async with connected(rpc.Server([health])) as client:
        health.set("readiness", serving=False, why=reason)
        assert await why(client, "readiness") == reason
        health.set("readiness", serving=False, why="another")  # no news for watchers
        assert await why(client, "readiness") == "another"
        health.set("readiness", serving=True)
        assert await why(client, "readiness") is None
        health.set("readiness", serving=False)
        assert await why(client, "readiness") is None
        health.shutdown()
        assert await why(client, "readiness") == "the server is shutting down"


async def test_check_without_a_request(autojump_clock):
    async with connected(rpc.Server([rpc.Health()])) as client:
        for method in (CHECK, WATCH):
            call = await client.call(method)
            assert (await call.status())[0] is Status.UNIMPLEMENTED


async def test_watch_tells_the_state_and_every_change(autojump_clock):
    health = rpc.Health()
    async with connected(rpc.Server([health])) as client:
        call = await watch(client, "readiness")
        other = await watch(client, "")
        assert await told(call) == [Serving.SERVICE_UNKNOWN]
        health.set("readiness", serving=False)
        assert await told(call) == [Serving.NOT_SERVING]
        health.set("readiness", serving=True)
        assert await told(call) == [Serving.SERVING]
        health.set("readiness", serving=True)  # no news
        assert await told(call) == []
        health.clear("readiness")
        assert await told(call) == [Serving.SERVICE_UNKNOWN]
        assert await told(other) == [Serving.SERVING]
        await trio.sleep(3600)
        assert await told(call) == []


async def test_a_watcher_is_not_woken_for_what_has_passed(autojump_clock):
    """A flap within one scheduler pass is no change."""
    health = rpc.Health()
    async with connected(rpc.Server([health])) as client:
        call = await watch(client, "")
        assert await told(call) == [Serving.SERVING]
        health.set("", serving=False)
        health.set("", serving=True)
        assert await told(call) == []


async def test_a_slow_watcher_learns_the_latest_state_only(autojump_clock):
    """Its window is shut while the state flaps ten thousand times: nothing is queued for it, and the end is right."""
    health = rpc.Health()
    async with connected(rpc.Server([health]), stream_window=5) as client:
        call = await watch(client, "")
        await trio.testing.wait_all_tasks_blocked()
        for count in range(10_001):
            health.set("", serving=bool(count % 2))
            if count % 1000 == 0:
                await trio.testing.wait_all_tasks_blocked()
        seen = []
        for _ in range(10):
            call.starve()
            await client.flush()
            seen += await told(call)
        assert seen[-1] is Serving.NOT_SERVING
        assert len(seen) <= 3


async def test_watchers_leave_nothing_behind(autojump_clock):
    health = rpc.Health()
    async with connected(rpc.Server([health])) as client:
        calls = [await watch(client, name) for name in ("a", "a", "b")]
        await trio.testing.wait_all_tasks_blocked()
        assert health.statistics().watchers == 3
        for call in calls:
            await call.reset_by_client()
        await trio.testing.wait_all_tasks_blocked()
        assert health.statistics() == rpc.HealthStatistics({"": True}, 0, shut_down=False)
        assert health._watchers == {}


async def test_many_watchers(autojump_clock):
    health = rpc.Health()
    async with connected(rpc.Server([health])) as client:
        calls = [await watch(client, "") for _ in range(500)]
        for call in calls:
            assert await told(call) == [Serving.SERVING]
        health.set("", serving=False)
        for call in calls:
            assert await told(call) == [Serving.NOT_SERVING]


async def test_a_drain_tells_watchers_and_ends_them(autojump_clock):
    health = rpc.Health()
    health.set("readiness", serving=True)
    server = rpc.Server([health])
    async with connected(server) as client:
        calls = {name: await watch(client, name) for name in ("", "readiness", "unknown")}
        states = {name: await told(call) for name, call in calls.items()}
        assert states == {"": [Serving.SERVING], "readiness": [Serving.SERVING], "unknown": [Serving.SERVICE_UNKNOWN]}
        begin = trio.current_time()
        await server.drain()
        assert trio.current_time() - begin < 4
        for call in calls.values():
            assert await call.status() == (Status.UNAVAILABLE, "the server is shutting down")
        states = {name: await told(call) for name, call in calls.items()}
        assert states == {"": [Serving.NOT_SERVING], "readiness": [Serving.NOT_SERVING], "unknown": []}


async def test_a_watcher_that_does_not_read_does_not_hold_a_drain(autojump_clock):
    health = rpc.Health()
    server = rpc.Server([health])
    async with connected(server, stream_window=3) as client:
        await watch(client, "")
        await trio.testing.wait_all_tasks_blocked()
        begin = trio.current_time()
        await server.drain()
        assert FAREWELL <= trio.current_time() - begin < FAREWELL + 4


async def test_shut_down_is_final(autojump_clock):
    health = rpc.Health()
    health.set("a", serving=True)
    async with connected(rpc.Server([health])) as client:
        health.shutdown()
        health.shutdown()
        health.set("a", serving=True)
        health.set("b", serving=True)
        health.clear("")
        assert health.statistics() == rpc.HealthStatistics({"": False, "a": False}, 0, shut_down=True)
        assert await check(client, "a") is Serving.NOT_SERVING
        call = await watch(client, "a")
        assert (await call.status())[0] is Status.UNAVAILABLE
        assert await told(call) == [Serving.NOT_SERVING]


def test_repr_and_statistics():
    health = rpc.Health()
    health.set("a.B", serving=False)
    assert repr(health) == "<rpc.Health '' serves, 'a.B' does not>"
    health.clear("")
    health.clear("a.B")
    assert repr(health) == "<rpc.Health nothing known>"
    health.shutdown()
    assert repr(health) == "<rpc.Health shut down, nothing known>"
    with pytest.raises(TypeError):
        health.statistics().services["x"] = True
