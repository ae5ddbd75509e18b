"""Signals in: intervals, held polls, what acts and what does not, and a path that is dead."""

from datetime import timedelta
from typing import Any

import pytest
import trio
from grpclib.const import Status

from dk_trio.signals import RemoteSignals, Signal, SignalAction

from .fake import FakeProvider, exchange_with, request_for, start, stop


async def quiet(seconds: float = 1.0) -> None:
    await trio.sleep(seconds)


def gaps(provider: FakeProvider) -> list[float]:
    """Seconds from the end of each poll to the beginning of the next."""
    return [after.at - before.ended for before, after in zip(provider.polls, provider.polls[1:], strict=False)]


# --- when it asks ------------------------------------------------------------------------------------------------


async def test_without_jobs_there_are_no_polls(autojump_clock: Any) -> None:
    async with exchange_with() as (exchange, provider):
        await quiet(60)
        assert not provider.polls
        with exchange.listen("a", print):
            await quiet(60)
        polls = len(provider.polls)
        assert 30 < polls < 70
        await quiet(60)
        assert len(provider.polls) <= polls + 1


async def test_the_interval_doubles_up_to_the_ceiling_and_begins_again_when_something_came(autojump_clock: Any) -> None:
    async with exchange_with() as (exchange, provider):
        with exchange.listen("a", lambda _: None):
            await quiet(10)
            for gap, base in zip(gaps(provider), (0.1, 0.2, 0.4, 0.8, 1, 1, 1), strict=False):
                assert base <= gap <= base * 1.5 + 0.001
            provider.ask(request_for("a"))
            before = len(provider.polls)
            while provider.pending:  # noqa: ASYNC110  nobody tells of it
                await trio.sleep(0.01)
            await quiet(0.5)
            assert len(provider.polls) >= before + 3
        assert all(poll.ids == ["a"] for poll in provider.polls)


async def test_a_provider_that_does_not_hold_cancels_within_its_interval(autojump_clock: Any) -> None:
    async with exchange_with() as (exchange, provider):
        heard: list[float] = []
        asked: list[float] = []
        for number in range(20):
            with exchange.listen(f"j{number}", lambda _: heard.append(trio.current_time())):
                await quiet(7.7 + number / 10)
                asked.append(trio.current_time())
                provider.ask(request_for(f"j{number}"))
                await quiet(2)
        took = [after - before for before, after in zip(asked, heard, strict=True)]
        assert len(took) == 20
        assert max(took) <= 1.6


async def test_a_provider_that_holds_is_asked_again_at_once(autojump_clock: Any) -> None:
    async with exchange_with(holds=True) as (exchange, provider):
        at: list[float] = []
        with exchange.listen("a", lambda _: at.append(trio.current_time())):
            await quiet(10)
            assert max(gaps(provider)) < 0.001
            assert len(provider.polls) == 12
            asked = trio.current_time()
            provider.ask(request_for("a"))
            await quiet(0.5)
            assert at == [pytest.approx(asked, abs=0.001)]


async def test_a_cancel_of_another_connection_is_not_hidden_by_the_cursor(autojump_clock: Any) -> None:
    """A provider that has lost its numbers begins with 1 again."""
    async with exchange_with(holds=True, forgets=False) as (exchange, provider):
        heard: list[str] = []
        with exchange.listen("a", lambda signal: heard.append(signal.payload["n"])):
            for number in range(5):
                provider.ask(request_for("a", n=number))
                await quiet(0.2)
            await provider.restart()
            provider.ask(request_for("a", n=5))
            await quiet(5)
        assert heard == [0, 1, 2, 3, 4, 5]


async def test_a_cancel_of_a_fresh_job_is_not_hidden_by_the_cursor(autojump_clock: Any) -> None:
    async with exchange_with(holds=True, forgets=False) as (exchange, provider):
        heard: list[str] = []
        with exchange.listen("a", lambda signal: heard.append(signal.task_id)):
            await quiet(2)
            provider.ask(request_for("b"))
            provider.ask(request_for("a"))
            await quiet(1)
            with exchange.listen("b", lambda signal: heard.append(signal.task_id)):
                await quiet(1)
        assert heard == ["a", "b"]
        assert provider.polls[-1].after == "2"


