"""What a handler may raise, and what the caller is told of it; and metadata both ways."""

from __future__ import annotations

from base64 import b64decode
from contextlib import asynccontextmanager, suppress

import pytest
import trio
import trio.testing
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from tests._pb.dk_trio.test.v1 import Message

from dk_trio import rpc
from dk_trio.pb.google.rpc import ErrorInfo, RetryInfo
from dk_trio.pb.google.rpc import Status as StatusMessage
from dk_trio.rpc.details import decode_status_details
from dk_trio.wire.heads import ResponseHead

from .wire_client import DAY, TestService, WireClient, echo, serving


def raising(error: BaseException):
    async def handler(stream):
        await stream.recv_message()
        raise error

    return handler


def text_field(head: ResponseHead, name: str) -> str:
    return dict(head.fields)[name]


async def test_grpc_error(autojump_clock):
    error = GRPCError(Status.NOT_FOUND, "kein Ärger: 100 %\n")
    async with serving(unary=raising(error)) as (client, _):
        call = await client.call("unary", Message())
        assert await call.status() == (Status.NOT_FOUND, "kein Ärger: 100 %\n")
        assert call.head is call.trailers  # one header block: "Trailers-Only"


async def test_grpc_error_after_messages(autojump_clock):
    async def handler(stream):
        await stream.send_message(Message(n=1))
        raise GRPCError(Status.ABORTED, "half-way")

    async with serving(server_stream=handler) as (client, _):
        call = await client.call("server_stream", Message())
        assert (await call.receive()).n == 1
        assert await call.receive() is None
        assert await call.status() == (Status.ABORTED, "half-way")


async def test_details(autojump_clock):
    details = [ErrorInfo(reason="R", domain="d", metadata={"k": "v"}), RetryInfo()]
    async with serving(unary=raising(GRPCError(Status.UNAVAILABLE, "later", details))) as (client, _):
        call = await client.call("unary", Message())
        assert await call.status() == (Status.UNAVAILABLE, "later")
        assert decode_status_details(text_field(call.trailers, "grpc-status-details-bin")) == details


@pytest.mark.parametrize("character", ["x", "é", "🜁", "\ud800"])
async def test_a_long_message_with_details_leaves_room_for_them(autojump_clock, character):
    details = [ErrorInfo(reason="R", domain="d")]
    async with serving(unary=raising(GRPCError(Status.ABORTED, character * 300_000, details))) as (client, _):
        call = await client.call("unary", Message())
        status, message = await call.status()
        assert status is Status.ABORTED
        assert message.endswith(" more characters)")
        field = text_field(call.trailers, "grpc-status-details-bin")
        assert decode_status_details(field) == details
        told_again = StatusMessage.parse(b64decode(field + "=" * (-len(field) % 4)))
        assert told_again.message == message  # as grpcio's rpc_status demands
        assert sum(len(name) + len(value) + 32 for name, value in call.trailers.fields) < 8192


@pytest.mark.parametrize(
    "error",
    [
        GRPCError(Status.NOT_FOUND, "x", [object()]),  # no messages
        GRPCError(Status.NOT_FOUND, "x", 7),  # no sequence
        GRPCError(Status.NOT_FOUND, 7),  # no text
        GRPCError(7, "no status"),
    ],
    ids=["details", "sequence", "message", "status"],
)
async def test_an_error_that_cannot_be_sent(autojump_clock, error, caplog):
    """A mistake in an error costs its own call an explanation, and nobody else anything."""
    async with serving(unary=raising(error), unary_echo=echo) as (client, _):
        call = await client.call("unary", Message())
        status, _text = await call.status()
        assert status in {Status.NOT_FOUND, Status.UNKNOWN}
        assert await client.unary("unary_echo") == Message()
    assert "/test.Service/unary" in caplog.text


async def test_status_ok_raised_as_an_error(autojump_clock):
    """OK without the message would break the client's expectation of exactly one."""
    async with serving(unary=raising(GRPCError(Status.OK))) as (client, _):
        call = await client.call("unary", Message())
        assert (await call.status())[0] is Status.UNKNOWN


