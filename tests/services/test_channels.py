"""Channels that calls share: one for each target, as long as it is used and a while longer."""

import pytest
import trio
import trio.testing

from dk_trio import rpc
from dk_trio.services.channels import ChannelCache
from dk_trio.services.registry import target_of

DAY = 86400


async def test_users_of_one_target_share_its_channel(autojump_clock: trio.abc.Clock) -> None:
    with trio.fail_after(DAY):
        async with (
            ChannelCache().opened() as cache,
            cache.channel("localhost", 1) as first,
            cache.channel("localhost", 1) as second,
        ):
            assert first is second
            assert not first.closed
            assert cache.statistics().leases == 2
            assert cache.statistics().opened == 1


async def test_whatever_makes_a_difference_makes_another_channel(autojump_clock: trio.abc.Clock) -> None:
    async def connect() -> trio.abc.Stream:
        raise OSError

    with trio.fail_after(DAY):
        async with ChannelCache().opened() as cache:
            variants = [
                {},
                {"ssl_context": True},
                {"options": rpc.ChannelOptions(connections=2)},
                {"connect": connect},
            ]
            channels = set()
            for variant in variants:
                async with cache.channel("localhost", 1, **variant) as channel:
                    channels.add(channel)
            async with cache.channel("localhost", 2) as channel:
                channels.add(channel)
            assert len(channels) == 5


async def test_a_channel_outlasts_its_last_user_by_the_grace(autojump_clock: trio.abc.Clock) -> None:
    with trio.fail_after(DAY):
        async with ChannelCache(grace=60).opened() as cache:
            async with cache.channel("localhost", 1) as first:
                await trio.sleep(1000)
            await trio.sleep(59)
            async with cache.channel("localhost", 1) as again:
                assert again is first
                await trio.sleep(1000)
                assert not first.closed
            await trio.sleep(61)
            assert first.closed
            assert cache.statistics().channels == 0
            async with cache.channel("localhost", 1) as third:
                assert third is not first
                assert not third.closed


async def test_whoever_comes_at_the_moment_of_the_end_gets_an_open_channel(autojump_clock: trio.abc.Clock) -> None:
    with trio.fail_after(DAY):
        async with ChannelCache(grace=0).opened() as cache:
            for _ in range(50):
                async with cache.channel("localhost", 1) as channel:
                    assert not channel.closed
                    await trio.lowlevel.checkpoint()
                    assert not channel.closed


async def test_all_are_closed_with_the_cache(autojump_clock: trio.abc.Clock) -> None:
    with trio.fail_after(DAY):
        cache = ChannelCache()
        async with cache.opened():
            lease = await cache.lease("localhost", 1)
        assert lease.channel.closed
        lease.release()
        with pytest.raises(RuntimeError, match="not open"):
            await cache.lease("localhost", 1)


async def test_an_error_of_the_block_goes_on_as_it_was(autojump_clock: trio.abc.Clock) -> None:
    with trio.fail_after(DAY), pytest.raises(KeyError):
        async with ChannelCache().opened() as cache, cache.channel("localhost", 1):
            raise KeyError


async def test_a_user_that_is_cancelled_while_it_enters_gives_its_lease_back(autojump_clock: trio.abc.Clock) -> None:
    with trio.fail_after(DAY):
        async with ChannelCache().opened() as cache:
            with trio.CancelScope() as scope:
                scope.cancel()
                await cache.lease("localhost", 1)
            assert scope.cancelled_caught
            assert cache.statistics().leases == 0


async def test_a_released_lease_is_not_released_twice(autojump_clock: trio.abc.Clock) -> None:
    with trio.fail_after(DAY):
        async with ChannelCache().opened() as cache, cache.channel("localhost", 1):
            lease = await cache.lease("localhost", 1)
            lease.release()
            lease.release()
            lease.abandon()
            await trio.testing.wait_all_tasks_blocked()
            assert cache.statistics().leases == 1


async def test_an_address_that_is_none_is_refused_at_once(autojump_clock: trio.abc.Clock) -> None:
    with trio.fail_after(DAY):
        async with ChannelCache().opened() as cache:
            with pytest.raises(ValueError, match="99999"):
                await cache.lease("localhost", 99999)
            assert cache.statistics().channels == 0


def test_targets() -> None:
    assert target_of("10.0.0.1", 50055) == "10.0.0.1:50055"
    assert target_of("::1", 1) == "[::1]:1"
    assert target_of("[::1]", 1) == "[::1]:1"
    assert target_of("unix:/tmp/socket", 0) == "unix:/tmp/socket"
