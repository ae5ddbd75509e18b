"""The inspector: what it tells, to whom, and what it lets them do."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import trio
import trio.testing
from tests.module.sample import module_with
from tests.module.served import served
from tests.observe.asked import Viewer, asked
from tests.observe.watched import watched

from dk_trio import Settings
from dk_trio.errors import ConfigurationError, ListenError
from dk_trio.observe import Observed
from dk_trio.observe.inspector import Inspector
from dk_trio.observe.inspector._access import Access
from dk_trio.observe.inspector._app import make_app
from dk_trio.observe.inspector._live import VIEWERS_MAX, Live
from dk_trio.observe.inspector._snapshot import ENDED_KEPT, Ended, plain, snapshot
from dk_trio.observe.task_tree import Surveyor

DAY = 86400
MISSION = "missions:<img src=x onerror=alert(1)>"


async def waits(self: Any, input_data: Any, setup_data: Any, context: Any) -> None:
    await trio.sleep(3600)


async def fails(self: Any, input_data: Any, setup_data: Any, context: Any) -> None:
    raise LookupError("no such record")


@asynccontextmanager
async def inspected(
    handle: Any = waits, *, host: str = "127.0.0.1", token: str | None = None, actions: bool = False
) -> AsyncIterator[tuple[Any, Any, Live]]:
    """A server and an inspector's app, without a socket: the app, a function that begins a job, and the snapshots."""
    ended = Ended()
    with trio.fail_after(DAY):
        async with served(module_with(handle), hooks=[ended]) as (server, client), trio.open_nursery() as nursery:
            observed = Observed(modules=lambda: [server])
            live = Live(Surveyor(), lambda: snapshot(observed, ended=ended.told(), actions=actions))
            app = make_app(live, Access(host=host, token=token, actions=actions), observed.modules)

            async def call() -> None:
                try:
                    async with client.start({"protocol": "message"}, mission_id=MISSION) as outputs:
                        async for _ in outputs:
                            pass
                except Exception as error:  # noqa: BLE001  how it ends is told by the inspector
                    assert "Job" in str(error) or "record" in str(error)

            async def begin() -> None:
                nursery.start_soon(call)
                await trio.sleep(2)

            yield app, begin, live
            nursery.cancel_scope.cancel()


# -- what it tells ----------------------------------------------------------------------------------------------------


async def test_a_snapshot_tells_of_jobs_gauges_and_tasks(autojump_clock: trio.testing.MockClock) -> None:
    async with inspected() as (app, begin, _):
        await begin()
        told = (await asked(app, "/snapshot.json")).json
        (server,) = told["servers"]
        (session,) = server["sessions"]
        assert (session["state"], session["protocol"], session["mission"]) == ("running", "message", MISSION)
        assert session["age"] == pytest.approx(2)
        assert session["outputs"] == 1
        assert server["admission"]["running"] == 1
        assert server["channels"]["channels"] == 0
        assert server["rpc"]["rpcs"] == 1
        assert server["provider"] is None
        assert told["provider"] is None
        assert told["ended"] == []
        assert told["loop"]["last_stalls"] == []
        tree = (await asked(app, "/tasks.json")).json
        assert tree == told["tasks"]
        assert f"job {session['job']}" in str(tree)


async def test_jobs_that_have_ended_are_told_newest_first(autojump_clock: trio.testing.MockClock) -> None:
    async with inspected(fails) as (app, begin, _):
        for _ in range(ENDED_KEPT + 1):
            await begin()
        ended = (await asked(app, "/snapshot.json")).json["ended"]
        assert len(ended) == ENDED_KEPT
        assert [job["ago"] for job in ended[:3]] == pytest.approx([2, 4, 6], abs=0.1)
        assert ended[0]["reason"] == "failed"
        assert "LookupError: no such record" in ended[0]["error"]
        assert ended[0]["mission"] == MISSION
        assert ended[0]["protocol"] == "message"


async def test_in_remote_mode_it_tells_of_signals_and_the_provider(autojump_clock: trio.testing.MockClock) -> None:
    inspector = Inspector(Settings().observe)
    with trio.fail_after(DAY):
        async with watched(inspector, waits) as both, trio.open_nursery() as nursery:

            async def call() -> None:
                async with both.client.start({"protocol": "message"}, setup_id=both.setup_id) as outputs:
                    async for _ in outputs:
                        pass

            nursery.start_soon(call)
            await trio.sleep(2)
            told = snapshot(both.observed, ended=[], actions=False)
            provider = told["servers"][0]["provider"]
            assert provider["signals"]["outbound"]["delivered"] == 1
            assert provider["signals"]["inbound"]["listening"] == 1
            assert told["provider"]["ready"] is True
            assert told["provider"]["rpc"]["rpcs"] >= 1
            nursery.cancel_scope.cancel()


