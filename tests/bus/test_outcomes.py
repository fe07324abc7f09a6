"""What a server remembers of finished calls."""

from __future__ import annotations

from shared.bus.outcomes import LARGE, MAX_LARGE_BYTES, MAX_OUTCOMES, Outcomes


def test_an_outcome_is_kept_for_its_time() -> None:
    outcomes = Outcomes(keep=60)
    outcomes.add("a", b"answer", now=0)
    outcomes.add("b", b"other", now=60)
    kept = outcomes.get("a")
    assert kept is not None
    assert kept.answer == b"answer"
    outcomes.add("c", b"third", now=61)
    assert outcomes.get("a") is None
    assert outcomes.get("b") is not None


def test_memory_is_complete_since_the_last_outcome_that_was_forgotten() -> None:
    outcomes = Outcomes(keep=60)
    outcomes.add("a", b"", now=10)
    assert outcomes.complete_since(0)
    outcomes.add("b", b"", now=100)
    assert not outcomes.complete_since(10)
    assert outcomes.complete_since(11)


def test_there_are_never_too_many() -> None:
    outcomes = Outcomes(keep=1e9)
    for n in range(MAX_OUTCOMES + 10):
        outcomes.add(str(n), b"", now=n)
    assert len(outcomes) == MAX_OUTCOMES
    assert outcomes.get("9") is None
    assert outcomes.get("10") is not None


def test_of_large_answers_the_newest_are_kept_and_of_the_others_the_fact() -> None:
    outcomes = Outcomes(keep=1e9)
    size = MAX_LARGE_BYTES // 4
    outcomes.add("small", b"x" * LARGE, now=0)
    for n in range(6):
        outcomes.add(str(n), bytes(size), now=n)
    answers = {id: outcome.answer for id in ("small", *"012345") if (outcome := outcomes.get(id)) is not None}
    assert len(answers) == 7
    assert [id for id, answer in answers.items() if answer is None] == ["0", "1"]
    outcomes.forget("0")
    assert outcomes.get("0") is None