async def test_what_is_told_again_until_it_is_answered_is_not_asked_for_without_a_pause(autojump_clock: Any) -> None:
    async with exchange_with(holds=True, forgets=False) as (exchange, provider):
        with exchange.listen("a", lambda _: None):
            provider.ask(request_for("a"))
            await quiet(10)
            assert len(provider.polls) < 16
            assert exchange.statistics().inbound.received == 1


async def test_a_provider_that_only_claims_to_hold_is_not_asked_without_a_pause(autojump_clock: Any) -> None:
    async with exchange_with(holds=True, poll_timeout=1) as (exchange, provider):
        original = provider._found
        provider._found = lambda ids, after: original(ids, after) or [(1, request_for("nobody"))]
        with exchange.listen("a", print):
            await quiet(60)
        assert len(provider.polls) < 100


# --- what it does with them --------------------------------------------------------------------------------------


async def test_a_signal_acts_once_and_clocks_do_not_matter(autojump_clock: Any) -> None:
    async with exchange_with(forgets=False) as (exchange, provider):
        heard: list[Signal] = []
        with exchange.listen("a", heard.append):
            late, early = request_for("a", "start"), request_for("a", "cancel")
            early.created_at = late.created_at - timedelta(days=400)
            same = request_for("a", "stop")
            same.created_at = late.created_at
            provider.ask(late)
            await quiet()
            provider.ask(early, same)
            await quiet(20)
        assert [signal.action.value for signal in heard] == ["start", "cancel", "stop"]
        assert exchange.statistics().inbound.repeated > 10


async def test_what_a_job_has_said_comes_back_and_does_nothing(autojump_clock: Any) -> None:
    async with exchange_with(echoes=True) as (exchange, _):
        stopped: list[Signal] = []

        def on_signal(signal: Signal) -> None:
            if signal.action in {"cancel", "stop"}:
                stopped.append(signal)

        with exchange.listen("a", on_signal):
            exchange.publish(start("a"))
            await quiet(3)
        exchange.publish(stop("a"))  # as a session does: it has ended by then
        with exchange.listen("b", print):
            await quiet(3)
        assert not stopped
        assert exchange.statistics().inbound.strays == 0


async def test_signals_to_others_and_of_unknown_kinds_are_counted(autojump_clock: Any) -> None:
    async with exchange_with() as (exchange, provider):
        heard: list[Signal] = []
        provider._found = lambda ids, after: [(1, request_for("b")), (2, request_for("a", "dance"))]
        with exchange.listen("a", heard.append):
            await quiet(0.05)
        assert not heard
        assert exchange.statistics().inbound.strays == 2


async def test_cancel_and_stop_go_first(autojump_clock: Any) -> None:
    async with exchange_with() as (exchange, provider):
        heard: list[tuple[str, str]] = []
        with (
            exchange.listen("a", lambda signal: heard.append((signal.task_id, signal.action.value))),
            exchange.listen("b", lambda signal: heard.append((signal.task_id, signal.action.value))),
        ):
            await quiet(0.05)
            asked = [request_for("a", "start"), request_for("a", "ack_stop"), request_for("b", "cancel")]
            provider.ask(*asked, request_for("a", "stop"))
            await quiet(1)
        assert heard == [("b", "cancel"), ("a", "stop"), ("a", "start"), ("a", "ack_stop")]


async def test_a_handler_that_fails_harms_no_other(autojump_clock: Any, caplog: Any) -> None:
    async with exchange_with() as (exchange, provider):
        heard: list[Signal] = []

        def fail(_: Signal) -> None:
            raise RuntimeError("mine")

        with exchange.listen("a", fail), exchange.listen("b", heard.append):
            provider.ask(request_for("a"), request_for("b"))
            await quiet(2)
            provider.ask(request_for("b", "stop"))
            await quiet(2)
        assert len(heard) == 2
    assert "the handler of signals of job a failed at cancel" in caplog.text