def test_what_json_does_not_know_is_told_otherwise() -> None:
    assert plain({"a": float("inf"), "b": float("nan"), "c": (1, {2})}) == {"a": None, "b": None, "c": [1, [2]]}


# -- live -------------------------------------------------------------------------------------------------------------


async def test_a_job_appears_and_is_gone_while_somebody_looks(autojump_clock: trio.testing.MockClock) -> None:
    async with inspected(fails) as (app, begin, _), trio.open_nursery() as nursery:
        viewer = Viewer(app)
        nursery.start_soon(viewer.look)
        await trio.sleep(2.5)
        await begin()
        await trio.sleep(2)
        assert viewer.status == 200
        assert len(viewer.events) == 7
        assert not viewer.events[0]["ended"]
        assert len(viewer.events[-1]["ended"]) == 1
        assert viewer.events[-1]["tasks"]["precision"] == pytest.approx(1)
        viewer.go()
        await viewer.ended.wait()


async def test_pages_that_look_on_have_a_number(autojump_clock: trio.testing.MockClock) -> None:
    async with inspected() as (app, _, live), trio.open_nursery() as nursery:
        viewers = [Viewer(app) for _ in range(VIEWERS_MAX)]
        for viewer in viewers:
            nursery.start_soon(viewer.look)
        await trio.sleep(5)
        assert live.viewers == VIEWERS_MAX
        assert viewers[0].events == viewers[-1].events, "they share what is costly"
        refused = await asked(app, "/events")
        assert refused.status == 503
        viewers[3].go()
        await viewers[3].ended.wait()
        late = Viewer(app)
        nursery.start_soon(late.look)
        await trio.sleep(1)
        assert late.status == 200
        live.close()
        await trio.sleep(0.1)
        assert all(viewer.ended.is_set() for viewer in viewers)
        assert live.viewers == 0


async def test_costly_snapshots_come_less_often(autojump_clock: trio.testing.MockClock) -> None:
    taken = []

    def costly() -> dict[str, Any]:
        taken.append(trio.current_time())
        autojump_clock.jump(0.5)
        return {}

    live = Live(Surveyor(), costly)
    with trio.fail_after(DAY):
        for _ in range(60):
            await live.snapshot()
            await trio.sleep(1)
    pauses = [later - earlier for earlier, later in pairwise(taken)]
    assert min(pauses) >= 10, "half a second each would be half of the loop"


# -- to whom ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1:8765", "localhost:1", "[::1]:8765", "127.8.8.8", "LOCALHOST"])
async def test_without_a_token_loopback_is_asked_for_by_name(host: str, autojump_clock: object) -> None:
    async with inspected() as (app, *_):
        answer = await asked(app, "/", host=host)
        assert answer.status == 200
        assert answer.headers["cache-control"] == "no-store"
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy


@pytest.mark.parametrize("host", ["evil.example:8765", "", "127.0.0.1.evil.example", "10.0.0.7:8765", "[evil]:1"])
@pytest.mark.parametrize("path", ["/", "/snapshot.json", "/tasks.json", "/events"])
async def test_another_name_is_a_page_that_was_pointed_here(host: str, path: str, autojump_clock: object) -> None:
    async with inspected() as (app, *_):
        answer = await asked(app, path, host=host)
        assert answer.status == 403
        assert "only loopback is allowed without a token" in answer.text


