"""The checker itself: it accepts what a database may do, and rejects each thing that it must not."""

from __future__ import annotations

import dataclasses
import math
import random
import time
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.db.crash.history import check
from tests.db.crash.records import History, Interruption, Operation, Outcome, PowerLoss, Published, State
from tests.db.crash.registers import Register, Value

OK, FAILED, UNKNOWN = Outcome.OK, Outcome.FAILED, Outcome.UNKNOWN


def register(name: str) -> Register:
    """`x.name_label` of the network x; `x` alone: whether it is there; `task.v`: of a volatile row."""
    ref, _, path = name.partition(".")
    return ("task" if ref == "task" else "network", ref, path)


def values(given: Mapping[str, Value]) -> dict[Register, Value]:
    return {register(name): value for name, value in given.items()}


class Story:
    """Builds a history line by line. Times are whole seconds."""

    def __init__(self, **initial: Value) -> None:
        self.history = History(
            initial=values({f"{name}.v": value for name, value in initial.items()}),
            volatile=lambda found: found[0] == "task",
        )

    def op(
        self,
        begin: float,
        end: float,
        outcome: Outcome = OK,
        generation: int = 0,
        *,
        client: str = "",
        term: int = 1,
        reads: Mapping[str, Value] | None = None,
        all_writes: Mapping[str, Value] | None = None,
        **writes: Value,
    ) -> Operation:
        writes = {**(all_writes or {}), **writes}
        number = len(self.history.operations) + 1
        made = Operation(
            number=number,
            client=client or f"c{number}",
            invoked=begin,
            returned=math.inf if outcome is UNKNOWN else end,
            outcome=outcome,
            writes=values({f"{name}.v": value for name, value in writes.items()}),
            reads=values({f"{name}.v": value for name, value in (reads or {}).items()}),
            generation=generation,
            term=term if outcome is OK else 0,
            why="no room" if outcome is FAILED else "",
        )
        self.history.operations.append(made)
        return made

    def delete(self, begin: float, end: float, generation: int, row: str) -> None:
        made = self.op(begin, end, OK, generation)
        self.history.operations[-1] = dataclasses.replace(made, writes={register(row): None})

    def state(
        self,
        at: float,
        generation: int,
        *,
        by: str = "primary",
        text: str = "",
        at_once: bool = True,
        all_seen: Mapping[str, Value] | None = None,
        **seen: Value,
    ) -> None:
        seen = {**(all_seen or {}), **seen}
        self.history.states.append(
            State(
                observer=by,
                term=1,
                generation=generation,
                invoked=at,
                returned=at + 0.5,
                values=values({f"{name}.v": value for name, value in seen.items()}),
                complete=not text,
                at_once=at_once and not text,
                text=text,
            )
        )

    def delta(
        self,
        at: float,
        previous: int,
        generation: int,
        operation: int = 0,
        *,
        by: str = "f",
        term: int = 1,
        **seen: Value,
    ) -> None:
        after = values({f"{name}.v": value for name, value in seen.items()})
        self.history.published.append(Published(by, at, term, generation, previous, operation, after))

    @property
    def wrong(self) -> str:
        return "\n".join(str(violation) for violation in check(self.history))


def test_what_is_written_and_read_in_turn_is_right() -> None:
    story = Story(x=0)
    story.op(1, 2, OK, 1, x=1)
    story.op(3, 4, OK, 2, reads={"x": 1}, x=2)
    story.state(5, 2, x=2)
    assert story.wrong == ""


def test_writes_at_the_same_time_may_come_in_either_order() -> None:
    for last in (1, 2):
        story = Story(x=0)
        story.op(1, 4, OK, 2 if last == 1 else 1, x=1)
        story.op(2, 3, OK, 1 if last == 1 else 2, x=2)
        story.state(5, 2, x=last)
        assert story.wrong == ""


def test_an_acknowledged_write_that_is_gone_is_found() -> None:
    story = Story(x=0)
    story.op(1, 2, OK, 1, x=1)
    story.op(3, 4, OK, 2, x=2)
    story.state(5, 2, x=1)
    assert "linearizable register: network x v: the rows at generation 2" in story.wrong
    assert "has read 1, but it can only have been 2" in story.wrong


def test_a_read_of_the_past_is_found() -> None:
    story = Story(x=0)
    story.op(1, 2, OK, 1, x=1)
    story.op(3, 4, OK, 2, reads={"x": 0}, y=7)
    assert "has read 0, but it can only have been 1" in story.wrong


def test_a_refused_write_never_appears() -> None:
    story = Story(x=0)
    story.op(1, 2, FAILED, x=1)
    story.state(3, 1, x=0)
    assert story.wrong == ""
    story.state(4, 1, x=1)
    assert "refused: #1" in story.wrong
    assert "no room" in story.wrong


def test_a_write_without_answer_may_appear_or_not_and_late() -> None:
    for appears in (False, True):
        story = Story(x=0)
        story.op(1, 2, UNKNOWN, x=1)
        story.state(3, 0, x=0)
        if appears:
            story.state(5, 2, x=1)
            story.state(7, 2, x=1)
        assert story.wrong == ""


