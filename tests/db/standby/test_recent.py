"""The newest commits, for followers that have missed some."""

from __future__ import annotations

from services.db.redo.interface import LogRecord
from services.db.standby import recent
from services.db.standby.recent import RecentDeltas
from shared.contracts.db import Delta, RowModified
from tests.db import rows


def delta(generation: int, previous: int | None = None, text: str = "") -> Delta:
    change = RowModified(cls="network", ref=rows.ref(), fields={"name_label": text})
    follows = generation - 1 if previous is None else previous
    return Delta(term=1, generation=generation, previous=follows, changes=[change])


def filled(*deltas: Delta, count: int = 100, size: int = 10**6) -> RecentDeltas:
    kept = RecentDeltas(count, size)
    for each in deltas:
        kept.add(each)
    return kept


def generations(found: list[Delta] | None) -> list[int] | None:
    return None if found is None else [each.generation for each in found]


def test_a_follower_gets_what_came_after_its_position() -> None:
    kept = filled(*map(delta, (11, 12, 13)))
    assert generations(kept.since(10)) == [11, 12, 13]
    assert generations(kept.since(12)) == [13]
    assert kept.since(13) == []


def test_commits_that_are_forgotten_and_those_that_never_were_are_not_known() -> None:
    kept = filled(*map(delta, range(1, 11)), count=3)
    assert generations(kept.since(7)) == [8, 9, 10]
    assert kept.since(6) is None
    assert kept.since(11) is None
    assert RecentDeltas().since(0) is None


def test_numbers_that_were_taken_back_are_bridged() -> None:
    bridge = Delta(term=1, generation=15, previous=12, changes=[])
    kept = filled(delta(12), bridge, delta(16))
    assert generations(kept.since(12)) == [15, 16]
    found = kept.since(13)
    assert found is not None
    assert (found[0].previous, generations(found)) == (13, [15, 16])


def test_a_commit_that_does_not_follow_the_last_begins_a_new_chain() -> None:
    kept = filled(delta(1), delta(2), delta(10))
    assert kept.since(1) is None
    assert generations(kept.since(9)) == [10]


def test_what_only_says_that_a_term_has_begun_is_no_commit() -> None:
    kept = filled(delta(1), Delta(term=2, generation=1, previous=1, changes=[]), delta(2))
    assert generations(kept.since(0)) == [1, 2]


def test_it_is_bounded_by_bytes_and_an_answer_is_too() -> None:
    kept = filled(*(delta(n, text="x" * 10_000) for n in range(1, 101)), size=200_000)
    assert len(kept) < 25
    large = filled(*(delta(n, text="x" * 10_000) for n in range(1, 1001)), count=2000, size=10**8)
    found = large.since(0)
    assert found is not None
    assert 0 < len(found) * 10_000 <= recent.ANSWER_BYTES
    assert found[0].generation == 1


def test_a_start_fills_it_with_what_the_log_holds() -> None:
    kept = RecentDeltas()
    kept.refill([LogRecord(generation=5, term=1), LogRecord(generation=8, term=2)], 4)
    assert generations(kept.since(4)) == [5, 8]
    assert kept.since(8) == []
