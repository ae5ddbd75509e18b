"""What a command shows of a server may be a stranger's: a terminal obeys none of it, and a token goes nowhere else."""

import json
from functools import partial
from typing import Any

import pytest
import trio
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError

from dk_trio import rpc
from dk_trio.cli._output import json_text
from dk_trio.observe.web import serve_app
from dk_trio.pb.agentic_mesh_protocol.module.v1 import (
    GetModuleJobsRequest,
    GetModuleJobsResponse,
    JobInfo,
    ModuleStatus,
)

from .processes import PATIENCE, beside

ORDERS = "\x1b]0;owned\x07\x9b2J\u202e"
SHOWN = r"\x1b]0;owned\x07\x9b2J\u202e"


class Jobs:
    """Lists one job, or fails, with orders to a terminal."""

    def __init__(self, *, fails: bool) -> None:
        self._fails = fails

    def __mapping__(self) -> dict[str, Handler]:
        path = "/agentic_mesh_protocol.module.v1.ModuleService/GetModuleJobs"
        return {path: Handler(self.jobs, Cardinality.UNARY_UNARY, GetModuleJobsRequest, GetModuleJobsResponse)}

    async def jobs(self, stream: Any) -> None:
        await stream.recv_message()
        if self._fails:
            raise GRPCError(Status.UNKNOWN, ORDERS)
        await stream.send_message(
            GetModuleJobsResponse(success=True, jobs=[JobInfo(job_id=ORDERS, job_status=ModuleStatus.PROCESSING)])
        )


@pytest.mark.parametrize("fails", [True, False])
async def test_texts_of_a_server_are_no_orders(fails: bool) -> None:
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            listeners = await rpc.open_tcp_listeners(0, host="127.0.0.1")
            await nursery.start(rpc.Server([Jobs(fails=fails)]).serve, listeners)
            done = await beside("jobs", f"127.0.0.1:{listeners[0].socket.getsockname()[1]}")
            nursery.cancel_scope.cancel()
    assert SHOWN in (done.stderr if fails else done.stdout).decode()
    assert not ({*ORDERS} - {*SHOWN}) & {*(done.stderr + done.stdout).decode()}


async def test_what_an_inspector_says_is_no_order_and_the_token_is_for_it_alone() -> None:
    seen: list[list[tuple[bytes, bytes]]] = []

    async def elsewhere(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["headers"])
        await send({"type": "http.response.start", "status": 403, "headers": []})
        await send({"type": "http.response.body", "body": ORDERS.encode()})

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["headers"])
        there = f"http://{other}/snapshot.json".encode()
        await send({"type": "http.response.start", "status": 302, "headers": [(b"location", there)]})
        await send({"type": "http.response.body", "body": b""})

    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            other = await nursery.start(partial(serve_app, elsewhere, host="127.0.0.1", port=0))
            address = await nursery.start(partial(serve_app, app, host="127.0.0.1", port=0))
            done = await beside("top", "--json", address, "--token", "s3cret")
            nursery.cancel_scope.cancel()
    assert [dict(headers).get(b"authorization") for headers in seen] == [b"Bearer s3cret", None]
    assert SHOWN in done.stderr.decode()


def test_json_is_the_same_for_a_program_and_harmless_for_a_terminal() -> None:
    value = {"text": f"é{ORDERS}\x7f"}
    text = json_text(value)
    assert json.loads(text) == value
    assert text.isprintable()
    assert "é" in text
