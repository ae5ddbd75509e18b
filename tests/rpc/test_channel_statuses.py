"""What servers, proxies and broken peers answer, and which status the caller gets for it."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError, StreamTerminatedError
from tests._pb.dk_trio.test.v1 import Message

from dk_trio.wire import ErrorCode

from .channel_kit import call, channel_to, request, unary

pytestmark = pytest.mark.usefixtures("both_ways")

OK_HEAD = ((b":status", b"200"), (b"content-type", b"application/grpc"))
HTML = (b"content-type", b"text/html")


async def answered(script, **options):
    """Make one unary call to a server that follows `script`; the error it ends with."""
    async with channel_to(**options) as (channel, network):
        async with trio.open_nursery() as nursery:

            async def serve() -> None:
                await script(await (await network.accept()).next_call())

            nursery.start_soon(serve)
            with pytest.raises(GRPCError) as caught:
                await call(channel)
        await trio.testing.wait_all_tasks_blocked()
        for subchannel in channel._subchannels:
            for link in subchannel.links:
                assert not link.wire.streams
        return caught.value


@pytest.mark.parametrize(
    ("http", "status"),
    [
        (b"400", Status.INTERNAL),
        (b"401", Status.UNAUTHENTICATED),
        (b"403", Status.PERMISSION_DENIED),
        (b"404", Status.UNIMPLEMENTED),
        (b"429", Status.UNAVAILABLE),
        (b"431", Status.INTERNAL),
        (b"502", Status.UNAVAILABLE),
        (b"503", Status.UNAVAILABLE),
        (b"504", Status.UNAVAILABLE),
        (b"418", Status.UNKNOWN),
        (b"500", Status.UNKNOWN),
    ],
)
@pytest.mark.parametrize("body", [True, False])
async def test_http_status(autojump_clock, http, status, body):
    async def script(answer) -> None:
        await answer.raw_headers((b":status", http), HTML, end=not body)
        if body:
            answer.queue_message(b"<html>", end=False)
            await answer.server.flush()

    error = await answered(script)
    assert error.status is status
    assert http.decode() in error.message


async def test_a_grpc_status_beats_the_http_status(autojump_clock):
    async def script(answer) -> None:
        await answer.raw_headers((b":status", b"503"), HTML, (b"grpc-status", b"5"), end=True)

    assert (await answered(script)).status is Status.NOT_FOUND


@pytest.mark.parametrize(
    ("fields", "status", "text"),
    [
        ([(b":status", b"200"), HTML], Status.UNKNOWN, "content-type 'text/html'"),
        ([(b":status", b"200")], Status.UNKNOWN, "content-type None"),
        ([*OK_HEAD, (b"grpc-encoding", b"br")], Status.INTERNAL, "'br' was not offered"),
    ],
)
async def test_bad_response_headers(autojump_clock, fields, status, text):
    async def script(answer) -> None:
        await answer.raw_headers(*fields)

    error = await answered(script)
    assert (error.status, text in error.message) == (status, True), error


@pytest.mark.parametrize(
    ("trailers", "status", "text"),
    [
        ([(b"x", b"y")], Status.UNKNOWN, "no grpc-status"),
        ([(b"grpc-status", b"soon")], Status.UNKNOWN, "'soon'"),
        ([(b"grpc-status", b"99")], Status.UNKNOWN, "'99'"),
        ([(b"grpc-status", b"10"), (b"grpc-message", b"%zz%41")], Status.ABORTED, "%zzA"),
    ],
)
async def test_bad_trailers(autojump_clock, trailers, status, text):
    async def script(answer) -> None:
        await answer.raw_headers(*OK_HEAD)
        await answer.raw_headers(*trailers, end=True)

    error = await answered(script)
    assert (error.status, text in error.message) == (status, True), error


async def test_details_that_cannot_be_read_are_left_out(autojump_clock):
    async def script(answer) -> None:
        await answer.finish(Status.ABORTED, "x", (b"grpc-status-details-bin", b"!!!!"))

    error = await answered(script)
    assert (error.status, error.message, error.details) == (Status.ABORTED, "x", None)


async def test_end_without_trailers(autojump_clock):
    async def script(answer) -> None:
        await answer.headers()
        answer.queue_message(b"", end=True)
        await answer.server.flush()

    error = await answered(script)
    assert (error.status, error.message) == (Status.INTERNAL, "the server ended the response without trailers")


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (ErrorCode.NO_ERROR, Status.INTERNAL),
        (ErrorCode.PROTOCOL_ERROR, Status.INTERNAL),
        (ErrorCode.CANCEL, Status.CANCELLED),
        (ErrorCode.ENHANCE_YOUR_CALM, Status.RESOURCE_EXHAUSTED),
        (ErrorCode.INADEQUATE_SECURITY, Status.PERMISSION_DENIED),
        (0x1234, Status.INTERNAL),
    ],
)
@pytest.mark.parametrize("begun", [True, False])
async def test_resets(autojump_clock, code, status, begun):
    async def script(answer) -> None:
        if begun:
            await answer.headers()
        await answer.reset_by_server(code)

    assert (await answered(script)).status is status


@pytest.mark.parametrize(
    ("data", "status", "text"),
    [
        (b"\x00\xff\xff\xff\xff", Status.RESOURCE_EXHAUSTED, "4294967295 bytes"),
        (b"\x02\x00\x00\x00\x00", Status.INTERNAL, "flag is 2"),
        (b"\x01\x00\x00\x00\x00", Status.INTERNAL, "identity"),
    ],
)
async def test_bad_messages(autojump_clock, data, status, text):
    async def script(answer) -> None:
        await answer.headers()
        wire = answer.server.wire
        wire.queue(len(data).to_bytes(3, "big") + b"\x00\x00" + answer.id.to_bytes(4, "big") + data)
        await answer.server.flush()
        assert await answer.until_gone() == ErrorCode.CANCEL

    error = await answered(script)
    assert (error.status, text in error.message) == (status, True), error


async def test_a_reply_that_cannot_be_decoded(autojump_clock):
    async def script(answer) -> None:
        await answer.reply(data=b"\xff\xff")
        await answer.finish()

    error = await answered(script)
    assert error.status is Status.INTERNAL
    assert error.message.startswith("reply is not a Message: ")


async def test_a_message_that_is_cut_short(autojump_clock):
    async def script(answer) -> None:
        await answer.headers()
        answer.server.wire.queue(b"\x00\x00\x06\x00\x00" + answer.id.to_bytes(4, "big") + b"\x00\x00\x00\x00\x05a")
        await answer.finish()

    error = await answered(script)
    assert (error.status, "inside a message" in error.message) == (Status.INTERNAL, True), error


@pytest.mark.parametrize("count", [0, 2, 3])
async def test_one_reply_means_one(autojump_clock, count):
    """gRPC "Status codes": a response cardinality violation is UNIMPLEMENTED."""

    async def script(answer) -> None:
        await answer.headers()
        for _ in range(count):
            await answer.reply()
        await answer.finish()

    error = await answered(script)
    assert error.status is Status.UNIMPLEMENTED
    assert f"sent {count} messages instead of one" in error.message


async def test_an_early_ok_tells_the_sender_to_stop(autojump_clock):
    async with channel_to() as (channel, network):
        async with request(channel, "x", Cardinality.STREAM_UNARY) as stream:
            await stream.send_message(Message())
            answer = await (await network.accept()).next_call()
            await answer.answer(Message(n=7))
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(StreamTerminatedError, match="ended the call"):
                await stream.send_message(Message())
            assert (await stream.recv_message()).n == 7
            assert await stream.recv_message() is None
        assert channel.statistics().succeeded == 1


@pytest.mark.parametrize("status", [Status.OK, Status.RESOURCE_EXHAUSTED])
async def test_a_sender_that_waits_learns_of_an_early_end(autojump_clock, status):
    async with channel_to(wire={"stream_window": 1000}) as (channel, network):
        errors = []

        async def send() -> None:
            async with request(channel, "x", Cardinality.STREAM_UNARY) as stream:
                try:
                    while True:
                        await stream.send_message(Message(data=bytes(50_000)))
                except (GRPCError, StreamTerminatedError) as error:
                    errors.append(error)
                    await stream.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            answer = await (await network.accept()).next_call()
            await trio.sleep(1)
            if status is Status.OK:
                await answer.reply()
            await answer.finish(status)
        assert [type(error) for error in errors] == [StreamTerminatedError if status is Status.OK else GRPCError]


async def test_bad_binary_metadata_is_an_error_of_the_call(autojump_clock):
    async with channel_to() as (channel, network), unary(channel) as stream:
        await stream.send_message(Message())
        answer = await (await network.accept()).next_call()
        await answer.headers((b"x-bin", b"?"))
        await answer.answer()
        await stream.recv_message()
        with pytest.raises(GRPCError, match="'x-bin' is not base64"):
            _ = stream.initial_metadata


async def test_interim_responses_are_skipped(autojump_clock):
    async with channel_to() as (channel, network), trio.open_nursery() as nursery:
        nursery.start_soon(call, channel)
        answer = await (await network.accept()).next_call()
        await answer.raw_headers((b":status", b"103"), (b"x", b"y"))
        answer.started = False
        await answer.answer()