def test_a_write_without_answer_does_not_come_and_go() -> None:
    story = Story(x=0)
    story.op(1, 2, UNKNOWN, x=1)
    story.state(3, 1, x=1)
    story.state(5, 2, x=0)
    assert "linearizable register" in story.wrong
    assert "whole transactions in order" in story.wrong


def test_a_write_without_answer_happens_once() -> None:
    story = Story(x=0)
    story.op(1, 2, UNKNOWN, x=1)
    story.state(3, 1, x=1)
    story.op(4, 5, OK, 2, x=2)
    story.state(6, 3, x=1)
    assert "has read 1, but it can only have been 2" in story.wrong


def test_a_write_without_answer_may_lie_before_one_that_was_sent_later() -> None:
    story = Story(x=0, y=0)
    story.op(1, 2, UNKNOWN, x=1, y=1)
    story.op(3, 4, OK, 2, x=2)
    story.state(5, 2, x=2, y=1)
    assert story.wrong == ""


def test_half_a_transaction_is_found_and_named() -> None:
    story = Story(x=0, y=0)
    story.op(1, 2, UNKNOWN, x=1, y=1)
    story.state(3, 1, x=1, y=0)
    assert "whole transactions in order" in story.wrong
    story = Story(x=0, y=0)
    story.op(1, 2, OK, 1, x=1, y=1)
    story.state(3, 1, by="replica", at_once=False, x=1, y=0)
    assert "half of #1" in story.wrong


def test_a_mixture_of_two_transactions_is_found_though_each_register_alone_is_right() -> None:
    story = Story(x=0, y=0)
    story.op(1, 9, OK, 1, x=1, y=1)
    story.op(1, 9, OK, 2, x=2, y=2)
    story.state(10, 2, x=2, y=1)
    assert "linearizable register" not in story.wrong
    assert "half of #2" in story.wrong


def test_a_counter_that_two_have_raised_from_the_same_number_is_found() -> None:
    story = Story(n=0)
    story.op(1, 4, OK, 1, reads={"n": 0}, n=1)
    story.op(1, 4, OK, 2, reads={"n": 0}, n=1)
    assert "linearizable register" in story.wrong


def test_a_transaction_that_was_applied_and_then_refused_is_found() -> None:
    """A request that is repeated after a restart, and not known there."""
    story = Story(n=0)
    story.op(1, 4, FAILED, reads={"n": 0}, n=1)
    story.delta(2, 0, 1, operation=1, n=1)
    assert "was refused (no room), and yet there is the delta 0->1" in story.wrong


def test_what_is_replaced_later_cannot_be_told_to_have_come_earlier() -> None:
    story = Story(x=0)
    story.op(1, 2, OK, 5, x=1)
    story.op(3, 4, OK, 4, x=2)
    assert "order and clock" in story.wrong


def test_two_transactions_never_have_one_generation() -> None:
    story = Story(x=0)
    story.op(1, 2, OK, 5, x=1)
    story.op(1, 2, OK, 5, y=2)
    assert "generation 5 was given to 2 transactions" in story.wrong


def test_a_client_never_sees_generations_or_terms_fall() -> None:
    story = Story(x=0)
    story.op(1, 2, OK, 5, client="c", x=1)
    story.state(3, 4, by="c", at_once=False, x=0)
    assert "the past comes back" in story.wrong
    story = Story(x=0)
    story.op(1, 2, OK, 5, client="c", term=3, x=1)
    story.op(3, 4, OK, 6, client="c", term=2, x=2)
    assert "the past comes back: c: term 3" in story.wrong


def test_rows_that_differ_at_one_generation_are_shown() -> None:
    story = Story()
    story.state(1, 7, by="primary", text="network x 1\nnetwork y 1\n")
    story.state(2, 7, by="follower", text="network x 1\nnetwork y 2\n")
    assert "only primary: network y 1" in story.wrong
    assert "only follower: network y 2" in story.wrong


def test_deltas_that_overlap_differ_or_come_twice_are_found() -> None:
    story = Story(x=0)
    story.delta(1, 0, 3, x=1)
    story.delta(2, 2, 4, x=2)
    assert "overlap" in story.wrong
    story = Story(x=0)
    story.delta(1, 0, 1, x=1)
    story.delta(1, 0, 1, by="g", x=2)
    assert "is not the delta" in story.wrong
    story = Story(x=0)
    story.op(1, 4, OK, 1, x=1)
    story.delta(1, 0, 1, operation=1, x=1)
    story.delta(2, 1, 2, operation=1, x=1)
    assert "was applied twice" in story.wrong


def test_a_hole_between_deltas_needs_an_interruption() -> None:
    story = Story(x=0)
    story.delta(100, 0, 1)
    story.delta(101, 5, 6)
    assert "a hole" in story.wrong
    story.history.interruptions.append(Interruption(100.5, "kill"))
    assert story.wrong == ""


