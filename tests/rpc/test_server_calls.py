"""Calls of all four shapes, and what a handler may do in them."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from grpclib.const import Status
from grpclib.exceptions import ProtocolError
from tests._pb.dk_trio.test.v1 import EchoBase, Message

from dk_trio import rpc

from .wire_client import TestService, connected, echo, serving


class Echo(EchoBase):
    """The generated base, in the style that its generator means."""

    async def unary(self, message):
        return message

    async def server_stream(self, message):
        for n in range(message.n):
            yield Message(n=n)

    async def client_stream(self, messages):
        count = 0
        async for _ in messages:
            count += 1
        return Message(n=count)

    async def bidi(self, messages):
        async for message in messages:
            yield message


PATH = "/dk_trio.test.v1.Echo/"


async def test_generated_service_in_all_four_shapes(autojump_clock):
    async with connected(rpc.Server([Echo()])) as client:
        assert (await client.unary(f"{PATH}Unary", Message(text="hä"))).text == "hä"

        call = await client.call(f"{PATH}ServerStream", Message(n=3))
        assert [(await call.receive()).n for _ in range(3)] == [0, 1, 2]
        assert await call.receive() is None
        assert await call.status() == (Status.OK, None)

        call = await client.call(f"{PATH}ClientStream", *[Message()] * 5)
        assert (await call.answer()).n == 5

        call = await client.call(f"{PATH}Bidi", end=False)
        for n in range(3):
            await call.send(Message(n=n))
            assert (await call.receive()).n == n
        await call.send_end()
        assert await call.receive() is None
        assert await call.status() == (Status.OK, None)


@pytest.mark.parametrize("method", ["server_stream", "client_stream", "bidi"])
async def test_streams_may_be_empty(autojump_clock, method):
    async def nothing(stream):
        async for _ in stream:
            pass
        if not stream.handler.cardinality.server_streaming:
            await stream.send_message(Message())

    async with serving(**{method: nothing}) as (client, _):
        call = await client.call(method, *([Message()] if method == "server_stream" else []))
        while await call.receive() is not None:
            pass
        assert await call.status() == (Status.OK, None)


async def test_empty_message(autojump_clock):
    async with serving(unary=echo) as (client, _):
        assert bytes(await client.unary("unary", Message())) == b""


async def test_large_messages_pass_small_windows(autojump_clock):
    async with serving(rpc.ServerOptions(stream_window_bytes=1000), unary=echo) as (client, _):
        data = bytes(range(256)) * 12_000  # 3 MB, through windows of 1,000 bytes and 64 KiB
        assert (await client.unary("unary", Message(data=data))).data == data


async def test_answer_before_the_request_is_read(autojump_clock):
    """A handler may answer early; the client is told to stop sending."""

    async def impatient(stream):
        await stream.send_message(Message(text="enough"))

    async with serving(client_stream=impatient) as (client, server):
        call = await client.call("client_stream", Message(), end=False)
        assert (await call.answer()).text == "enough"
        await trio.testing.wait_all_tasks_blocked()
        assert server.statistics().rpcs == 0
        assert call.reset_code == 0  # NO_ERROR, RFC 9113 section 8.1


async def test_unknown_method_is_named(autojump_clock):
    async with serving(unary=echo) as (client, server):
        call = await client.call("/test.Service/Absent", Message())
        assert await call.status() == (Status.UNIMPLEMENTED, "this server has no method /test.Service/Absent")
        assert server.statistics().rpcs_refused == 1
        assert await client.unary("unary") == Message()


async def test_bad_bytes_name_the_type(autojump_clock):
    async with serving(unary=echo) as (client, _):
        call = await client.call("unary", end=False)
        call.queue_message(b"\xff\xff", end=True)
        await client.flush()
        status, text = await call.status()
        assert status is Status.INTERNAL
        assert text.startswith("request is not a Message: ")


async def test_no_request_message(autojump_clock):
    """gRPC's status code document: a request cardinality violation is UNIMPLEMENTED."""

    async with serving(unary=echo) as (_, _), connected(rpc.Server([Echo()])) as client:
        call = await client.call(f"{PATH}Unary")
        status, text = await call.status()
        assert status is Status.UNIMPLEMENTED
        assert text == "the request ended without a message, this method takes one"


async def test_many_calls_at_once(autojump_clock):
    async with serving(bidi=echo, unary=echo) as (client, server):
        calls = [await client.call("bidi", Message(n=n), end=False) for n in range(200)]
        for n, call in enumerate(calls):
            assert (await call.receive()).n == n
        assert server.statistics().rpcs == 200
        for call in calls:
            await call.send_end()
        for call in calls:
            assert await call.status() == (Status.OK, None)
        assert server.statistics().rpcs == 0
        assert server.statistics().rpcs_started == 200


async def test_contextvars_do_not_pass_from_call_to_call(autojump_clock):
    """Handler tasks are reused; what one call sets must be gone in the next."""
    from contextvars import ContextVar

    variable: ContextVar[str] = ContextVar("variable", default="unset")
    seen = []

    async def handler(stream):
        seen.append((variable.get(), trio.lowlevel.current_task().name))
        variable.set("set")
        await echo(stream)

    async with serving(unary=handler, unary_other=handler) as (client, _):
        for method in ("unary", "unary_other", "unary"):
            await client.unary(method)
    assert seen == [
        ("unset", "/test.Service/unary"),
        ("unset", "/test.Service/unary_other"),
        ("unset", "/test.Service/unary"),
    ]


