"""The transport's back-pressure: who waits for room is woken as far as it goes, and nobody is forgotten."""

from typing import Any

import trio
import trio.testing

from dk_trio.rpc.transport import Transport
from dk_trio.wire import HIGH_WATER

DAY = 86_400


class Queue:
    """As much of a connection as the writer knows."""

    def __init__(self) -> None:
        self.out: list[bytes] = []

    def take(self) -> bytes:
        data = b"".join(self.out)
        self.out.clear()
        return data


async def test_room_wakes_those_who_fit_in_their_order(autojump_clock: object) -> None:
    ours, _ = trio.testing.memory_stream_pair()
    connection: Any = Queue()
    transport = Transport(ours, connection)
    woken: list[int] = []

    async def wait(number: int) -> None:
        await transport.drained(HIGH_WATER // 3)
        woken.append(number)

    with trio.fail_after(DAY):
        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(wait, number)
                await trio.testing.wait_all_tasks_blocked()
            transport.release(HIGH_WATER)
            await trio.testing.wait_all_tasks_blocked()
            assert sorted(woken) == [0, 1, 2]
            transport.release()
        assert sorted(woken) == list(range(10))


async def test_the_writer_forgets_nobody_who_waits(autojump_clock: object) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    connection: Any = Queue()
    transport = Transport(ours, connection)
    woken: list[int] = []

    async def wait(number: int) -> None:
        await transport.drained(HIGH_WATER)
        woken.append(number)  # and sends nothing: its call has ended meanwhile

    with trio.fail_after(DAY):
        async with trio.open_nursery() as nursery:
            connection.out.append(b"x")
            for number in range(10):
                nursery.start_soon(wait, number)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(transport.write)
            await trio.testing.wait_all_tasks_blocked()
            assert sorted(woken) == list(range(10))
            assert await theirs.receive_some() == b"x"
            transport.finish()
