"""The base classes of generated stubs and services, over a channel that only records."""

from __future__ import annotations

import gc

import pytest
import trio
from grpclib import GRPCError
from grpclib.const import Cardinality, Status
from tests._pb.dk_trio.test.v1 import EchoBase, EchoStub, Message

from dk_trio.pb._service import ResponseIterator, ServiceBase, ServiceStub


class FakeStream:
    """A client stream with canned answers."""

    def __init__(self, answers=(), ends_with: GRPCError | None = None) -> None:
        self.answers = list(answers)
        self.ends_with = ends_with
        self.log: list = []
        self.abandoned = 0

    async def __aenter__(self):
        self.log.append("enter")
        return self

    async def __aexit__(self, kind, error, traceback) -> None:
        self.log.append(f"exit {kind.__name__ if kind else None}")
        if error is None and self.ends_with is not None:
            raise self.ends_with

    async def send_request(self) -> None:
        self.log.append("send_request")

    async def send_message(self, message, *, end: bool = False) -> None:
        self.log.append((message.text, end))

    def feed(self, messages) -> None:
        self.log.append(("feed", messages))

    async def recv_message(self):
        await trio.lowlevel.checkpoint()
        if not self.answers:
            return None
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def abandon(self) -> None:
        self.abandoned += 1


class FakeChannel:
    def __init__(self, stream: FakeStream) -> None:
        self.stream = stream
        self.calls: list = []

    def request(self, route, cardinality, request_type, response_type, *, timeout, deadline, metadata):
        assert request_type is Message
        assert response_type is Message
        self.calls.append((route.rpartition("/")[2], cardinality, timeout, deadline, metadata))
        return self.stream


def stub(*answers, ends_with=None, **options) -> tuple[EchoStub, FakeStream, FakeChannel]:
    stream = FakeStream(answers, ends_with)
    channel = FakeChannel(stream)
    return EchoStub(channel, **options), stream, channel


async def test_unary() -> None:
    echo, stream, channel = stub(Message(text="b"))
    assert await echo.unary(Message(text="a"), timeout=3) == Message(text="b")
    assert stream.log == ["enter", ("a", True), "exit None"]
    assert channel.calls == [("Unary", Cardinality.UNARY_UNARY, 3, None, None)]


async def test_the_defaults_of_a_stub_yield_to_the_arguments_of_a_call() -> None:
    echo, _, channel = stub(Message(), Message(), timeout=1.0, deadline="d", metadata={"a": "b"})
    await echo.unary(Message())
    await echo.unary(Message(), timeout=2.0, metadata={})
    assert channel.calls == [
        ("Unary", Cardinality.UNARY_UNARY, 1.0, "d", {"a": "b"}),
        ("Unary", Cardinality.UNARY_UNARY, 2.0, "d", {}),
    ]


async def test_an_error_status_without_a_response_is_raised() -> None:
    echo, _, _ = stub(ends_with=GRPCError(Status.NOT_FOUND, "none"))
    with pytest.raises(GRPCError, match="none"):
        await echo.unary(Message())


async def test_client_stream_is_fed_by_the_channel() -> None:
    echo, stream, _ = stub(Message(n=2))
    messages = [Message(), Message()]
    assert (await echo.client_stream(messages)).n == 2
    assert stream.log == ["enter", "send_request", ("feed", messages), "exit None"]


async def test_server_stream_to_its_end() -> None:
    echo, stream, _ = stub(Message(n=0), Message(n=1))
    assert [message.n async for message in echo.server_stream(Message(text="a"))] == [0, 1]
    assert stream.log == ["enter", ("a", True), "exit None"]
    assert stream.abandoned == 0


async def test_the_call_begins_with_the_first_response_asked_for() -> None:
    echo, stream, channel = stub()
    responses = echo.server_stream(Message())
    assert channel.calls == []
    assert stream.log == []
    await responses.aclose()
    assert stream.log == []


async def test_an_error_status_ends_the_iteration() -> None:
    echo, stream, _ = stub(Message(n=0), ends_with=GRPCError(Status.ABORTED, "broken"))
    responses = echo.server_stream(Message())
    assert (await anext(responses)).n == 0
    with pytest.raises(GRPCError, match="broken"):
        await anext(responses)
    assert stream.abandoned == 0


async def test_leaving_a_closed_iteration_cancels_the_call_at_once() -> None:
    echo, stream, _ = stub(Message(), Message(), Message())
    async with aclosing_responses(echo) as responses:
        async for _ in responses:
            break
    assert stream.abandoned == 1


def aclosing_responses(echo):
    from contextlib import aclosing

    return aclosing(echo.server_stream(Message()))


async def test_bidi_is_fed_and_dropped_alike() -> None:
    echo, stream, channel = stub(Message(n=0), Message(n=1))

    async def messages():
        yield Message()

    source = messages()
    responses = echo.bidi(source)
    assert (await anext(responses)).n == 0
    assert channel.calls[0][1] is Cardinality.STREAM_STREAM
    assert stream.log == ["enter", "send_request", ("feed", source)]
    await responses.aclose()
    assert stream.abandoned == 1
    await source.aclose()


async def test_a_dropped_iterator_cancels_its_call() -> None:
    stream = FakeStream([Message(), Message()])

    async def start(_) -> None: ...

    responses = ResponseIterator(stream, start)
    await anext(responses)
    assert "open" in repr(responses)
    del responses
    gc.collect()
    assert stream.abandoned == 1


