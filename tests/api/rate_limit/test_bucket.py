from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.api.rate_limit.bucket import TokenBucket

AMOUNT = st.floats(0.01, 1000, allow_nan=False)


def test_a_full_bucket_gives_its_burst_and_then_what_flows_in() -> None:
    bucket = TokenBucket(burst=3, fill=2, now=100)
    assert [bucket.take(1, 100) for _ in range(4)] == [True, True, True, False]
    assert bucket.wait(1, 100) == pytest.approx(0.5)
    assert not bucket.take(1, 100.4)
    assert bucket.take(1, 100.6)


def test_it_never_holds_more_than_its_burst() -> None:
    bucket = TokenBucket(burst=3, fill=2, now=0)
    assert bucket.tokens(1000) == 3


def test_what_costs_more_than_it_holds_takes_all_and_leaves_a_debt() -> None:
    bucket = TokenBucket(burst=3, fill=1, now=0)
    assert bucket.take(10, 0)
    assert bucket.tokens(0) == -7
    assert bucket.wait(1, 0) == pytest.approx(8)
    assert bucket.wait(10, 0) == pytest.approx(10)


@given(burst=AMOUNT, fill=AMOUNT, costs=st.lists(st.tuples(AMOUNT, st.floats(0, 5, allow_nan=False))))
def test_no_more_is_taken_than_burst_and_inflow_and_one_debt(
    burst: float, fill: float, costs: list[tuple[float, float]]
) -> None:
    bucket, now, taken = TokenBucket(burst, fill, 0.0), 0.0, 0.0
    largest = 0.0
    for cost, pause in costs:
        now += pause
        if bucket.take(cost, now):
            taken += cost
            largest = max(largest, cost)
        assert taken <= burst + fill * now + largest + 1e-6
        assert bucket.wait(cost, now) >= 0


@given(burst=AMOUNT, fill=AMOUNT, cost=AMOUNT)
def test_after_the_wait_it_succeeds(burst: float, fill: float, cost: float) -> None:
    bucket = TokenBucket(burst, fill, 0.0)
    assert bucket.take(cost, 0.0)
    assert bucket.take(cost, bucket.wait(cost, 0.0) + 1e-6)
