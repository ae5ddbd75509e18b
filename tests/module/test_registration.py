"""A served module stays known to the registry: heartbeats, outages, a registry that forgets, the last word."""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from random import Random

import pytest
import trio

from dk_trio.errors import RegistryModuleNotFoundError, RegistryServiceError
from dk_trio.registration import WITHDRAW_WITHIN, Registration

ID = "modules:calculator"


class Registry:
    """What a registration asks for, in memory; `down` makes every call fail, `hung` makes it wait."""

    def __init__(self) -> None:
        self.known: dict[str, tuple[str, int, str]] = {}
        self.calls: list[tuple[float, str]] = []
        self.down = self.hung = self.cannot_deregister = False
        self.slow = 0.0

    async def _called(self, name: str) -> None:
        self.calls.append((trio.current_time(), name))
        await trio.lowlevel.checkpoint()
        if self.hung:
            await trio.sleep_forever()
        if self.down:
            raise RegistryServiceError("the registry is down")

    async def register(self, module_id: str, address: str, port: int, version: str) -> None:
        await self._called("register")
        self.known[module_id] = (address, port, version)
        await trio.sleep(self.slow)  # it is done, and the answer is on its way

    async def heartbeat(self, module_id: str) -> str:
        await self._called("heartbeat")
        if module_id not in self.known:
            raise RegistryModuleNotFoundError(f"no module {module_id}")
        await trio.sleep(self.slow)
        return "active"

    async def deregister(self, module_id: str) -> bool:
        await self._called("deregister")
        return not self.cannot_deregister and self.known.pop(module_id, None) is not None

    def named(self, name: str) -> list[float]:
        return [moment for moment, call in self.calls if call == name]


@asynccontextmanager
async def kept(
    registry: Registry, *, interval: float = 10.0, connects: Callable[[], Awaitable[None]] = trio.sleep_forever
) -> AsyncIterator[Registration]:
    registration = Registration(
        registry,  # type: ignore[arg-type]  # the three methods that are needed
        module_id=ID,
        address="10.0.0.7",
        port=50055,
        version="1.2",
        interval=interval,
        connects=connects,
        random=Random(7),
    )
    with trio.fail_after(86400):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(registration.run)
            yield registration
            nursery.cancel_scope.cancel()


async def test_it_registers_once_and_then_sends_heartbeats(autojump_clock: trio.testing.MockClock) -> None:
    registry = Registry()
    async with kept(registry) as registration:
        await trio.sleep(100)
        assert registry.known == {ID: ("10.0.0.7", 50055, "1.2")}
        assert len(registry.named("register")) == 1
        beats = registry.named("heartbeat")
        assert 8 <= len(beats) <= 12
        gaps = [after - before for before, after in pairwise(beats)]
        assert all(8 <= gap <= 12 for gap in gaps)
        assert len(set(gaps)) > 1  # servers that start together drift apart
        status = registration.status()
        assert (status.registered, status.trouble, status.heartbeats) == (True, "", len(beats))


async def test_a_registry_that_is_down_at_the_start_is_asked_until_it_is_there(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "dk_trio.registration")
    registry = Registry()
    registry.down = True
    async with kept(registry) as registration:
        await trio.sleep(600)
        tries = len(registry.calls)
        assert 55 <= tries <= 85  # soon at the pace of heartbeats, not of retries
        assert not registration.status().registered
        assert "the registry is down" in registration.status().trouble
        assert "not registered: the registry is down" in repr(registration)
        registry.down = False
        await trio.sleep(12.1)
        assert registration.status().registered
        assert registration.status().trouble == ""
    told = [record.message for record in caplog.records]
    assert told == [
        f"registering {ID} failed, it is tried again: the registry is down",
        f"registered {ID} at 10.0.0.7:50055",
    ]


async def test_the_first_pauses_are_short(autojump_clock: trio.testing.MockClock) -> None:
    registry = Registry()
    registry.down = True
    async with kept(registry):
        await trio.sleep(2)
        assert len(registry.calls) >= 3


async def test_a_connection_is_a_better_reason_than_a_pause(autojump_clock: trio.testing.MockClock) -> None:
    registry = Registry()
    registry.down = True
    connected = trio.Event()
    async with kept(registry, interval=600.0, connects=connected.wait) as registration:
        await trio.sleep(1000)
        asked = len(registry.calls)
        registry.down = False
        connected.set()
        await trio.sleep(1)
        assert registration.status().registered
        assert len(registry.calls) == asked + 1