async def test_a_deadline_does_not_pass_from_call_to_call(autojump_clock):
    async def handler(stream):
        message = await stream.recv_message()
        await trio.sleep(message.delay)
        left = trio.current_effective_deadline() - trio.current_time()
        await stream.send_message(Message(text=str(left) if left < 1000 else "none"))

    async with serving(unary=handler) as (client, _):
        call = await client.call("unary", Message(), timeout=5)
        assert (await call.answer()).text == "5.0"
        assert (await client.unary("unary", Message(delay=10))).text == "none"
        call = await client.call("unary", Message(delay=10), timeout=5)
        assert (await call.status())[0] is Status.DEADLINE_EXCEEDED
        assert (await client.unary("unary", Message(delay=10))).text == "none"


async def test_a_handler_may_open_a_nursery(autojump_clock):
    async def handler(stream):
        async with trio.open_nursery() as nursery:
            async for message in stream:
                nursery.start_soon(stream.send_message, message)

    async with serving(bidi=handler) as (client, _):
        call = await client.call("bidi", *[Message(n=n) for n in range(10)])
        assert sorted([(await call.receive()).n for _ in range(10)]) == list(range(10))
        assert await call.status() == (Status.OK, None)


async def test_only_one_task_receives(autojump_clock):
    raised = []

    async def handler(stream):
        async def receive():
            try:
                await stream.recv_message()
            except trio.BusyResourceError as error:
                raised.append(str(error))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            nursery.start_soon(receive)

    async with serving(bidi=handler) as (client, _):
        call = await client.call("bidi", end=False)
        await trio.testing.wait_all_tasks_blocked()
        await call.send_end()
        assert await call.status() == (Status.OK, None)
    assert raised == ["another task is receiving from this call"]


async def test_what_is_out_of_order_raises_in_the_handler(autojump_clock):
    raised = []

    async def record(action, *arguments, **named):
        try:
            await action(*arguments, **named)
        except ProtocolError as error:
            raised.append(str(error))

    async def handler(stream):
        await record(stream.send_trailing_metadata)  # OK without the message
        await stream.send_initial_metadata()
        await record(stream.send_initial_metadata)
        await stream.send_message(Message())
        await record(stream.send_message, Message())
        await stream.send_trailing_metadata()
        await record(stream.send_trailing_metadata)

    async with serving(unary=handler) as (client, _):
        await client.unary("unary")
    assert raised == [
        "an OK response of this method needs one message before its trailers",
        "the initial metadata was already sent",
        "the only response message of this method was already sent",
        "the trailing metadata was already sent",
    ]


@pytest.mark.parametrize("size", [0, 10_000, 200_000, 2_000_000])
@pytest.mark.parametrize("compression", ["identity", "gzip"])
async def test_a_second_answer_is_refused_whatever_way_the_first_took(autojump_clock, size, compression):
    raised = []

    async def handler(stream):
        await stream.send_message(Message(data=bytes(size)))
        try:
            await stream.send_message(Message(text="second"))
        except ProtocolError as error:
            raised.append(str(error))

    fields = {"fields": [(b"grpc-accept-encoding", b"gzip")]}
    async with serving(rpc.ServerOptions(compression=compression), unary=handler, client=fields) as (client, _):
        assert len((await client.unary("unary")).data) == size
    assert raised == ["the only response message of this method was already sent"]


async def test_metadata_of_every_response(autojump_clock):
    async def handler(stream):
        if (await stream.recv_message()).text == "more":
            await stream.send_initial_metadata(metadata={"more": "2"})
        await stream.send_message(Message())

    with pytest.raises(ValueError, match="'te' is reserved"):
        rpc.ServerOptions(response_metadata={"te": "x"})
    async with serving(rpc.ServerOptions(response_metadata={"every": "1"}), unary=handler) as (client, _):
        for text, told in (("", {"every": "1"}), ("", {"every": "1"}), ("more", {"every": "1", "more": "2"})):
            call = await client.call("unary", Message(text=text))
            assert await call.status() == (Status.OK, None)
            assert dict(await call.headers()) == told


async def test_cancel_by_the_handler(autojump_clock):
    async def handler(stream):
        await stream.send_message(Message(n=1))
        await stream.cancel()
        with pytest.raises(ProtocolError, match="already cancelled"):
            await stream.cancel()
        with pytest.raises(ProtocolError, match="the call has ended"):
            await stream.send_message(Message(n=2))

    async with serving(bidi=handler, unary=echo) as (client, _):
        call = await client.call("bidi", end=False)
        assert (await call.receive()).n == 1
        with trio.fail_after(1):
            while call.reset_code is None:
                await call.changed.wait()
        assert call.reset_code == 8  # CANCEL
        assert await client.unary("unary") == Message()


async def test_what_a_handler_sees_of_the_call(autojump_clock):
    seen = {}

    async def handler(stream):
        seen.update(
            user_agent=stream.user_agent,
            deadline=stream.deadline.time_remaining(),
            peer=(stream.peer.addr(), stream.peer.cert()),
            path=repr(stream),
        )
        await echo(stream)

    async with serving(unary=handler, client={"fields": [(b"user-agent", b"tester/1")]}) as (client, _):
        await (await client.call("unary", Message(), timeout=60)).answer()
    assert seen == {
        "user_agent": "tester/1",
        "deadline": 60.0,
        "peer": (None, None),
        "path": "<ServerCall /test.Service/unary stream 1 open>",
    }


def test_two_services_may_not_serve_one_path():
    with pytest.raises(ValueError, match=r"two services serve /test\.Service/unary: register each service once"):
        rpc.Server([TestService(unary=echo), TestService(unary=echo)])