@pytest.mark.parametrize("depth", [1, 2])
async def test_grpc_error_out_of_a_nursery(autojump_clock, depth):
    async def handler(stream):
        async with trio.open_nursery() as nursery:
            if depth == 1:
                nursery.start_soon(raising(GRPCError(Status.DATA_LOSS, "inside")), stream)
            else:
                nursery.start_soon(lambda: nested(stream))
            await trio.sleep_forever()

    async def nested(stream):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(raising(GRPCError(Status.DATA_LOSS, "inside")), stream)

    async with serving(unary=handler) as (client, _):
        call = await client.call("unary", Message())
        assert await call.status() == (Status.DATA_LOSS, "inside")


async def test_grpc_error_wins_over_other_exceptions_of_its_group(autojump_clock):
    group = ExceptionGroup("", [ValueError("first"), ExceptionGroup("", [GRPCError(Status.ABORTED, "meant")])])
    async with serving(unary=raising(group)) as (client, _):
        assert await (await client.call("unary", Message())).status() == (Status.ABORTED, "meant")


@pytest.mark.parametrize(
    "error", [ValueError("password=hunter2"), ExceptionGroup("", [ValueError("password=hunter2")])]
)
async def test_other_exceptions_are_unknown_and_leak_nothing(autojump_clock, caplog, error):
    async with serving(unary=raising(error)) as (client, _):
        call = await client.call("unary", Message())
        assert await call.status() == (Status.UNKNOWN, "the handler failed: ValueError")
    assert "hunter2" in caplog.text  # the log has all of it
    assert "/test.Service/unary failed" in caplog.text


async def test_exception_after_trailers(autojump_clock, caplog):
    async def handler(stream):
        await stream.send_message(Message())
        await stream.send_trailing_metadata()
        raise ValueError("afterwards")

    async with serving(unary=handler) as (client, server):
        await client.unary("unary")
        await trio.testing.wait_all_tasks_blocked()
        assert server.statistics().rpcs == 0
    assert "/test.Service/unary failed after its call had ended" in caplog.text


async def test_return_without_a_message(autojump_clock, caplog):
    async def handler(stream):
        await stream.recv_message()

    async with serving(unary=handler) as (client, _):
        call = await client.call("unary", Message())
        assert await call.status() == (Status.UNKNOWN, "the handler returned without a response message")
    assert "/test.Service/unary returned without a response message" in caplog.text


async def test_message_that_cannot_be_serialised(autojump_clock):
    async def handler(stream):
        await stream.recv_message()
        await stream.send_message(object())

    async with serving(unary=handler, unary_echo=echo) as (client, _):
        call = await client.call("unary", Message())
        assert await call.status() == (Status.UNKNOWN, "the handler failed: AttributeError")
        assert await client.unary("unary_echo") == Message()


async def test_keyboard_interrupt_ends_the_server(autojump_clock):
    """It is nobody's call: it goes to whoever runs the server."""
    ours, theirs = trio.testing.memory_stream_pair()
    server = rpc.Server([TestService(unary=raising(KeyboardInterrupt()))])
    with trio.fail_after(DAY):
        client = WireClient(ours)
        await client.call("unary", Message())
        with pytest.raises(BaseExceptionGroup) as caught:
            await server.serve_stream(theirs)
        assert caught.group_contains(KeyboardInterrupt)
        assert server.statistics().rpcs == server.statistics().connections == 0


# -- metadata ---------------------------------------------------------------------------------------------------------


