"""Whether a follower's rows are part of a history."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shared.contracts.db import Position, TermStart
from shared.lineage import KEPT, Lineage

HISTORY = Lineage(
    [
        TermStart(term=1, base=0, host="a"),
        TermStart(term=2, base=10, after=1, host="a"),
        TermStart(term=5, base=30, after=2, host="b", forced=True),
    ]
)


def at(term: int, generation: int, host: str = "") -> Position:
    return Position(term=term, generation=generation, host=host)


def test_who_is_not_behind_the_end_of_its_term_only_lacks_what_came_since() -> None:
    assert HISTORY.includes(at(1, 7), 100)
    assert HISTORY.includes(at(1, 10), 100)
    assert HISTORY.includes(at(2, 30, "a"), 100)
    assert HISTORY.includes(at(5, 100), 100)


def test_who_has_commits_that_the_next_term_left_out_needs_all_rows() -> None:
    assert not HISTORY.includes(at(1, 11), 100)
    assert not HISTORY.includes(at(2, 31), 100)
    assert not HISTORY.includes(at(5, 101), 100)
    assert HISTORY.left_out(at(2, 31))
    assert not HISTORY.left_out(at(2, 30))
    assert not HISTORY.left_out(at(5, 1000)), "what the present term has committed is not lost"


def test_a_term_that_nobody_of_this_history_began_is_no_part_of_it() -> None:
    assert not HISTORY.includes(at(3, 5), 100)
    assert not HISTORY.includes(at(2, 20, "b"), 100), "another host counted to the same number"
    assert not HISTORY.left_out(at(3, 5)), "nobody knows what became of it"


def test_rows_that_take_the_place_of_all_others_begin_a_history_of_their_own() -> None:
    restored = HISTORY.began(TermStart(term=6, base=200, host="b"))
    assert restored.starts == (TermStart(term=6, base=200, host="b"),)
    assert not restored.includes(at(5, 50), 300)


def test_a_term_that_is_known_already_changes_nothing() -> None:
    assert HISTORY.began(HISTORY.starts[-1]) == HISTORY
    assert HISTORY.after(1) == list(HISTORY.starts[1:])
    assert HISTORY.until(4).starts == HISTORY.starts[:2]


def test_only_terms_that_were_taken_by_force_shut_out_earlier_coordinators() -> None:
    handed_over = HISTORY.began(TermStart(term=6, base=60, after=5, host="a"))
    assert handed_over.reign == 5


@given(st.lists(st.integers(0, 50), min_size=1, max_size=2 * KEPT), st.integers(0, 40), st.integers(0, 3000))
def test_a_follower_that_never_leaves_the_history_is_always_part_of_it(
    lengths: list[int], stopped: int, ahead: int
) -> None:
    lineage, generation = Lineage(), 0
    positions = []
    for number, length in enumerate(lengths, start=1):
        lineage = lineage.began(TermStart(term=number, base=generation, after=number - 1, host="a"))
        positions.append(at(number, generation + min(stopped, length), "a"))
        generation += length
    for position in positions[-KEPT:]:
        assert lineage.includes(position, generation)
    last = positions[-1]
    assert not lineage.includes(at(last.term, generation + 1 + ahead), generation)
