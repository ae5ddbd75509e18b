"""Interceptors that only look: they are told what the client is told, wherever they stand, and can break nothing."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from tests._pb.dk_trio.test.v1 import Message

from dk_trio import rpc

from .wire_client import echo, serving


class Noted(rpc.Observer):
    """Keeps what it is told, and is its own watch."""

    def __init__(self) -> None:
        self.began: list[str] = []
        self.told: list[tuple[Status, float]] = []

    def watch(self, call):
        self.began.append(call.path.rpartition("/")[2])
        return self

    def ended(self, status, seconds):
        self.told.append((status, seconds))


@asynccontextmanager
async def nothing(call):
    yield


async def denied(stream):
    await trio.sleep(3)
    raise GRPCError(Status.PERMISSION_DENIED, "no")


async def unsendable(stream):
    raise GRPCError(Status.NOT_FOUND, "no", object())


async def silent(stream):
    return


async def patient(stream):
    await trio.sleep_forever()


async def cancelling(stream):
    await stream.cancel()


async def test_they_are_told_what_the_client_is_told(autojump_clock):
    expected = {
        "unary": (echo, Status.OK, 0),
        "unary_denied": (denied, Status.PERMISSION_DENIED, 3),
        "unary_unsendable": (unsendable, Status.UNKNOWN, 0),
        "unary_silent": (silent, Status.UNKNOWN, 0),
        "unary_patient": (patient, Status.DEADLINE_EXCEEDED, 5),
    }
    observer = Noted()
    async with serving(interceptors=[observer], **{name: row[0] for name, row in expected.items()}) as (client, _):
        for name, (_, status, seconds) in expected.items():
            call = await client.call(name, Message(), timeout=5)
            assert (await call.status())[0] is status, name
            assert observer.began[-1] == name
            assert observer.told.pop() == (status, pytest.approx(seconds)), name


async def test_who_has_ended_a_call_that_was_cut_off(autojump_clock):
    observer = Noted()
    async with serving(interceptors=[observer], unary=patient, unary_cancelling=cancelling) as (client, server):
        await client.call("unary_cancelling", Message())
        await trio.testing.wait_all_tasks_blocked()
        call = await client.call("unary", Message())
        await trio.testing.wait_all_tasks_blocked()
        await call.reset_by_client()
        await trio.testing.wait_all_tasks_blocked()
        await client.call("unary", Message())
        await trio.testing.wait_all_tasks_blocked()
        await server.drain(0)
    assert [status for status, _ in observer.told] == [Status.CANCELLED, Status.CANCELLED, Status.UNAVAILABLE]


async def test_behind_an_interceptor_they_are_told_the_same(autojump_clock):
    outer, inner = Noted(), Noted()
    async with serving(interceptors=[outer, nothing, inner], unary=echo, unary_denied=denied) as (client, _):
        for name in ("unary", "unary_denied"):
            await (await client.call(name, Message())).status()
    assert outer.told == inner.told
    assert [status for status, _ in outer.told] == [Status.OK, Status.PERMISSION_DENIED]
    assert outer.began == inner.began == ["unary", "unary_denied"]


async def test_one_that_raises_is_told_of_and_others_are_told(autojump_clock, caplog):
    class Broken(Noted):
        def ended(self, status, seconds):
            raise ValueError("broken")

    outer = Noted()
    with caplog.at_level(logging.ERROR):
        async with serving(interceptors=[outer, Broken()], unary=echo) as (client, _):
            for _ in range(2):  # on one connection
                assert (await (await client.call("unary", Message())).status())[0] is Status.OK
    assert [status for status, _ in outer.told] == [Status.OK, Status.OK]
    assert [record.exc_info[0] for record in caplog.records] == [ValueError, ValueError]


async def test_a_server_enters_no_context_manager_for_those_that_stand_first(autojump_clock):
    class Plain(Noted):
        def __call__(self, call):
            raise AssertionError

    first = Plain()
    async with serving(interceptors=[first, nothing], unary=echo) as (client, _):
        assert (await (await client.call("unary", Message())).status())[0] is Status.OK
    assert len(first.told) == 1


async def test_one_that_raises_about_a_refused_call_leaves_the_connection_to_the_others(autojump_clock, caplog):
    class Broken(Noted):
        def refused(self, call, status):
            raise ValueError("broken")

    with caplog.at_level(logging.ERROR):
        async with serving(interceptors=[Broken()], unary=echo) as (client, _):
            assert (await (await client.call("missing", Message())).status())[0] is Status.UNIMPLEMENTED
            assert (await (await client.call("unary", Message())).status())[0] is Status.OK
    assert [record.exc_info[0] for record in caplog.records] == [ValueError]
