"""Logins that are remembered for a while."""

from __future__ import annotations

import pytest

from services.api.directory.cache import LoginCache
from services.api.identity import Identity

ANN = Identity(user_name="ann")
BEN = Identity(user_name="ben")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def cache(clock: Clock) -> LoginCache:
    return LoginCache(clock)


async def remember(cache: LoginCache, user: str, identity: Identity, *, size: int = 10, seconds: float = 300) -> None:
    await cache.remember(user, f"{user}'s", identity, size=size, seconds=seconds, epoch=cache.epoch)


async def test_only_the_password_that_was_right_is_known(cache: LoginCache) -> None:
    await remember(cache, "ann", ANN)
    assert await cache.find("ann", "ann's") is ANN
    assert await cache.find("ann", "other") is None
    assert await cache.find("ben", "ann's") is None
    assert await cache.find("ann", "ann's") is ANN  # a wrong password does not push the right one out


async def test_it_is_forgotten_after_its_time(cache: LoginCache, clock: Clock) -> None:
    await remember(cache, "ann", ANN, seconds=300)
    clock.now += 299
    assert await cache.find("ann", "ann's") is ANN
    clock.now += 1
    assert await cache.find("ann", "ann's") is None
    assert len(cache) == 0


async def test_the_one_used_longest_ago_goes_first(cache: LoginCache) -> None:
    for user, identity in (("ann", ANN), ("ben", BEN)):
        await remember(cache, user, identity, size=2)
    await cache.find("ann", "ann's")
    await remember(cache, "zoe", ANN, size=2)
    assert await cache.find("ben", "ben's") is None
    assert await cache.find("ann", "ann's") is ANN


@pytest.mark.parametrize(("size", "seconds"), [(0, 300), (10, 0), (-1, 300)])
async def test_no_room_or_no_time_remembers_nothing(cache: LoginCache, size: int, seconds: int) -> None:
    await remember(cache, "ann", ANN, size=size, seconds=seconds)
    assert len(cache) == 0


async def test_what_was_found_out_before_everything_was_forgotten_is_not_remembered(cache: LoginCache) -> None:
    epoch = cache.epoch
    cache.clear()
    await cache.remember("ann", "ann's", ANN, size=10, seconds=300, epoch=epoch)
    assert len(cache) == 0


async def test_no_password_is_kept_as_it_is(cache: LoginCache) -> None:
    await remember(cache, "ann", ANN)
    assert "ann's" not in repr(vars(cache))
