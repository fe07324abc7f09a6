"""The recorded history of a database, and the rules that it has to keep. Pure: no I/O, no clock.

What is recorded:

- `Operation`: a transaction of one client: when it was sent and answered, what it has read (by its preconditions:
  they held when it was committed), what it writes, and how it ended: OK, FAILED (it was refused: it never happened),
  UNKNOWN (no answer: it may have happened, or may yet).
- `State`: rows that somebody saw at one generation: all that the primary gave away (`at_once`: as they were at some
  moment between question and answer), or what a replica showed (as they were at its generation, whenever that was).
- `Published`: a delta as one follower received it. It names the operation that it came from.
- `PowerLoss`: what was not durable is gone; all volatile registers are absent afterwards. A transaction of nothing else
  that was under way may be refused later, although it had happened: its outcome is taken for UNKNOWN.
- `Interruption`: something was killed or cut off at that time, so followers may have missed deltas.

`check` decides, and says what is wrong in words:

1. **Each register is linearizable** (`linear.py`, the algorithm of Wing and Gong as Lowe and knossos have it): there is
   one moment for each OK operation between its sending and its answer, one or none after its sending for each UNKNOWN
   one, none for a FAILED one, so that every read gives what was written last. So an acknowledged write is never lost, a
   refused one never appears, a doubtful one appears once or never. This general problem is hard; values that no two
   operations share, and few clients, keep it cheap: a read then names its write, a doubtful write that nobody saw can
   be left out, and the moments that remain possible are few.
2. **All registers together are serializable in the order of generations** (`order.py`): replaying whole transactions
   in the order that the database itself claims gives every read, every state and every delta that anybody saw. So a
   transaction is there with all its fields or not at all, and a claimed generation is the true one.
3. **That order agrees with the clock**: what was answered before something else was sent has the lower generation.
4. **Nobody sees the past come back**: for each client and follower, terms and generations never fall.
5. **One generation, one state**: all who wrote down the text of all rows at a generation have the same, byte for byte.
6. **Deltas form one chain**: all that followers of one term received, put together, are the same where they overlap,
   belong to one operation each, and follow one another without a hole unless something was interrupted there.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence

from tests.db.crash import linear, order
from tests.db.crash.records import History, Operation, Outcome, Published, State, Violation
from tests.db.crash.registers import Register, Value, Values


def check(history: History) -> list[Violation]:
    """Everything that is wrong, at most a few of each kind; empty for a history that keeps all rules."""
    whole = complete(history)
    return [
        *linear.violations(whole),
        *order.violations(whole),
        *_clock(whole),
        *_backwards(whole),
        *_texts(whole.states),
        *_chain(whole),
    ]


def complete(history: History) -> History:
    """The same with all that deletions and losses of power write: every register of the row, every volatile one."""
    paths: dict[tuple[str, str], set[Register]] = {}
    for values in _all_values(history):
        for register in values:
            paths.setdefault(register[:2], set()).add(register)
    operations = [
        dataclasses.replace(operation, writes=_with_rows(operation.writes, paths), outcome=_outcome(operation, history))
        for operation in history.operations
    ]
    lost = {register: None for registers in paths.values() for register in registers if history.volatile(register)}
    operations += [
        Operation(
            number=-number,
            client="the loss of power",
            invoked=loss.invoked,
            returned=loss.returned,
            outcome=Outcome.OK,
            writes=dict(lost),
            generation=loss.generation,
        )
        for number, loss in enumerate(history.losses, 1)
    ]
    return History(
        initial=history.initial,
        operations=operations,
        states=history.states,
        published=history.published,
        losses=[],
        interruptions=sorted(history.interruptions, key=lambda item: item.at),
        volatile=history.volatile,
    )


def _outcome(operation: Operation, history: History) -> Outcome:
    if operation.outcome is not Outcome.FAILED or not all(map(history.volatile, operation.writes)):
        return operation.outcome
    during = (loss.invoked <= operation.returned and operation.invoked <= loss.returned for loss in history.losses)
    return Outcome.UNKNOWN if any(during) else operation.outcome


def _all_values(history: History) -> Iterable[Mapping[Register, Value]]:
    yield history.initial
    for operation in history.operations:
        yield operation.writes
        yield operation.reads
    for state in history.states:
        yield state.values
    for published in history.published:
        yield published.values


def _with_rows(writes: Mapping[Register, Value], paths: Mapping[tuple[str, str], set[Register]]) -> Values:
    whole: Values = {}
    for (cls, ref, path), value in writes.items():
        if path == "" and value is None:
            whole.update({register: None for register in paths[cls, ref]})
        else:
            whole[cls, ref, path] = value
    return whole


# ---- 3: generations agree with the clock


def _clock(history: History) -> list[Violation]:
    events: list[tuple[int, int, Operation | State]] = [
        (operation.generation, 0, operation)
        for operation in history.operations
        if operation.outcome is Outcome.OK and operation.generation
    ]
    events += [(state.generation, 1, state) for state in history.states if state.at_once]
    events.sort(key=lambda event: event[:2])
    latest: Operation | State | None = None
    for _, _, event in events:
        if latest is not None and event.returned < latest.invoked:
            text = f"{event} was over before {latest} was sent, but has the higher generation"
            return [Violation("order and clock", text)]
        if latest is None or event.invoked > latest.invoked:
            latest = event
    return []


# ---- 4: nobody sees the past come back


def _backwards(history: History) -> list[Violation]:
    seen: dict[str, list[tuple[float, int, int, str]]] = {}
    for operation in history.operations:
        if operation.outcome is Outcome.OK and operation.term:
            seen.setdefault(operation.client, []).append(
                (operation.returned, operation.term, operation.generation, str(operation))
            )
    for state in history.states:
        seen.setdefault(state.observer, []).append((state.returned, state.term, state.generation, str(state)))
    for delta in history.published:
        seen.setdefault(f"{delta.follower}'s deltas", []).append((delta.at, delta.term, delta.generation, str(delta)))
    found = []
    for observer, events in seen.items():
        events.sort(key=lambda event: event[0])
        for (_, term, generation, before), (_, later_term, later_generation, after) in itertools.pairwise(events):
            if later_term < term:
                found.append(Violation("the past comes back", f"{observer}: term {term} in {before}, then {after}"))
                break
            if later_generation < generation:
                found.append(Violation("the past comes back", f"{observer}: {before}, then {after}"))
                break
    return found


# ---- 5: one generation, one state


def _texts(states: Sequence[State]) -> list[Violation]:
    known: dict[int, State] = {}
    for state in states:
        if not state.text:
            continue
        other = known.setdefault(state.generation, state)
        if other.text != state.text:
            return [Violation("one generation, one state", _difference(other, state))]
    return []


def _difference(one: State, other: State) -> str:
    lines, others = one.text.splitlines(), other.text.splitlines()
    only, only_other = [line for line in lines if line not in others], [line for line in others if line not in lines]
    parts = [f"{one} are not {other}"]
    parts += [f"  only {one.observer}: {line[:400]}" for line in only[:3]]
    parts += [f"  only {other.observer}: {line[:400]}" for line in only_other[:3]]
    return "\n".join(parts)


# ---- 6: one chain of deltas


def _chain(history: History) -> list[Violation]:
    rule = "one chain of deltas"
    chain: dict[int, Published] = {}
    owner: dict[int, Published] = {}
    outcomes = {operation.number: operation for operation in history.operations}
    for delta in history.published:
        if delta.generation == delta.previous:
            continue  # a new term: nothing in it
        other = chain.setdefault(delta.generation, delta)
        if (other.term, other.previous, other.operation, other.values) != (
            delta.term,
            delta.previous,
            delta.operation,
            delta.values,
        ):
            return [Violation(rule, f"{other} is not {delta}")]
        if not delta.operation:
            continue
        first = owner.setdefault(delta.operation, delta)
        if first.generation != delta.generation:
            return [Violation(rule, f"#{delta.operation} was applied twice: {first}, and {delta}")]
        operation = outcomes.get(delta.operation)
        if operation is None:
            continue
        if operation.outcome is Outcome.FAILED:
            return [Violation(rule, f"{operation} was refused ({operation.why}), and yet there is {delta}")]
        if operation.outcome is Outcome.OK and operation.generation != delta.generation:
            return [Violation(rule, f"{operation} is {delta}")]
    links = sorted(chain.values(), key=lambda delta: delta.generation)
    for before, after in itertools.pairwise(links):
        if after.term < before.term:
            return [Violation(rule, f"{after} is of an older term than {before}")]
        if after.previous < before.generation:
            return [Violation(rule, f"{before} and {after} overlap")]
        if after.previous > before.generation and not _interrupted(history, before.at, after.at):
            return [Violation(rule, f"a hole, and nothing was interrupted: {before}, then {after}")]
    return []


def _interrupted(history: History, begin: float, end: float) -> bool:
    return any(begin - SLACK <= item.at <= end for item in history.interruptions)


SLACK = 30.0
"""Seconds before a hole in which what caused it may lie: a transaction may wait that long for its answer."""
