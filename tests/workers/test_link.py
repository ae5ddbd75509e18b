"""A worker's side, over real sockets within this process: what it is handed, what it says, what it obeys."""

import os
import signal
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import trio

from dk_trio.siblings import Replies
from dk_trio.workers import Post
from dk_trio.workers._control import Control
from dk_trio.workers._handover import HandedListener, hand
from dk_trio.workers.link import WorkerLink

PATIENCE = 30.0


@dataclass
class Parent:
    """The other end of a worker's sockets."""

    link: WorkerLink
    line: Control
    channel: socket.socket
    stream: trio.SocketStream
    heard: list[dict[str, Any]] = field(default_factory=list)
    changed: trio.Event = field(default_factory=trio.Event)

    def hear(self, message: dict[str, Any]) -> None:
        self.heard.append(message)
        self.changed.set()
        self.changed = trio.Event()

    async def until_heard(self, **expected: Any) -> dict[str, Any]:
        with trio.fail_after(PATIENCE):
            while True:
                for message in self.heard:
                    if expected.items() <= message.items():
                        return message
                await self.changed.wait()


def posted() -> tuple[Post, socket.socket, socket.socket]:
    """A post, and the parent's ends of its sockets."""
    (line, control), (channel, handover) = socket.socketpair(), socket.socketpair()
    channel.setblocking(False)
    post = Post(number=1, control=control.detach(), handover=handover.detach(), host="127.0.0.1", port=1)
    return post, line, channel


@asynccontextmanager
async def linked(answer: Mapping[str, Any] | None = None) -> AsyncIterator[Parent]:
    post, line, channel = posted()
    link = WorkerLink(post)
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(line))
    parent = Parent(link, Control(stream), channel, stream)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(parent.line.run, parent.hear)
        async with link.opened(rpcs=lambda: 3, answer=lambda question: {**question, **(answer or {})}):
            yield parent
        nursery.cancel_scope.cancel()
    link.close()
    channel.close()
    await stream.aclose()


