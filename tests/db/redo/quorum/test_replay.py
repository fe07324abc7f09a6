"""What counts of the messages in the queue: in any order, with any of them missing, twice or of others."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.db.redo.interface import CheckpointHeader, Entry, LogRecord, entry
from services.db.redo.quorum import messages
from services.db.redo.quorum.messages import Begin, Claim, Finish, Mark, Turn
from services.db.redo.quorum.replay import Lost, Position, Replay, replaced
from shared.contracts.db import RowCreated, SnapshotRow

A1 = Turn(1, 1, "a")
A2 = Turn(1, 2, "a")
B = Turn(2, 1, "b")
C = Turn(3, 1, "c")


def commit(generation: int, size: int = 10) -> Entry:
    change = RowCreated(cls="network", ref=f"r{generation}", fields={"name_label": "x" * size})
    return entry(LogRecord(generation=generation, term=1, changes=[change], request=f"q{generation}"), generation - 1)


def batch(by: Turn, number: int, *generations: int, size: int = 10) -> list[bytes]:
    return messages.commits(by, number, [commit(generation, size) for generation in generations])


def begin(by: Turn, number: int = 0, follows: Turn | None = None, *, generation: int = 0) -> bytes:
    empty = follows is None and number == 0
    return messages.encoded(Begin(by=by, number=number, generation=generation, follows=follows, empty=empty))


def row(ref: str) -> SnapshotRow:
    return SnapshotRow(cls="network", ref=ref, created=1, modified=1, fields={"name_label": ref})


def checkpoint(by: Turn, number: int, cut: int, generation: int, rows: list[str]) -> tuple[list[bytes], bytes]:
    name = f"c{cut}"
    header = CheckpointHeader(generation=generation, term=1, rows=len(rows), requests={"old": 1})
    finish = Finish(by=by, number=number, checkpoint=name, cut=cut, header=header)
    return list(messages.rows(by, name, cut, [row(ref) for ref in rows])), messages.encoded(finish)


def replayed(*bodies: bytes) -> Replay:
    replay = Replay()
    for body in bodies:
        replay.take(body)
    return replay


def generations(*bodies: bytes) -> list[int]:
    return [record.generation for record in replayed(*bodies).recovered().records]


def test_an_empty_queue_is_a_log_that_nobody_has_begun() -> None:
    assert replayed().end() == Position()
    assert replayed(messages.encoded(Mark()), messages.encoded(Claim(by=A1))).recovered().term == 1


def test_commits_come_in_the_order_of_their_numbers_whatever_order_they_lie_in() -> None:
    bodies = [begin(A1), *batch(A1, 1, 1, 2), *batch(A1, 2, 3), *batch(A1, 3, 4), messages.encoded(Mark())]
    for seed in range(20):
        random.Random(seed).shuffle(bodies)
        replay = replayed(*bodies, *bodies[:2])
        assert [record.generation for record in replay.recovered().records] == [1, 2, 3, 4]
        assert replay.end() == Position(A1, 3)
    assert replay.recovered().requests == {f"q{number}": number for number in range(1, 5)}


def test_a_batch_in_several_messages_counts_when_all_are_there() -> None:
    large = batch(A1, 2, 3, 4, size=2_500_000)
    assert len(large) == 5
    assert max(map(len, large)) < messages.PIECE + 200
    start = [begin(A1), *batch(A1, 1, 1, 2)]
    assert generations(*start, *large) == [1, 2, 3, 4]
    for missing in range(5):
        found = replayed(*start, *large[:missing], *large[missing + 1 :]).recovered()
        assert [record.generation for record in found.records] == [1, 2]
        assert found.torn > 1_000_000


def test_what_was_not_confirmed_does_not_count_after_the_writer_has_begun_anew_whenever_it_comes() -> None:
    bodies = [begin(A1), *batch(A1, 1, 1), *batch(A1, 2, 2), begin(A2, 1, A1), *batch(A2, 2, 5)]
    for seed in range(20):
        random.Random(seed).shuffle(bodies)
        assert generations(*bodies) == [1, 5]
    assert generations(begin(A1), *batch(A1, 1, 1), *batch(A1, 2, 2)) == [1, 2], "it died: what is there counts"


def test_what_an_old_writer_adds_after_somebody_took_over_does_not_count() -> None:
    taken = [begin(A1), *batch(A1, 1, 1), begin(B, 1, A1, generation=1), *batch(B, 2, 7)]
    late = [*batch(A1, 2, 2), begin(A2, 2, A1), *batch(A2, 3, 3)]
    assert generations(*taken, *late) == [1, 7]
    assert replayed(*taken, *late).end() == Position(B, 2)


def test_who_only_wanted_to_take_over_changes_nothing_but_the_term() -> None:
    found = replayed(begin(A1), *batch(A1, 1, 1), messages.encoded(Claim(by=C))).recovered()
    assert ([record.generation for record in found.records], found.term) == ([1], 3)


def test_generations_do_not_go_back_behind_a_begin() -> None:
    found = replayed(begin(A1), *batch(A1, 1, 1), begin(B, 1, A1, generation=1_000_001)).recovered()
    assert (found.generation, found.term) == (1_000_001, 2)


@pytest.mark.parametrize("missing", [1, 2, 3])
def test_a_missing_number_is_noticed(missing: int) -> None:
    bodies = [begin(A1), *batch(A1, 1, 1), *batch(A1, 2, 2), begin(B, 2, A1), *batch(B, 3, 3), *batch(B, 4, 4)]
    numbers = {1: 1, 2: 2, 3: 4}
    del bodies[numbers[missing]]
    with pytest.raises(Lost, match=str(missing)):
        replayed(*bodies).recovered()


def test_a_damaged_message_is_noticed_where_it_is_missed_and_passed_over_where_not() -> None:
    good = [begin(A1), *batch(A1, 1, 1), *batch(A1, 2, 2)]
    damaged = good[1][:-5] + b"XXXXX"
    assert generations(*good, b"somebody else's", damaged) == [1, 2]
    with pytest.raises(Lost, match="1 to 2"):
        replayed(good[0], damaged, good[2]).recovered()


def test_the_newest_whole_checkpoint_counts_with_what_came_after_its_cut() -> None:
    rows, finish = checkpoint(A1, 3, 1, 2, ["r1", "r2"])
    bodies = [begin(A1), *batch(A1, 1, 1), *batch(A1, 2, 2, 3), *rows, finish, *batch(A1, 4, 4)]
    found = replayed(*bodies).recovered()
    assert [row.ref for row in found.rows] == ["r1", "r2"]
    assert [record.generation for record in found.records] == [3, 4], "its rows have 2 already"
    assert found.requests == {"old": 1, "q2": 2, "q3": 3, "q4": 4}
    half = [body for body in bodies if body not in rows]
    assert generations(*half) == [1, 2, 3, 4], "without its rows it does not count"


def test_a_checkpoint_that_was_not_confirmed_does_not_count_once_the_writer_has_begun_anew() -> None:
    rows, finish = checkpoint(A1, 2, 1, 1, ["other"])
    bodies = [begin(A1), *batch(A1, 1, 1), *rows, finish, begin(A2, 1, A1), *batch(A2, 2, 2)]
    assert generations(*bodies) == [1, 2]


def test_what_a_checkpoint_replaces_may_be_gone_or_there_in_part() -> None:
    rows, finish = checkpoint(B, 4, 2, 2, ["r1", "r2"])
    old = [begin(A1), *batch(A1, 1, 1), begin(B, 1, A1), *batch(B, 2, 2)]
    kept = [*batch(B, 3, 3), *rows, finish, *batch(B, 5, 5)]
    for seed in range(20):
        some = random.Random(seed).sample(old, seed % 5)
        found = replayed(*some, *kept).recovered()
        assert ([row.ref for row in found.rows], [record.generation for record in found.records]) == (
            ["r1", "r2"],
            [3, 5],
        )
    with pytest.raises(Lost, match="not there") as lost:
        replayed(*kept[:1], finish, *kept[-1:]).recovered()
    assert lost.value.since is None, "there were commits"


def test_only_what_a_checkpoint_replaces_is_removed() -> None:
    rows, finish_body = checkpoint(B, 4, 2, 2, ["r1"])
    finish = messages.decoded(finish_body)[0]
    assert isinstance(finish, Finish)
    gone = [
        begin(A1),
        *batch(A1, 1, 1),
        begin(B, 1, A1),
        *batch(B, 2, 2),
        messages.encoded(Claim(by=A1)),
        *messages.rows(A1, "abandoned", 1, []),
    ]
    kept = [
        *batch(B, 3, 3),
        *rows,
        finish_body,
        *batch(C, 5, 5),
        begin(C, 4, B),
        messages.encoded(Claim(by=C)),
        messages.encoded(Mark()),
        *messages.rows(C, "newer", 5, []),
    ]
    assert [replaced(messages.decoded(body)[0], B, finish) for body in gone] == [True] * len(gone)
    assert [replaced(messages.decoded(body)[0], B, finish) for body in kept] == [False] * len(kept)


def test_a_log_begun_anew_counts_from_its_checkpoint_on() -> None:
    lost = messages.encoded(Begin(by=A2, number=7, generation=9))
    with pytest.raises(Lost, match="rows"):
        replayed(begin(A1), *batch(A1, 1, 1), lost).recovered()
    rows, finish = checkpoint(A2, 8, 7, 9, ["r1"])
    found = replayed(begin(A1), *batch(A1, 1, 1), lost, *rows, finish, *batch(A2, 9, 10)).recovered()
    assert ([row.ref for row in found.rows], [record.generation for record in found.records]) == (["r1"], [10])


class Model:
    """Writers that commit, fail, take over and clean up; every message they send may stay on its way for good."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.queue: list[bytes] = []
        self.turn = Turn(0, 0, "nobody")
        self.number = 0
        self.generation = 0
        self.kept: list[int] = []
        self.late: list[bytes] = []

    def take_over(self, *, own: bool) -> None:
        follows = self.turn if self.turn.term else None
        self.turn = (
            Turn(self.turn.term, self.turn.turn + 1, self.turn.writer)
            if own and follows
            else Turn(self.turn.term + 1, 1, f"w{self.turn.term}")
        )
        self.queue.append(begin(self.turn, self.number, follows, generation=self.generation))

    def commit(self) -> None:
        self.number += 1
        self.generation += 1
        self.queue += batch(self.turn, self.number, self.generation)
        self.kept.append(self.generation)

    def fail(self) -> None:
        """Some of what was sent is there, or comes later; then the writer begins anew."""
        self.generation += 1
        sent = batch(self.turn, self.number + 1, self.generation, size=500)
        self.queue += sent[: self.rng.randrange(len(sent) + 1)]
        self.late += sent
        self.take_over(own=True)

    def checkpoint(self) -> None:
        rows, body = checkpoint(self.turn, self.number + 1, self.number, self.generation, [f"r{g}" for g in self.kept])
        self.number += 1
        self.queue += [*rows, body]
        finish = messages.decoded(body)[0]
        assert isinstance(finish, Finish)
        self.queue = [
            body
            for body in self.queue
            if not replaced(messages.decoded(body)[0], self.turn, finish) or self.rng.random() < 0.3
        ]

    def found(self) -> list[str]:
        self.rng.shuffle(self.queue)
        found = replayed(*self.queue).recovered()
        return [*(row.ref for row in found.rows), *(f"r{record.generation}" for record in found.records)]


@settings(deadline=None)
@given(
    st.integers(), st.lists(st.sampled_from(["commit", "commit", "fail", "checkpoint", "over", "late"]), max_size=20)
)
def test_whatever_writers_did_exactly_what_they_acknowledged_counts(seed: int, steps: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(messages, "PIECE", 200)
        model = Model(random.Random(seed))
        model.take_over(own=False)
        for step in steps:
            match step:
                case "over":
                    model.take_over(own=False)
                case "late":
                    model.queue += model.late
                case _:
                    getattr(model, step)()
            assert model.found() == [f"r{generation}" for generation in model.kept]