async def test_a_token_is_asked_for_and_does_not_stay_in_the_address(
    autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    async with inspected(host="0.0.0.0", token="s3cret") as (app, *_):
        assert (await asked(app, "/snapshot.json", host="server.example")).status == 401
        assert (await asked(app, "/snapshot.json", authorization="Bearer s3cre")).status == 401
        assert (await asked(app, "/snapshot.json", authorization="Bearer s3cret", host="any.example")).status == 200
        assert (await asked(app, "/?token=wrong")).status == 401
        login = await asked(app, "/?token=s3cret", port=99)
        assert (login.status, login.headers["location"]) == (303, "/")
        cookie, *attributes = login.headers["set-cookie"].split("; ")
        assert {"HttpOnly", "SameSite=strict"} <= set(attributes)
        assert cookie.startswith("dk_trio_inspector_99=")
        assert "s3cret" not in cookie
        assert (await asked(app, "/", port=99, cookie=cookie)).status == 200
        assert (await asked(app, "/", port=98, cookie=cookie)).status == 401, "another inspector's"
        assert (await asked(app, "/", port=99, cookie=cookie[:-1])).status == 401
        assert (await asked(app, "/", port=99, authorization=f"Bearer {cookie.partition('=')[2]}")).status == 401
    assert "s3cret" not in caplog.text
    assert caplog.text.count("has refused a request from 127.0.0.1") == 1, "once in a while, however many come"


@pytest.mark.parametrize("token", [None, "s3cret"])
@pytest.mark.parametrize(
    ("site", "dest", "status"),
    [
        ("cross-site", "iframe", 403),
        ("cross-site", "image", 403),
        ("same-site", "empty", 403),  # a page of another port, which gets the cookie sent along
        ("cross-site", "document", 200),  # a link
        ("same-origin", "empty", 200),
        ("none", "document", 200),
    ],
)
async def test_pages_of_others_take_nobody_s_place(
    site: str, dest: str, status: int, token: str | None, autojump_clock: object
) -> None:
    async with inspected(token=token) as (app, _, _):
        shown = {} if token is None else {"authorization": f"Bearer {token}"}
        answer = await asked(app, "/snapshot.json", sec_fetch_site=site, sec_fetch_dest=dest, **shown)
        assert answer.status == status


@pytest.mark.parametrize(
    ("host", "there"),
    [
        ("127.0.0.1", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("box.example", False),
    ],
)
def test_what_others_can_reach_needs_a_token(host: str, there: bool) -> None:
    settings = replace(Settings().observe, inspector_host=host)
    if there:
        Inspector(settings)
        return
    with pytest.raises(ConfigurationError, match=r"and it has no token\.$") as caught:
        Inspector(settings)
    assert "DIGITALKIN_INSPECTOR_TOKEN" in caught.value.hint
    Inspector(replace(settings, inspector_token="s3cret"))


# -- what they may do -------------------------------------------------------------------------------------------------


async def stop(app: Any, **headers: str) -> int:
    job = (await asked(app, "/snapshot.json")).json["servers"][0]["sessions"][0]["job"]
    return (await asked(app, f"/jobs/{job}/stop", "POST", **headers)).status


async def test_it_is_read_only_unless_told_otherwise(autojump_clock: object) -> None:
    async with inspected() as (app, begin, _):
        await begin()
        assert (await asked(app, "/snapshot.json")).json["actions"] is False
        assert await stop(app, x_dk_trio="page") == 403


async def test_a_job_is_stopped(autojump_clock: object, caplog: pytest.LogCaptureFixture) -> None:
    async with inspected(actions=True) as (app, begin, _):
        await begin()
        assert await stop(app, x_dk_trio="page", origin="http://127.0.0.1:8765") == 202
        await trio.sleep(2)
        told = (await asked(app, "/snapshot.json")).json
        assert told["servers"][0]["sessions"] == []
        assert told["ended"][0]["reason"] == "stop_module"
        gone = await asked(app, f"/jobs/{told['ended'][0]['job']}/stop", "POST", x_dk_trio="page")
        assert gone.status == 404
    assert "is stopped with the inspector, from 127.0.0.1" in caplog.text


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x_dk_trio": "page", "origin": "http://evil.example"},
        {"x_dk_trio": "page", "origin": "http://127.0.0.1:80"},
        {"x_dk_trio": "page", "origin": "null"},
        {"x_dk_trio": "page", "sec_fetch_site": "cross-site"},
        {"origin": "http://127.0.0.1:8765"},
    ],
)
async def test_pages_of_others_stop_nothing(headers: dict[str, str], autojump_clock: object) -> None:
    async with inspected(actions=True) as (app, begin, _):
        await begin()
        assert await stop(app, **headers) == 403
        assert (await asked(app, "/jobs/x/stop", "GET", x_dk_trio="page")).status == 405


# -- on a socket ------------------------------------------------------------------------------------------------------


async def test_it_is_served_beside_the_server_for_the_length_of_the_block() -> None:
    settings = replace(Settings().observe, inspector_port=0)
    inspector = Inspector(settings, worker=3)
    with trio.fail_after(60):
        async with inspector.opened(Observed()):
            host, _, port = inspector.address.partition(":")
            stream = await trio.open_tcp_stream(host, int(port))
            async with stream:
                await stream.send_all(b"GET /tasks.json HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                answer = b"".join([part async for part in stream])
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert b'"total":' in answer
            taken = replace(settings, inspector_port=int(port))
            with pytest.raises(ListenError, match="is in use") as caught:
                async with Inspector(taken).opened(Observed()):
                    pass
            assert "DIGITALKIN_INSPECTOR_PORT" in caught.value.hint
        assert inspector.address == ""
        with pytest.raises(OSError, match="connect"):
            await trio.open_tcp_stream(host, int(port))


async def test_a_page_that_looks_on_does_not_hold_up_the_end() -> None:
    inspector = Inspector(replace(Settings().observe, inspector_port=0))
    with trio.fail_after(60):
        async with inspector.opened(Observed()):
            host, _, port = inspector.address.partition(":")
            stream = await trio.open_tcp_stream(host, int(port))
            await stream.send_all(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            received = b""
            while b"data: {" not in received:
                received += await stream.receive_some()
        async with stream:
            rest = b"".join([part async for part in stream])
    assert rest.endswith(b"0\r\n\r\n"), "the stream was ended, not cut"