async def test_what_a_payload_may_be(autojump_clock: Any) -> None:
    from dk_trio.pb.google.protobuf import Struct

    async with exchange_with() as (exchange, provider):
        heard: list[Signal] = []
        with exchange.listen("a", heard.append):
            broken = request_for("a", "cancel")
            broken.payload = Struct()
            broken.payload._members, broken.payload._raw = None, b"\x0a\x05\x0a\x01x\x12\x63"
            provider.ask(broken)
            provider.ask(request_for("a", "stop", deep={"x": [1, None]}))
            await quiet(2)
        assert [(signal.action.value, signal.payload) for signal in heard] == [
            ("cancel", {}),
            ("stop", {"deep": {"x": [1, None]}}),
        ]


async def test_ten_thousand_jobs(autojump_clock: Any) -> None:
    async with exchange_with(holds=True) as (exchange, provider):
        heard: list[str] = []
        jobs = [f"job-{number:05}" for number in range(10_000)]
        listening = [exchange.listen(job, lambda signal: heard.append(signal.task_id)) for job in jobs]
        for one in listening:
            one.__enter__()
        await quiet(3)
        asked = trio.current_time()
        provider.ask(*[request_for(job) for job in jobs])
        while len(heard) < 10_000:  # noqa: ASYNC110
            await trio.sleep(0.001)
        assert trio.current_time() - asked < 1
        assert sorted(heard) == jobs
        assert len(provider.polls) < 10
        for one in listening:
            one.__exit__(None, None, None)
        assert exchange.statistics().inbound.listening == 0
        assert not exchange._inbox._jobs


async def test_signals_of_this_process_need_no_provider(autojump_clock: Any) -> None:
    async with exchange_with(up=False) as (exchange, _):
        heard: list[Signal] = []
        signal = Signal(task_id="a", action=SignalAction.CANCEL)
        with exchange.listen("a", heard.append), exchange.subscribe("a") as stream:
            assert exchange.send(signal)
            assert await stream.receive() == signal
            with pytest.raises(ValueError, match="job a is being listened for"), exchange.listen("a", print):
                pass
        assert heard == [signal]
        assert not exchange.send(signal)


# --- subscriptions -----------------------------------------------------------------------------------------------


async def test_a_subscription_gets_what_comes_and_ends_with_its_block(autojump_clock: Any) -> None:
    async with exchange_with() as (exchange, provider):
        heard: list[str] = []

        async def take(stream: Any) -> None:
            heard.extend([signal.action.value async for signal in stream] + ["end"])

        async with trio.open_nursery() as nursery:
            with exchange.subscribe("a") as stream:
                nursery.start_soon(take, stream)
                provider.ask(request_for("a", "ack_stop"), request_for("a", "cancel"))
                await quiet(2)
        assert heard == ["cancel", "ack_stop", "end"]


async def test_a_slow_subscriber_loses_the_newest_but_no_cancel(autojump_clock: Any, caplog: Any) -> None:
    async with exchange_with(queue_size=4) as (exchange, _):
        with exchange.subscribe("a") as stream:
            for number in range(10):
                exchange.send(Signal(task_id="a", action=SignalAction.ACK_STOP, payload={"n": number}))
            exchange.send(Signal(task_id="a", action=SignalAction.CANCEL))
            exchange.send(Signal(task_id="a", action=SignalAction.STOP))
            assert repr(stream) == "<Subscription to a, 4 of 4, 8 dropped>"
        assert [signal.payload.get("n", signal.action.value) async for signal in stream] == [2, 3, "cancel", "stop"]
        assert (stream.dropped, exchange.statistics().inbound.dropped) == (8, 8)
    assert caplog.text.count("signals to job a are dropped") == 1


async def test_a_queue_full_of_cancels_is_bounded(autojump_clock: Any) -> None:
    async with exchange_with(queue_size=3) as (exchange, _):
        with exchange.subscribe("a") as stream:
            for number in range(10):
                exchange.send(Signal(task_id="a", action=SignalAction.CANCEL, payload={"n": number}))
            exchange.send(Signal(task_id="a", action=SignalAction.STOP))
            exchange.send(Signal(task_id="a", action=SignalAction.STOP, payload={"n": 1}))
        assert [signal.action.value async for signal in stream] == ["cancel", "cancel", "cancel", "stop"]