async def test_a_connection_in_the_moment_after_a_failure_is_not_missed(autojump_clock: trio.testing.MockClock) -> None:
    registry = Registry()
    registry.down = True
    connected = trio.Event()

    async def connects() -> None:
        if connected.is_set():  # it was there before: no news
            await trio.sleep_forever()
        await connected.wait()

    async with kept(registry, interval=600.0, connects=connects) as registration:
        await trio.sleep(1000)
        asked = len(registry.calls)
        while len(registry.calls) == asked:  # noqa: ASYNC110 - in virtual time
            await trio.sleep(0.1)
        registry.down = False
        connected.set()
        await trio.sleep(1)
        assert registration.status().registered


async def test_a_connection_that_does_not_hold_is_no_reason_to_hurry(autojump_clock: trio.testing.MockClock) -> None:
    registry = Registry()
    registry.down = True
    async with kept(registry, connects=trio.lowlevel.checkpoint):
        await trio.sleep(100)
    assert len(registry.calls) <= 100 / 0.4


async def test_a_registry_that_forgets_is_told_again_at_once(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    registry = Registry()
    async with kept(registry) as registration:
        await trio.sleep(25)
        registry.known.clear()  # a provider in memory was restarted
        await trio.sleep(12.1)
        assert ID in registry.known
        again, beats = registry.named("register")[1], registry.named("heartbeat")
        assert again in beats  # the one that was told of it
        assert registration.status().registrations == 2
    assert f"the registry has forgotten {ID}: registering it again" in caplog.text


async def test_an_outage_later_changes_nothing_but_the_log(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "dk_trio.registration")
    registry = Registry()
    async with kept(registry) as registration:
        await trio.sleep(25)
        registry.down = True
        await trio.sleep(600)
        assert registration.status().registered  # as far as anybody knows
        assert registration.status().trouble == "the registry is down"
        registry.down = False
        await trio.sleep(13)
        assert registration.status().trouble == ""
    told = [record.message for record in caplog.records]
    assert told == [
        f"registered {ID} at 10.0.0.7:50055",
        f"heartbeats of {ID} failed, it is tried again: the registry is down",
        f"the registry answers again; {ID} was registered all the time",
    ]


async def test_the_last_word_withdraws(autojump_clock: trio.testing.MockClock) -> None:
    registry = Registry()
    async with kept(registry) as registration:
        await trio.sleep(1)
        await registration.withdraw()
        assert registry.known == {}
        await registration.withdraw()  # nothing is left to say
        assert len(registry.named("deregister")) == 1


async def test_nothing_comes_after_the_last_word(autojump_clock: trio.testing.MockClock) -> None:
    registry = Registry()
    async with kept(registry) as registration:
        await trio.sleep(1)
        await registration.withdraw()
        said = len(registry.calls)
        await trio.sleep(600)  # jobs that drain take their time
        assert registry.known == {}
        assert len(registry.calls) == said


@pytest.mark.parametrize("while_", ["register", "heartbeat"])
async def test_the_last_word_comes_after_what_was_being_said(
    autojump_clock: trio.testing.MockClock, while_: str
) -> None:
    """The registry may have taken it, or take it yet; so it must not be said again, nor answered later."""
    registry = Registry()
    async with kept(registry) as registration:
        if while_ == "heartbeat":
            await trio.sleep(1)
        registry.slow = 0.5
        while not registry.named(while_):  # noqa: ASYNC110 - nobody tells of it
            await trio.sleep(0.1)
        await registration.withdraw()
        await trio.sleep(600)
        assert registry.known == {}
        assert registry.calls[-1][1] == "deregister"
        assert registration.status().trouble == "withdrawn"


async def test_the_last_word_before_the_first(autojump_clock: trio.testing.MockClock) -> None:
    registry = Registry()
    async with kept(registry) as registration:
        await registration.withdraw()
        await trio.sleep(600)
        assert registry.known == {}


async def test_what_was_never_registered_has_no_last_word(autojump_clock: trio.testing.MockClock) -> None:
    registry = Registry()
    registry.down = True
    async with kept(registry) as registration:
        await trio.sleep(1)
        await registration.withdraw()
        assert registry.named("deregister") == []


async def test_the_last_word_to_a_registry_that_hangs_is_bounded(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    registry = Registry()
    async with kept(registry) as registration:
        await trio.sleep(1)
        registry.hung = True
        before = trio.current_time()
        await registration.withdraw()
        assert trio.current_time() - before == pytest.approx(WITHDRAW_WITHIN)
    assert "could not be deregistered within 2 s" in caplog.text


async def test_a_registry_without_the_method_is_left_to_its_leases(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "dk_trio.registration")
    registry = Registry()
    registry.cannot_deregister = True
    async with kept(registry) as registration:
        await trio.sleep(1)
        await registration.withdraw()
    assert f"the registry finds {ID} until its lease has run out" in caplog.text


async def test_it_can_be_cancelled_in_a_call_that_hangs(autojump_clock: trio.testing.MockClock) -> None:
    registry = Registry()
    registry.hung = True
    async with kept(registry):
        await trio.sleep(50)
        assert len(registry.calls) == 1