async def test_metadata_both_ways(autojump_clock):
    seen = {}

    async def handler(stream):
        seen.update(stream.metadata)
        await stream.send_initial_metadata(metadata={"first": "1", "first-bin": b"\x00\xff"})
        await stream.recv_message()
        await stream.send_message(Message())
        await stream.send_trailing_metadata(metadata=[("last", "a"), ("last", "b"), ("last-bin", b"")])

    async with serving(unary=handler) as (client, _):
        call = await client.call("unary", end=False, metadata={"key": "value", "key-bin": b"\xde\xad"})
        initial = await call.headers()  # before anything was asked
        assert (initial["first"], initial["first-bin"]) == ("1", b"\x00\xff")
        await call.send(Message(), end=True)
        await call.answer()
        assert call.trailing().getall("last") == ["a", "b"]
        assert call.trailing()["last-bin"] == b""
    assert seen == {"key": "value", "key-bin": b"\xde\xad"}


async def test_metadata_with_an_error(autojump_clock):
    async def handler(stream):
        await stream.send_trailing_metadata(
            status=Status.FAILED_PRECONDITION, status_message="no", metadata={"why": "because"}
        )

    async with serving(unary=handler) as (client, _):
        call = await client.call("unary", Message())
        assert await call.status() == (Status.FAILED_PRECONDITION, "no")
        assert call.trailing()["why"] == "because"


@pytest.mark.parametrize(
    "metadata", [{"Upper": "x"}, {"grpc-status": "0"}, {"ctl": "a\nb"}, {"bin-bin": "text"}, {"text": b"bytes"}]
)
async def test_metadata_that_cannot_be_sent_raises_in_the_handler(autojump_clock, metadata):
    raised = []

    async def handler(stream):
        for send in (stream.send_initial_metadata, stream.send_trailing_metadata):
            try:
                if send == stream.send_trailing_metadata:
                    await send(status=Status.ABORTED, metadata=metadata)
                else:
                    await send(metadata=metadata)
            except (ValueError, TypeError) as error:
                raised.append(str(error))
        await stream.send_message(Message())

    async with serving(unary=handler) as (client, _):
        await client.unary("unary")
    name = next(iter(metadata))
    assert len(raised) == 2
    assert all(name in text for text in raised)


async def test_request_metadata_that_cannot_be_read(autojump_clock):
    """Bad base64 fails the handler that looks, with a status that says whose fault it was."""

    async def handler(stream):
        stream.metadata["x-bin"]
        await echo(stream)

    async with serving(unary=handler, unary_echo=echo, client={"fields": [(b"x-bin", b"!")]}) as (client, _):
        call = await client.call("unary", Message())
        status, text = await call.status()
        assert status is Status.INTERNAL
        assert "x-bin" in text
        assert await client.unary("unary_echo") == Message()


# -- interceptors -----------------------------------------------------------------------------------------------------


def recording(log, name):
    @asynccontextmanager
    async def interceptor(call):
        log.append(f"{name} in")
        try:
            yield
        except BaseException as error:
            log.append(f"{name} {type(error).__name__}")
            raise
        else:
            log.append(f"{name} out")

    return interceptor


async def test_interceptors_nest(autojump_clock):
    log = []
    async with serving(unary=echo, interceptors=[recording(log, "a"), recording(log, "b")]) as (client, _):
        await client.unary("unary")
    assert log == ["a in", "b in", "b out", "a out"]


async def test_interceptors_see_exceptions_and_cancellation(autojump_clock):
    log = []

    async def patient(stream):
        await trio.sleep_forever()

    handlers = {"unary": raising(ValueError()), "unary_patient": patient}
    async with serving(interceptors=[recording(log, "a")], **handlers) as (client, _):
        assert (await (await client.call("unary", Message())).status())[0] is Status.UNKNOWN
        assert log == ["a in", "a ValueError"]
        call = await client.call("unary_patient", Message(), timeout=1)
        assert (await call.status())[0] is Status.DEADLINE_EXCEEDED
        assert log[2:] == ["a in", "a Cancelled"]


async def test_interceptor_refuses(autojump_clock):
    handled = []

    async def handler(stream):
        handled.append(stream)

    @asynccontextmanager
    async def guard(call):
        if call.metadata.get("authorization") != "secret":
            raise GRPCError(Status.UNAUTHENTICATED, f"{call.path} needs a token")
        yield

    async with serving(unary=handler, unary_echo=echo, interceptors=[guard]) as (client, _):
        call = await client.call("unary", Message())
        assert await call.status() == (Status.UNAUTHENTICATED, "/test.Service/unary needs a token")
        assert not handled
        call = await client.call("unary_echo", Message(), metadata={"authorization": "secret"})
        await call.answer()