def test_a_deleted_row_is_gone_with_all_its_fields() -> None:
    story = Story(x=0)
    story.delete(1, 2, 1, "x")
    story.state(3, 1)
    assert story.wrong == ""
    story.state(4, 1, x=0)
    assert "has read 0, but it can only have been None" in story.wrong


def test_the_loss_of_power_takes_what_is_volatile_and_nothing_else() -> None:
    story = Story(x=0)
    story.op(1, 2, OK, 1, x=1, task=1)
    story.history.losses.append(PowerLoss(3, 5, 100))
    story.state(6, 200, x=1)
    assert story.wrong == ""
    story.state(7, 200, x=0)
    assert story.wrong != ""


def test_a_volatile_transaction_may_be_refused_when_the_power_was_lost_before_its_answer() -> None:
    for lost in (True, False):
        story = Story()
        story.op(1, 6, FAILED, task=1)
        story.delta(2, 0, 1, operation=1, task=1)
        if lost:
            story.history.losses.append(PowerLoss(3, 5, 100))
        assert bool(story.wrong) is not lost


def test_what_is_volatile_stays_when_only_the_process_is_killed() -> None:
    story = Story()
    story.op(1, 2, OK, 1, task=1)
    story.history.interruptions.append(Interruption(3, "kill"))
    story.state(6, 200)
    assert "has read None, but it can only have been 1" in story.wrong


def test_a_value_that_nobody_wrote_is_found() -> None:
    story = Story(x=0)
    story.op(1, 2, OK, 1, y=1)
    story.state(3, 1, y=1, x=77)
    assert "which nobody has written" in story.wrong


def run_of(seed: int) -> History:
    """What four clients of a right database see: each transaction takes effect at a random moment while it runs."""
    rng = random.Random(seed)
    story = Story(a=0, b=0, c=0)
    rows: dict[str, Value] = {"a": 0, "b": 0, "c": 0}
    free = dict.fromkeys(("c1", "c2", "c3", "c4"), 0.0)
    now = 0.0
    for generation in range(1, 40):
        now += 1.0
        client = rng.choice(list(free))
        begin = max(free[client], now - rng.uniform(0.1, 3.0))
        end = now + rng.uniform(0.0, 2.5)
        free[client] = end + 0.001
        if begin >= now or rng.random() < 0.1:
            begin, end = now - 0.0005, now + 0.0005
            client = f"once{generation}"
        names = rng.sample(sorted(rows), rng.randint(1, 3))
        writes: dict[str, Value] = {name: generation * 10 for name in names}
        reads = {name: rows[name] for name in names if rng.random() < 0.4}
        outcome = rng.choices([OK, UNKNOWN, FAILED], [8, 1, 1])[0]
        if outcome is FAILED:
            story.op(begin, end, FAILED, client=client, reads=reads, all_writes=writes)
            continue
        applied = outcome is OK or rng.random() < 0.5
        story.op(begin, end, outcome, generation if outcome is OK else 0, client=client, reads=reads, all_writes=writes)
        if applied:
            rows.update(writes)
        if rng.random() < 0.3:
            story.state(now + 0.001, generation, by=f"s{generation}", all_seen=rows)
    return story.history


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**9))
def test_every_run_of_a_right_database_is_accepted(seed: int) -> None:
    assert [str(violation) for violation in check(run_of(seed))] == []


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**9), st.data())
def test_a_final_state_without_an_acknowledged_write_is_never_accepted(seed: int, data: st.DataObject) -> None:
    history = run_of(seed)
    done = [operation for operation in history.operations if operation.outcome is OK]
    last = data.draw(st.sampled_from(done))
    lost = data.draw(st.sampled_from(sorted(last.writes)))
    after = [op for op in history.operations if op is not last and op.outcome is not FAILED and lost in op.writes]
    if any(op.returned > last.invoked for op in after):
        return  # somebody may have replaced it
    state = State("end", 1, 10**6, 10**6, 10**6 + 1, values={lost: "old"}, at_once=True)
    history.states.append(state)
    assert any(violation.rule == "linearizable register" for violation in check(history))


def test_many_clients_and_doubtful_writes_stay_cheap() -> None:
    story = Story(x=0)
    for number in range(1, 2000):
        outcome = UNKNOWN if number % 50 == 0 else OK
        story.op(number, number + 6.5, outcome, number if outcome is OK else 0, x=number * 10)
    begin = time.process_time()
    assert story.wrong == ""
    assert time.process_time() - begin < 10.0  # what is not cheap takes for ever


@pytest.mark.parametrize("field", ["writes", "generation"])
def test_an_ok_transaction_has_to_be_its_own_delta(field: str) -> None:
    story = Story(x=0)
    story.op(1, 2, OK, 4, x=1)
    story.delta(1.5, 3, 4 if field == "writes" else 5, operation=1, x=9 if field == "writes" else 1)
    assert story.wrong != ""