# --- a path that is dead -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["gone", Status.UNAVAILABLE, Status.UNIMPLEMENTED, Status.INTERNAL, "hang"])
async def test_a_dead_path_is_told_once_and_so_is_its_end(autojump_clock: Any, how: Any, caplog: Any) -> None:
    async with exchange_with() as (exchange, provider):
        heard: list[Signal] = []
        with exchange.listen("a", heard.append):
            await quiet(10)
            assert exchange.health().inbound.ok
            if how == "gone":
                await provider.down()
            else:
                provider.poll = how
            await quiet(4)
            assert exchange.health().inbound.ok
            await quiet(60)
            health = exchange.health().inbound
            assert not health.ok
            assert health.since < trio.current_time() - 50
            assert exchange.statistics().inbound.outages == 1
            provider.up, provider.poll = True, None
            provider.ask(request_for("a"))
            await quiet(15)
            assert heard
            assert exchange.health().inbound.ok
    told = [(record.levelname, record.message) for record in caplog.records if record.name == "dk_trio.signals"]
    assert [level for level, _ in told] == ["WARNING", "INFO"]
    assert "no signals come in" in told[0][1]
    assert "come in again" in told[1][1]


@pytest.mark.parametrize(("behaves", "poll_timeout"), [("hang", 1.0), (0.3, 0.2)])
async def test_a_provider_that_lets_deadlines_pass_is_not_dead(
    autojump_clock: Any, behaves: Any, poll_timeout: float, caplog: Any
) -> None:
    """It may have nothing to say. Or it is too slow for the timeout, which nobody would notice: so that is told."""
    async with exchange_with(poll=behaves, poll_timeout=poll_timeout) as (exchange, _):
        with exchange.listen("a", print):
            await quiet(25)
            assert not caplog.records
            await quiet(100)
            assert exchange.health().inbound.ok
            assert exchange.statistics().inbound.failed_polls == 0
    (told,) = [record.message for record in caplog.records]
    assert f" polls within {poll_timeout:g} s: if jobs cannot be cancelled by it, raise DIGITALKIN_POLL_TIMEOUT" in told


async def test_a_provider_that_answered_once_may_let_deadlines_pass(autojump_clock: Any, caplog: Any) -> None:
    async with exchange_with(poll="hang", poll_plan=[None]) as (exchange, provider):
        with exchange.listen("a", print):
            provider.ask(request_for("a"))
            await quiet(200)
    assert not caplog.records


async def test_a_hung_connection_is_dead(autojump_clock: Any) -> None:
    async with exchange_with(up=False) as (exchange, provider):
        provider.connect = trio.sleep_forever
        with exchange.listen("a", print):
            await quiet(30)
            assert not exchange.health().inbound.ok


async def test_polls_go_on_soon_after_a_provider_is_back(autojump_clock: Any) -> None:
    from dk_trio import rpc

    quick = {"reconnect": rpc.BackoffPolicy(initial=0.1, maximum=0.1, minimum=0.05)}
    async with exchange_with(holds=True, channel=quick) as (exchange, provider):
        at: list[float] = []
        with exchange.listen("a", lambda _: at.append(trio.current_time())):
            await quiet(2)
            await provider.down()
            await quiet(60)
            provider.ask(request_for("a"))
            provider.up = True
            back = trio.current_time()
            await quiet(3)
        assert at[0] - back < 0.4


async def test_the_exchange_ends_while_a_poll_is_held(autojump_clock: Any) -> None:
    async with exchange_with(poll="hang", poll_timeout=50) as (exchange, provider):
        with exchange.listen("a", print):
            await quiet(1)
            began = trio.current_time()
    assert trio.current_time() - began < 0.1
    assert isinstance(exchange, RemoteSignals)
    assert provider.polls