async def test_interceptor_turns_one_exception_into_another(autojump_clock):
    @asynccontextmanager
    async def translate(call):
        try:
            yield
        except KeyError as error:
            raise GRPCError(Status.NOT_FOUND, f"no {error}") from error

    async with serving(unary=raising(KeyError("it")), interceptors=[translate]) as (client, _):
        assert await (await client.call("unary", Message())).status() == (Status.NOT_FOUND, "no 'it'")


async def test_interceptor_cannot_swallow(autojump_clock):
    @asynccontextmanager
    async def swallow(call):
        with suppress(ValueError):
            yield

    async with serving(unary=raising(ValueError()), interceptors=[swallow]) as (client, _):
        assert (await (await client.call("unary", Message())).status())[0] is Status.UNKNOWN


async def test_what_an_interceptor_is_told(autojump_clock):
    told = []

    @asynccontextmanager
    async def look(call):
        told.append((call.path, call.cardinality.name, call.side, call.time_remaining(), call.peer.addr()))
        yield

    async with serving(bidi=echo, interceptors=[look]) as (client, _):
        call = await client.call("bidi", timeout=60)
        await call.status()
    assert told == [("/test.Service/bidi", "STREAM_STREAM", "server", 60.0, None)]


def statuses(log):
    @asynccontextmanager
    async def interceptor(call):
        try:
            yield
        except BaseException as error:
            log.append(call.status_for(error))
            raise
        log.append(call.status_for(None))

    return interceptor


async def test_an_interceptor_can_tell_the_status_that_the_client_gets(autojump_clock):
    async def denied(stream):
        async with trio.open_nursery():
            raise GRPCError(Status.PERMISSION_DENIED, "no")

    async def silent(stream):
        return

    async def early(stream):
        stream.finish(Status.NOT_FOUND, "told before the end")
        raise ValueError

    async def patient(stream):
        await trio.sleep_forever()

    expected = {
        "unary": (echo, Status.OK),
        "unary_raising": (raising(ValueError()), Status.UNKNOWN),
        "unary_denied": (denied, Status.PERMISSION_DENIED),
        "unary_silent": (silent, Status.UNKNOWN),
        "unary_early": (early, Status.NOT_FOUND),
        "unary_patient": (patient, Status.DEADLINE_EXCEEDED),
    }
    log = []
    handlers = {name: handler for name, (handler, _) in expected.items()}
    async with serving(interceptors=[statuses(log)], **handlers) as (client, _):
        for name, (_, status) in expected.items():
            call = await client.call(name, Message(), timeout=1)
            assert ((await call.status())[0], log.pop()) == (status, status), name


async def test_an_interceptor_can_tell_who_has_cancelled_a_call(autojump_clock):
    async def patient(stream):
        await trio.sleep_forever()

    log = []
    async with serving(interceptors=[statuses(log)], unary=patient) as (client, server):
        call = await client.call("unary", Message())
        await trio.testing.wait_all_tasks_blocked()
        await call.reset_by_client()
        await trio.testing.wait_all_tasks_blocked()
        assert log == [Status.CANCELLED]
        call = await client.call("unary", Message())
        await trio.testing.wait_all_tasks_blocked()
        await server.drain(0)
        assert log == [Status.CANCELLED, Status.UNAVAILABLE]


async def test_an_interceptor_that_swallows_does_not_hide_the_failure_from_those_around_it(autojump_clock):
    @asynccontextmanager
    async def swallow(call):
        with suppress(ValueError):
            yield

    log = []
    async with serving(unary=raising(ValueError()), interceptors=[recording(log, "a"), swallow]) as (client, _):
        assert (await (await client.call("unary", Message())).status())[0] is Status.UNKNOWN
    assert log == ["a in", "a ValueError"]
