"""Whether one register is linearizable: the search of Wing and Gong, done just in time as Lowe describes it.

Time is walked once. A *configuration* is what the register may hold now, and which of the operations under way have
taken effect already. When an operation returns it must have taken effect: every configuration is led on by letting
operations under way take effect, in any order that their reads allow, until that one has. When none is left, there is
no such order. An operation without answer never returns: it may take effect at any later time, once, or never.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from tests.db.crash.records import History, Operation, Outcome, State, Violation, shown
from tests.db.crash.registers import Register, Value

REPORTED: Final = 3
"""Registers told of; one fault usually breaks many."""


@dataclass(frozen=True, slots=True)
class Step:
    """What an operation does to one register. `reads`, `writes`: whether it does."""

    name: str
    invoked: float
    returned: float
    reads: bool = False
    read: Value = None
    writes: bool = False
    write: Value = None


_Configuration = tuple[Value, frozenset[int]]


def violations(history: History) -> list[Violation]:
    found = []
    for register, steps in _steps(history).items():
        text = counterexample(steps, history.initial.get(register))
        if text:
            found.append(Violation("linearizable register", f"{shown(register)}: {text}{_refused(history, register)}"))
            if len(found) == REPORTED:
                break
    return found


def _steps(history: History) -> Mapping[Register, list[Step]]:
    seen: dict[Register, set[Value]] = {}
    states = [state for state in history.states if state.at_once]
    for values in [operation.reads for operation in history.operations] + [state.values for state in states]:
        for register, value in values.items():
            seen.setdefault(register, set()).add(value)
    registers: dict[Register, list[Step]] = {}
    for operation in history.operations:
        if operation.outcome is Outcome.FAILED:
            continue
        for register in {**operation.reads, **operation.writes}:
            doubtful = operation.outcome is Outcome.UNKNOWN
            if doubtful and not _matters(operation, register, seen):
                continue
            step = Step(
                name=str(operation),
                invoked=operation.invoked,
                returned=math.inf if doubtful else operation.returned,
                reads=register in operation.reads,
                read=operation.reads.get(register),
                writes=register in operation.writes,
                write=operation.writes.get(register),
            )
            registers.setdefault(register, []).append(step)
    for state in states:
        for register in registers.keys() | state.values.keys() if state.complete else state.values.keys():
            read = Step(str(state), state.invoked, state.returned, reads=True, read=state.values.get(register))
            registers.setdefault(register, []).append(read)
    return registers


def _matters(operation: Operation, register: Register, seen: Mapping[Register, set[Value]]) -> bool:
    """A doubtful write that nobody read may as well not have happened. Absence is seen by nothing being there."""
    if register not in operation.writes:
        return False
    value = operation.writes[register]
    return value is None or value in seen.get(register, ())


def counterexample(steps: Iterable[Step], initial: Value) -> str:
    """Empty when there is an order; else the first answer that none explains, in words."""
    every = list(steps)
    events = [(step.invoked, 0, index) for index, step in enumerate(every)]
    events += [(step.returned, 1, index) for index, step in enumerate(every) if step.returned < math.inf]
    events.sort()
    running: set[int] = set()
    possible: set[_Configuration] = {(initial, frozenset())}
    for _, returns, index in events:
        if not returns:
            running.add(index)
            continue
        following = _led_on(possible, every, running, index)
        if not following:
            return _told(every[index], possible, [every[other] for other in sorted(running - {index})])
        running.discard(index)
        possible = {(value, done - {index}) for value, done in following}
    return ""


def _led_on(possible: set[_Configuration], steps: list[Step], running: set[int], until: int) -> set[_Configuration]:
    """All configurations in which `until` has taken effect."""
    result: set[_Configuration] = set()
    known = set(possible)
    todo = list(possible)
    while todo:
        value, done = todo.pop()
        if until in done:
            result.add((value, done))
            continue
        for index in running:
            step = steps[index]
            if index in done or (step.reads and step.read != value):
                continue
            after = (step.write if step.writes else value, done | {index})
            if after not in known:
                known.add(after)
                todo.append(after)
    return result


def _told(step: Step, possible: set[_Configuration], running: list[Step]) -> str:
    could = ", ".join(sorted({repr(value) for value, _ in possible}))
    does = f"has read {step.read!r}" if step.reads else f"has written {step.write!r}"
    lines = [f"{step.name} {does}, but it can only have been {could}"]
    lines += [f"  at the same time: {other.name}{_effect(other)}" for other in running[:5]]
    return "\n".join(lines)


def _effect(step: Step) -> str:
    parts = [f" reads {step.read!r}"] if step.reads else []
    parts += [f" writes {step.write!r}"] if step.writes else []
    return "".join(parts)


def _refused(history: History, register: Register) -> str:
    """Operations that were refused, and whose value somebody saw."""
    seen: set[Value] = {operation.reads.get(register) for operation in history.operations}
    seen |= {state.values.get(register) for state in history.states if isinstance(state, State)}
    lines = [
        f"\n  refused: {operation} writes {operation.writes[register]!r} ({operation.why})"
        for operation in history.operations
        if operation.outcome is Outcome.FAILED
        and operation.writes.get(register) is not None
        and operation.writes[register] in seen
    ]
    return "".join(lines[:3])
