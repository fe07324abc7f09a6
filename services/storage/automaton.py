"""Who has a disk open, as a state machine without I/O.

Each datapath of a disk is in one `State`. The disk as the plug-in sees it is in one too: the superstate over all its
datapaths on this host. A step of a datapath changes the superstate or not; what the plug-in has to do is the way from
the old superstate to the new one. Rules: the SMAPIv2 automaton, plus one that it leaves to its back ends: an
activated writer is alone. Disks that may be shared are free of both restrictions: they are attached and activated once
for all their datapaths, for writing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum


class State(StrEnum):
    """Of one datapath, or of a disk over all its datapaths."""

    DETACHED = "detached"
    ATTACHED_RO = "attached-ro"
    ATTACHED_RW = "attached-rw"
    ACTIVATED_RO = "activated-ro"
    ACTIVATED_RW = "activated-rw"

    @property
    def attached(self) -> bool:
        """Attached or more."""
        return self is not State.DETACHED

    @property
    def activated(self) -> bool:
        return self in (State.ACTIVATED_RO, State.ACTIVATED_RW)

    @property
    def writable(self) -> bool:
        return self in (State.ATTACHED_RW, State.ACTIVATED_RW)


class Operation(StrEnum):
    """What is asked of one datapath."""

    ATTACH_RO = "attach-ro"
    ATTACH_RW = "attach-rw"
    ACTIVATE = "activate"
    DEACTIVATE = "deactivate"
    DETACH = "detach"


class Step(StrEnum):
    """What the plug-in is told to do."""

    ATTACH = "attach"
    ACTIVATE_RO = "activate-ro"
    ACTIVATE_RW = "activate-rw"
    DEACTIVATE = "deactivate"
    DETACH = "detach"


class IllegalStep(Exception):
    """The datapath is not in a state that allows the operation."""


class IllegalTransition(Exception):
    """The disk would have to change between read-only and read-write while it is attached."""


class InUse(Exception):
    """A writer and another datapath would be activated at the same time. `by`: the one that is."""

    def __init__(self, by: str) -> None:
        self.by = by
        super().__init__(f"activated by {by}")


def attached(writable: bool) -> State:
    return State.ATTACHED_RW if writable else State.ATTACHED_RO


def activated(writable: bool) -> State:
    return State.ACTIVATED_RW if writable else State.ACTIVATED_RO


_STEPS: Mapping[tuple[State, Operation], State] = {
    (State.DETACHED, Operation.ATTACH_RO): State.ATTACHED_RO,
    (State.DETACHED, Operation.ATTACH_RW): State.ATTACHED_RW,
    (State.DETACHED, Operation.DEACTIVATE): State.DETACHED,
    (State.DETACHED, Operation.DETACH): State.DETACHED,
    (State.ATTACHED_RO, Operation.ATTACH_RO): State.ATTACHED_RO,
    (State.ATTACHED_RO, Operation.ACTIVATE): State.ACTIVATED_RO,
    (State.ATTACHED_RO, Operation.DEACTIVATE): State.ATTACHED_RO,
    (State.ATTACHED_RO, Operation.DETACH): State.DETACHED,
    (State.ATTACHED_RW, Operation.ATTACH_RO): State.ATTACHED_RW,
    (State.ATTACHED_RW, Operation.ATTACH_RW): State.ATTACHED_RW,
    (State.ATTACHED_RW, Operation.ACTIVATE): State.ACTIVATED_RW,
    (State.ATTACHED_RW, Operation.DEACTIVATE): State.ATTACHED_RW,
    (State.ATTACHED_RW, Operation.DETACH): State.DETACHED,
    (State.ACTIVATED_RO, Operation.ATTACH_RO): State.ACTIVATED_RO,
    (State.ACTIVATED_RO, Operation.ACTIVATE): State.ACTIVATED_RO,
    (State.ACTIVATED_RO, Operation.DEACTIVATE): State.ATTACHED_RO,
    (State.ACTIVATED_RW, Operation.ATTACH_RO): State.ACTIVATED_RW,
    (State.ACTIVATED_RW, Operation.ATTACH_RW): State.ACTIVATED_RW,
    (State.ACTIVATED_RW, Operation.ACTIVATE): State.ACTIVATED_RW,
    (State.ACTIVATED_RW, Operation.DEACTIVATE): State.ATTACHED_RW,
}
"""Every legal step of one datapath; what is not here is illegal."""


def step(state: State, operation: Operation) -> State:
    """The datapath's next state. Raises `IllegalStep`."""
    try:
        return _STEPS[state, operation]
    except KeyError:
        raise IllegalStep(f"{operation} of a datapath that is {state}") from None


def superstate(states: Iterable[State]) -> State:
    """Activated if any is, else attached if any is; read-write if any is."""
    present = [state for state in states if state.attached]
    if not present:
        return State.DETACHED
    writable = any(state.writable for state in present)
    return activated(writable) if any(state.activated for state in present) else attached(writable)


def transition(old: State, new: State, *, shared: bool = False) -> tuple[Step, ...]:
    """What the plug-in must do between two superstates, in order. Raises `IllegalTransition`.

    `shared`: for a disk that several may write to, where it makes no difference who writes.
    """
    if old.attached and new.attached and old.writable != new.writable and not shared:
        raise IllegalTransition(f"from {old} to {new}")
    steps: list[Step] = []
    if new.attached and not old.attached:
        steps.append(Step.ATTACH)
    if new.activated and not old.activated:
        steps.append(Step.ACTIVATE_RW if new.writable or shared else Step.ACTIVATE_RO)
    if old.activated and not new.activated:
        steps.append(Step.DEACTIVATE)
    if old.attached and not new.attached:
        steps.append(Step.DETACH)
    return tuple(steps)


def apply(
    states: Mapping[str, State], datapath: str, operation: Operation, *, shared: bool = False
) -> tuple[dict[str, State], tuple[Step, ...]]:
    """One operation of one datapath: the states of all datapaths afterwards, and the plug-in's steps.

    Raises `IllegalStep`, `IllegalTransition` or `InUse`; then nothing has changed.
    """
    before = states.get(datapath, State.DETACHED)
    after = step(before, operation)
    others = {name: state for name, state in states.items() if name != datapath and state.attached}
    if after.activated and not before.activated and not shared:
        for name, state in others.items():
            if state.activated and (state.writable or after.writable):
                raise InUse(name)
    result = others | {datapath: after} if after.attached else others
    return result, transition(superstate(states.values()), superstate(result.values()), shared=shared)


def route(state: State, target: State) -> tuple[Operation, ...]:
    """The operations that bring one datapath from a state to another. Raises `IllegalStep` when there is no way.

    The way between read-only and read-write is through DETACHED and must be asked for as such.
    """
    if state.attached and target.attached and state.writable != target.writable:
        raise IllegalStep(f"from {state} to {target}")
    operations: list[Operation] = []
    if target.attached and not state.attached:
        operations.append(Operation.ATTACH_RW if target.writable else Operation.ATTACH_RO)
    if target.activated and not state.activated:
        operations.append(Operation.ACTIVATE)
    if state.activated and not target.activated:
        operations.append(Operation.DEACTIVATE)
    if state.attached and not target.attached:
        operations.append(Operation.DETACH)
    return tuple(operations)
