"""Whether whole transactions, replayed in the order of their generations, explain all that anybody saw.

The order is known for nearly all of them: an OK transaction was told its generation, one without answer has it in its
delta when any follower received that. What remains are transactions without answer whose values appear in some state
although nobody received their delta (the process was killed in between, say). Those may stand anywhere after their
sending: every place is tried, as a set of possible worlds that each later read makes smaller. Worlds that differ in
nothing are one.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from tests.db.crash.records import History, Operation, Outcome, Published, State, Violation, shown
from tests.db.crash.registers import Register, Value, Values

WORLDS: Final = 2000
"""Possible worlds at once; a history that leaves more of them open is not decided, and says so."""

RULE: Final = "whole transactions in order"


@dataclass(frozen=True, slots=True)
class _World:
    """What every register holds, and which of the transactions of unknown place have happened."""

    values: Values
    placed: frozenset[int]


class Undecided(Exception):
    """More is open than can be looked at; make the history shorter or its transactions more certain."""


def violations(history: History) -> list[Violation]:
    placed, floating = _known(history)
    items: list[tuple[int, int, Operation | State | Published]] = [
        (operation.generation, 0, operation) for operation in placed
    ]
    items += [(delta.generation, 1, delta) for delta in history.published if delta.values]
    items += [(state.generation, 2, state) for state in history.states if state.values or state.complete]
    items.sort(key=lambda item: item[:2])
    twice = [
        f"generation {generation} was given to {count} transactions"
        for generation, count in Counter(operation.generation for operation in placed).items()
        if count > 1
    ]
    if twice:
        return [Violation(RULE, twice[0])]
    worlds = [_World(dict(history.initial), frozenset())]
    writers = _writers(history)
    for _, _, item in items:
        worlds = _branched(worlds, item, floating)
        following = [world for world in worlds if not _wrong(world, item)]
        if not following:
            return [Violation(RULE, _told(worlds[0], item, writers))]
        if isinstance(item, Operation):
            for world in following:
                world.values.update(item.writes)
        worlds = following
    return []


def _known(history: History) -> tuple[list[Operation], list[Operation]]:
    """Operations whose generation is known, and those without that have left a trace."""
    published = {delta.operation: delta.generation for delta in history.published if delta.operation}
    seen: set[tuple[Register, Value]] = set()
    for state in history.states:
        seen.update(state.values.items())
    for operation in history.operations:
        seen.update(operation.reads.items())
    for delta in history.published:
        seen.update(delta.values.items())
    placed, floating = [], []
    for operation in history.operations:
        if operation.outcome is Outcome.OK:
            placed.append(operation)
        elif operation.outcome is Outcome.UNKNOWN:
            if operation.number in published:
                placed.append(dataclasses.replace(operation, generation=published[operation.number]))
            elif any(item in seen or item[1] is None for item in operation.writes.items()):
                floating.append(operation)
    return placed, floating


def _branched(worlds: list[_World], item: Operation | State | Published, floating: list[Operation]) -> list[_World]:
    """With the worlds in which further transactions of unknown place have happened just before `item`."""
    until = item.at if isinstance(item, Published) else item.returned
    able = [operation for operation in floating if operation.invoked < until]
    if not able:
        return worlds
    result = list(worlds)
    known = {_identity(world, floating) for world in worlds}
    for world in result:  # it grows meanwhile
        for operation in able:
            if operation.number in world.placed or _wrong(world, operation):
                continue
            after = _World({**world.values, **operation.writes}, world.placed | {operation.number})
            if (identity := _identity(after, floating)) not in known:
                known.add(identity)
                result.append(after)
                if len(result) > WORLDS:
                    raise Undecided(f"{len(able)} transactions of unknown place before {item}")
    return result


def _identity(world: _World, floating: list[Operation]) -> tuple[frozenset[int], tuple[Value, ...]]:
    """Worlds can differ only in what the transactions of unknown place write."""
    registers = {register: None for operation in floating for register in operation.writes}
    return world.placed, tuple(world.values.get(register) for register in registers)


def _wrong(world: _World, item: Operation | State | Published) -> list[Register]:
    """Registers that are not as the item says."""
    values = world.values
    if isinstance(item, Operation):
        return [register for register, value in item.reads.items() if values.get(register) != value]
    wrong = [register for register, value in item.values.items() if values.get(register) != value]
    if isinstance(item, State) and item.complete:
        wrong += [register for register, value in values.items() if value is not None and register not in item.values]
    return wrong


def _writers(history: History) -> Mapping[Register, list[Operation]]:
    writers: dict[Register, list[Operation]] = {}
    for operation in history.operations:
        for register in operation.writes:
            writers.setdefault(register, []).append(operation)
    return writers


def _told(world: _World, item: Operation | State | Published, writers: Mapping[Register, list[Operation]]) -> str:
    wrong = _wrong(world, item)
    said: Mapping[Register, Value] = item.reads if isinstance(item, Operation) else item.values
    lines = [f"{item}: {len(wrong)} registers are not what the transactions before make them"]
    for register in wrong[:6]:
        is_, should = said.get(register), world.values.get(register)
        lines.append(f"  {shown(register)} is {is_!r}{_by(register, is_, writers)}")
        lines.append(f"    and should be {should!r}{_by(register, should, writers)}")
    lines += _halves(world, said, wrong, writers)
    return "\n".join(lines)


def _by(register: Register, value: Value, writers: Mapping[Register, list[Operation]]) -> str:
    if value is None:
        return ""
    made = [operation for operation in writers.get(register, ()) if operation.writes[register] == value]
    return f", written by {made[-1]}" if made else ", which nobody has written"


def _halves(
    world: _World, said: Mapping[Register, Value], wrong: list[Register], writers: Mapping[Register, list[Operation]]
) -> list[str]:
    """Transactions of which some fields are there and others not."""
    lines = []
    concerned = {operation.number: operation for register in wrong for operation in writers.get(register, ())}
    for operation in concerned.values():
        missing = [r for r in operation.writes if r in wrong and world.values.get(r) == operation.writes[r]]
        there = [r for r, value in operation.writes.items() if value is not None and said.get(r) == value]
        if missing and there:
            names = ", ".join(shown(register) for register in missing[:3])
            lines.append(f"  half of {operation} is there: {shown(there[0])} is, {names} not")
    return lines[:3]