async def test_closing_twice_and_after_the_end_does_nothing() -> None:
    stream = FakeStream([Message()])

    async def start(_) -> None: ...

    responses = ResponseIterator(stream, start)
    assert [1 async for _ in responses] == [1]
    await responses.aclose()
    await responses.aclose()
    del responses
    assert stream.abandoned == 0


async def test_a_cancel_while_waiting_reaches_the_call() -> None:
    class Silent(FakeStream):
        async def recv_message(self):
            await trio.sleep_forever()

    stream = Silent()
    echo = EchoStub(FakeChannel(stream))
    with trio.move_on_after(0):
        async for _ in echo.server_stream(Message()):
            pass
    assert stream.log[-1] == "exit Cancelled"
    assert stream.abandoned == 0


async def test_failing_to_connect_leaves_nothing_behind() -> None:
    class Refusing(FakeStream):
        async def __aenter__(self):
            raise GRPCError(Status.UNAVAILABLE, "nobody there")

    stream = Refusing()
    with pytest.raises(GRPCError, match="nobody there"):
        async for _ in EchoStub(FakeChannel(stream)).server_stream(Message()):
            pass
    assert stream.abandoned == 0


async def test_failing_to_send_the_request_leaves_the_call() -> None:
    class Deaf(FakeStream):
        async def send_message(self, message, *, end: bool = False) -> None:
            raise GRPCError(Status.UNAVAILABLE, "gone")

    stream = Deaf()
    with pytest.raises(GRPCError, match="gone"):
        async for _ in EchoStub(FakeChannel(stream)).server_stream(Message()):
            pass
    assert stream.log == ["enter", "exit GRPCError"]


class FakeServerStream:
    def __init__(self, *requests) -> None:
        self.requests = list(requests)
        self.sent: list = []

    async def recv_message(self):
        return self.requests.pop(0) if self.requests else None

    async def send_message(self, message) -> None:
        await trio.lowlevel.checkpoint()
        self.sent.append(message.n)

    def __aiter__(self):
        return self

    async def __anext__(self):
        message = await self.recv_message()
        if message is None:
            raise StopAsyncIteration
        return message


def handler(service: EchoBase, name: str):
    return service.__mapping__()[f"/dk_trio.test.v1.Echo/{name}"].func


async def test_the_author_is_closed_inside_of_a_cancelled_call() -> None:
    seen = []

    class Echo(EchoBase):
        async def server_stream(self, message):
            try:
                yield Message(n=1)
                await trio.sleep_forever()
            finally:
                seen.append(trio.lowlevel.current_task().name)

    stream = FakeServerStream(Message())
    with trio.move_on_after(0.01):
        await handler(Echo(), "ServerStream")(stream)
    assert stream.sent == [1]
    assert len(seen) == 1


async def test_the_author_is_closed_when_sending_fails() -> None:
    closed = []

    class Echo(EchoBase):
        async def server_stream(self, message):
            try:
                while True:
                    yield Message()
            finally:
                closed.append(True)

    class Broken(FakeServerStream):
        async def send_message(self, message) -> None:
            raise trio.BrokenResourceError

    with pytest.raises(trio.BrokenResourceError):
        await handler(Echo(), "ServerStream")(Broken(Message()))
    assert closed == [True]


async def test_bidi_handlers_get_an_iterator() -> None:
    class Echo(EchoBase):
        async def bidi(self, messages):
            async for message in messages:
                yield Message(n=message.n + 1)

    stream = FakeServerStream(Message(n=1), Message(n=2))
    await handler(Echo(), "Bidi")(stream)
    assert stream.sent == [2, 3]


async def test_a_handler_without_yield_runs() -> None:
    class Silent(EchoBase):
        async def server_stream(self, message):
            raise GRPCError(Status.NOT_FOUND, "ran")

    with pytest.raises(GRPCError, match="ran"):
        await handler(Silent(), "ServerStream")(FakeServerStream(Message()))

    class Empty(EchoBase):
        async def server_stream(self, message):
            return None

    stream = FakeServerStream(Message())
    await handler(Empty(), "ServerStream")(stream)
    assert stream.sent == []


async def test_a_handler_may_return_an_iterator_of_its_own() -> None:
    class Listed(EchoBase):
        def server_stream(self, message):
            return FakeServerStream(Message(n=4), Message(n=5))

    stream = FakeServerStream(Message())
    await handler(Listed(), "ServerStream")(stream)
    assert stream.sent == [4, 5]


async def test_what_is_not_implemented_says_so() -> None:
    for name in ("Unary", "ServerStream", "ClientStream", "Bidi"):
        with pytest.raises(GRPCError) as caught:
            await handler(EchoBase(), name)(FakeServerStream(Message()))
        assert caught.value.status is Status.UNIMPLEMENTED


async def test_as_mixins_in_front_of_stock_classes() -> None:
    class StockStub:
        async def server_stream(self, message):
            async for response in self._unary_stream("/dk_trio.test.v1.Echo/ServerStream", message, Message):
                yield response

        def _unary_stream(self, *_):
            raise AssertionError("not replaced")

    class Stub(ServiceStub, StockStub):
        pass

    assert [m.n async for m in Stub(FakeChannel(FakeStream([Message(n=3)]))).server_stream(Message())] == [3]
    assert issubclass(EchoBase, ServiceBase)