async def connection() -> tuple[trio.SocketStream, trio.SocketStream]:
    """Both ends of a TCP connection."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        client = await trio.open_tcp_stream(*listener.socket.getsockname()[:2])
        return client, await listener.accept()


async def test_a_connection_that_is_handed_over_works_and_is_counted_until_it_is_closed() -> None:
    async with linked() as parent:
        client, accepted = await connection()
        async with client:
            await client.send_all(b"before")
            assert hand(parent.channel, accepted)
            served = await parent.link.listener.accept()
            await parent.until_heard(do="load", taken=1, connections=1, rpcs=3, closed=False)
            await accepted.aclose()  # the parent's own end: the connection goes on
            assert await served.receive_some() == b"before"
            await served.send_all(b"after")
            assert await client.receive_some() == b"after"
            assert not os.get_inheritable(served.transport_stream.socket.fileno())  # type: ignore[attr-defined]
            await served.aclose()
            await served.aclose()
            await parent.until_heard(do="load", taken=1, connections=0)
            assert await client.receive_some() == b""
        await parent.link.listener.aclose()
        await parent.until_heard(do="load", closed=True)
        with pytest.raises(trio.ClosedResourceError):
            await parent.link.listener.accept()


async def test_many_connections_keep_their_order() -> None:
    async with linked() as parent:
        pairs = [await connection() for _ in range(20)]
        for client, accepted in pairs:
            await client.send_all(str(client.socket.getsockname()[1]).encode())
            assert hand(parent.channel, accepted)
            accepted.socket.close()
        for client, _ in pairs:
            async with client, await parent.link.listener.accept() as served:
                assert int(await served.receive_some()) == client.socket.getsockname()[1]


async def test_a_connection_without_its_descriptor_is_reported_as_lost(caplog: pytest.LogCaptureFixture) -> None:
    """As Linux delivers it to a process that has no descriptor left."""
    async with linked() as parent:
        parent.channel.send(b".")
        client, accepted = await connection()
        hand(parent.channel, accepted)
        async with client, accepted, await parent.link.listener.accept():
            await parent.until_heard(do="load", taken=0, lost=1)
            await parent.until_heard(do="load", taken=1, lost=1)
    assert caplog.text.count("ulimit -n") == 1


async def test_a_parent_that_hands_nothing_any_more_is_no_error_of_the_listener() -> None:
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    ours.close()
    listener = HandedListener(theirs, lambda: None)
    with trio.move_on_after(0.05) as scope:
        await listener.accept()
    assert scope.cancelled_caught
    await listener.aclose()


async def test_the_first_order_drains_and_only_the_parent_hastens() -> None:
    async with linked() as parent:
        got: list[int] = []

        async def obey() -> None:
            while True:
                got.append(await anext(parent.link.orders))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(obey)
            for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGTERM):
                signal.raise_signal(number)
                await trio.sleep(0.01)
            parent.line.offer({"do": "drain", "all": True})
            parent.line.offer({"do": "ask", "id": 1, "question": {}})
            await parent.until_heard(do="answer", id=1)
            assert got == [signal.SIGINT]
            assert not parent.link.others_stay()
            parent.line.offer({"do": "hasten"})
            parent.line.offer({"do": "ask", "id": 2, "question": {}})
            await parent.until_heard(do="answer", id=2)
            assert got == [signal.SIGINT, signal.SIGTERM]
            nursery.cancel_scope.cancel()


async def test_a_worker_that_is_told_to_go_alone_leaves_the_registry_alone() -> None:
    async with linked() as parent:
        parent.line.offer({"do": "drain", "all": False})
        with trio.fail_after(PATIENCE):
            assert await anext(parent.link.orders) == signal.SIGTERM
        assert parent.link.others_stay()


async def test_a_parent_that_dies_is_an_order_to_drain(caplog: pytest.LogCaptureFixture) -> None:
    async with linked() as parent:
        await parent.stream.aclose()
        with trio.fail_after(PATIENCE):
            assert await anext(parent.link.orders) == signal.SIGTERM
        assert not parent.link.others_stay()
        assert (await parent.link.ask({"do": "list"})).silent
    assert "the parent process has ended" in caplog.text


async def test_questions_go_out_and_come_in() -> None:
    async with linked({"found": True}) as parent:
        parent.line.offer({"do": "ask", "id": 9, "question": {"job": "a"}})
        heard = await parent.until_heard(do="answer", id=9)
        assert heard["answer"] == {"job": "a", "found": True}

        got: list[Replies] = []

        async def ask() -> None:
            got.append(await parent.link.ask({"job": "b"}))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            number = (await parent.until_heard(do="ask", question={"job": "b"}))["id"]
            parent.line.offer({"do": "answer", "id": number, "answer": {"status": 1}})
            parent.line.offer({"do": "answer", "id": 12345, "answer": {"status": 2}})
            parent.line.offer({"do": "end", "id": number, "silent": 1})
        assert got == [Replies(answers=[{"status": 1}], silent=1)]


async def test_last_words_arrive_also_when_the_process_ends_at_once() -> None:
    async with linked() as parent:
        parent.link.drained(finished=3, cut=1)
        parent.link.failed("why")
        await parent.until_heard(do="drained", finished=3, cut=1)
        await parent.until_heard(do="failed", text="why")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "5",
        "{}",
        '{"number":0,"control":0,"handover":0,"host":"h","port":1}',
        '{"number":0,"control":12345,"handover":12345,"host":"h","port":1}',
    ],
)
def test_a_post_that_no_parent_has_given_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no post of a worker"):
        Post.parse(text)


def test_a_post_survives_its_command_line() -> None:
    post, line, channel = posted()
    with line, channel, socket.socket(fileno=post.control), socket.socket(fileno=post.handover):
        assert Post.parse(str(post)) == post
