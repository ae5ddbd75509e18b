"""The cache of setups under everything at once, from a seed: callers that leave, failures, puts, expiry, an early end.

What must hold whatever happens: every call ends; never two fetches of one setup at once; never more entries than there
is room for; and no answer is older than the last `put` or `forget` before the call.
"""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
import trio

from dk_trio.errors import DkTrioError, SetupNotFoundError, SetupUnavailableError
from dk_trio.services.setup import SetupVersion, bare
from dk_trio.services.setup_cache import SetupCache

from .setup_sources import DAY, version

IDS = ("a", "b", "c", "d", "e")
CALLERS = 40
CALLS = 25
FETCH_TIMEOUT = 3.0


class Unsteady:
    """A source that reads the truth when it is asked, and answers late, wrongly or not at all."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.truth = Counter(dict.fromkeys(IDS, 1))
        self.running: Counter[str] = Counter()
        self.most_at_once = 0
        self.asked = 0

    async def get_setup(self, setup_id: str, mission_id: str) -> SetupVersion:
        self.running[setup_id] += 1
        self.most_at_once = max(self.most_at_once, self.running[setup_id])  # raised here, an error would be an answer
        self.asked += 1
        name = str(self.truth[setup_id])
        fate = self.random.random()
        try:
            if fate < 0.1:
                await trio.sleep_forever()
            if fate < 0.3:  # does not stop when it is cancelled, and answers all the same
                with trio.CancelScope(shield=True):
                    await trio.sleep(self.random.random())
                return version(setup_id, name)
            await trio.sleep(self.random.expovariate(2))
            if fate < 0.4:
                raise SetupNotFoundError("Not found.")
            if fate < 0.5:
                raise OSError("down")
            return version(setup_id, name)
        finally:
            self.running[setup_id] -= 1


@pytest.mark.parametrize("seed", range(12))
async def test_storm(autojump_clock: object, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    random = Random(seed)
    monkeypatch.setattr("trio._core._run._ALLOW_DETERMINISTIC_SCHEDULING", True)
    monkeypatch.setattr("trio._core._run._r", Random(seed))
    source = Unsteady(random)
    max_entries = random.choice([0, 1, 3, 10])
    cache = SetupCache(source, max_entries=max_entries, ttl=random.choice([0.5, 5, 600]), fetch_timeout=FETCH_TIMEOUT)
    outcomes: Counter[str] = Counter()
    errors: list[DkTrioError] = []  # all kept, so that ids are not used again
    floor = source.truth.copy()  # the oldest revision that a call which starts now may get

    async def call() -> str:
        setup_id = random.choice(IDS)
        oldest = floor[setup_id]
        with trio.move_on_after(random.choice([0, 0.2, 1, 100])) as patience:
            try:
                got = await cache.get_setup(setup_id, "m")
            except (SetupNotFoundError, SetupUnavailableError) as error:
                errors.append(error)
                return type(error).__name__
            except RuntimeError as error:
                assert "not open" in str(error)
                return "closed"
            assert bare(got.setup_id) == setup_id
            assert oldest <= int(got.id) <= source.truth[setup_id]
            return "answered"
        assert patience.cancelled_caught
        return "left"

    async def caller() -> None:
        for _ in range(CALLS):
            await trio.sleep(random.expovariate(1))
            began = trio.current_time()
            outcomes[await call()] += 1
            # The fetch under way, one more that was forgotten before its end, and what each source takes to stop.
            assert trio.current_time() - began <= 2 * (FETCH_TIMEOUT + 1)
            assert cache.statistics().entries <= max_entries

    async def change() -> None:
        while True:
            await trio.sleep(random.expovariate(1))
            setup_id = random.choice(IDS)
            source.truth[setup_id] += 1
            floor[setup_id] = source.truth[setup_id]
            if random.random() < 0.5:
                cache.put(version(f"setups:{setup_id}", str(source.truth[setup_id])))
                assert cache.statistics().entries <= max_entries
            else:
                cache.forget(setup_id)

    with trio.fail_after(DAY):
        async with trio.open_nursery() as callers, cache.opened():
            for _ in range(CALLERS):
                callers.start_soon(caller)
            with trio.move_on_after(random.choice([2, 10, 30, 200])):
                await change()
    statistics = cache.statistics()
    assert sum(outcomes.values()) == CALLERS * CALLS
    assert (statistics.entries, statistics.in_flight) == (0, 0)
    assert statistics.fetches == source.asked
    assert source.most_at_once == 1
    assert not source.running.total()
    assert len({id(error) for error in errors}) == len(errors), "one exception was raised in several tasks"
    assert outcomes["answered"] > 10
    assert outcomes["left"] > 0
    assert outcomes["SetupUnavailableError"] > 0
