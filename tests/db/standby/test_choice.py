"""Who takes over, and who stands back."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.db.standby.choice import Standing, is_ahead, keepers, newest, next_term, rival, standing
from shared.contracts.db import DbRole


def role(host: str, term: int, durable: int, kind: str = "standby", promised: int = 0) -> DbRole:
    return DbRole(host=host, role=kind, term=term, generation=durable, durable=durable, promised=promised)


def test_the_highest_term_wins_before_the_highest_generation_and_then_the_lowest_uuid() -> None:
    assert newest([role("a", 3, 900), role("b", 4, 100)]) == role("b", 4, 100)
    assert newest([role("a", 4, 99), role("b", 4, 100)]) == role("b", 4, 100)
    assert newest([role("b", 4, 100), role("a", 4, 100)]) == role("a", 4, 100)


def test_a_process_without_rows_is_never_chosen() -> None:
    assert newest([role("a", 0, 0)]) is None
    assert newest([role("a", 0, 0), role("b", 1, 1)]) == role("b", 1, 1)


def test_a_new_term_is_above_all_that_anybody_has_or_has_promised() -> None:
    assert next_term(4, [role("a", 5, 1), role("b", 2, 1, promised=7)]) == 8
    assert next_term(4, []) == 5


def test_whoever_sees_another_promise_as_high_as_his_stands_back() -> None:
    assert rival("a", 6, [role("b", 5, 1, "promoting", promised=6)]) is not None
    assert rival("a", 6, [role("b", 6, 1, "primary")]) is not None
    assert rival("a", 6, [role("b", 5, 1, "promoting", promised=5), role("a", 6, 1)]) is None


def test_a_primary_gives_way_to_a_later_term_and_waits_for_one_that_is_promised() -> None:
    assert standing("a", 5, [role("b", 5, 9)]) is Standing.FIRST
    assert standing("a", 5, [role("b", 6, 1)]) is Standing.REPLACED
    assert standing("a", 5, [role("b", 5, 9, "promoting", promised=6)]) is Standing.WAIT
    assert standing("a", 5, []) is Standing.FIRST


def test_of_two_primaries_of_one_term_the_one_with_the_lower_uuid_stays() -> None:
    assert standing("a", 5, [role("b", 5, 9, "primary")]) is Standing.FIRST
    assert standing("b", 5, [role("a", 5, 9, "primary")]) is Standing.REPLACED


def test_the_first_hosts_by_uuid_persist_unless_others_were_chosen_by_name() -> None:
    assert keepers(["c", "a", "b"], 2) == ["a", "b"]
    assert keepers(["c", "a", "b"], 2, ["c", "d"]) == ["c"]
    assert keepers([], 2) == []


ROLES = st.lists(
    st.builds(role, st.sampled_from("abcd"), st.integers(0, 4), st.integers(0, 4)),
    max_size=6,
    unique_by=lambda r: r.host,
)


@given(ROLES)
def test_nobody_is_ahead_of_the_one_that_is_chosen(roles: list[DbRole]) -> None:
    best = newest(roles)
    if best is not None:
        assert not any(is_ahead(other, best) for other in roles)


@given(st.integers(1, 5), st.integers(1, 5))
def test_of_two_that_promised_and_then_saw_each_other_at_most_one_goes_on(first: int, second: int) -> None:
    a, b = role("a", 0, 0, "promoting", promised=first), role("b", 0, 0, "promoting", promised=second)
    assert rival("a", first, [b]) is not None or rival("b", second, [a]) is not None
