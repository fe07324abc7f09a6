"""The attach/activate automaton: its rules one by one, then all of them against a model that only keeps the facts."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from services.storage.automaton import (
    IllegalStep,
    IllegalTransition,
    InUse,
    Operation,
    State,
    Step,
    apply,
    route,
    step,
    superstate,
    transition,
)

D, ARO, ARW, XRO, XRW = (
    State.DETACHED,
    State.ATTACHED_RO,
    State.ATTACHED_RW,
    State.ACTIVATED_RO,
    State.ACTIVATED_RW,
)


def test_datapaths_of_a_disk_that_may_be_shared_do_not_exclude_each_other() -> None:
    """It is activated once for all of them, for writing."""
    states: dict[str, State] = {}
    done: list[Step] = []
    opening, closing = (Operation.ACTIVATE,), (Operation.DEACTIVATE, Operation.DETACH)
    for name, operations in (
        ("reader", (Operation.ATTACH_RO, *opening)),
        ("writer", (Operation.ATTACH_RW, *opening)),
        ("other", (Operation.ATTACH_RW, *opening, *closing)),
        ("writer", closing),
        ("reader", closing),
    ):
        for operation in operations:
            states, steps = apply(states, name, operation, shared=True)
            done += steps
    assert states == {}
    assert done == [Step.ATTACH, Step.ACTIVATE_RW, Step.DEACTIVATE, Step.DETACH]


@pytest.mark.parametrize(
    ("before", "operation", "after"),
    [
        (D, Operation.ATTACH_RW, ARW),
        (D, Operation.DETACH, D),
        (D, Operation.DEACTIVATE, D),
        (ARW, Operation.ATTACH_RO, ARW),
        (ARW, Operation.ACTIVATE, XRW),
        (ARO, Operation.DEACTIVATE, ARO),
        (XRO, Operation.ACTIVATE, XRO),
        (XRW, Operation.DEACTIVATE, ARW),
        (ARO, Operation.DETACH, D),
    ],
)
def test_a_datapath_moves_by_the_rules(before: State, operation: Operation, after: State) -> None:
    assert step(before, operation) is after


@pytest.mark.parametrize(
    ("before", "operation"),
    [
        (D, Operation.ACTIVATE),
        (ARO, Operation.ATTACH_RW),
        (XRO, Operation.ATTACH_RW),
        (XRO, Operation.DETACH),
        (XRW, Operation.DETACH),
    ],
)
def test_a_step_without_its_precondition_is_illegal(before: State, operation: Operation) -> None:
    with pytest.raises(IllegalStep):
        step(before, operation)


def test_the_superstate_is_the_strongest_of_all() -> None:
    assert superstate([]) is D
    assert superstate([ARO, D]) is ARO
    assert superstate([ARO, XRO]) is XRO
    assert superstate([ARW, XRO]) is XRW


def test_the_plugin_attaches_before_it_activates_and_deactivates_before_it_detaches() -> None:
    assert transition(D, XRW) == (Step.ATTACH, Step.ACTIVATE_RW)
    assert transition(XRO, D) == (Step.DEACTIVATE, Step.DETACH)
    assert transition(ARO, ARO) == ()


def test_a_second_reader_costs_the_plugin_nothing() -> None:
    states, steps = apply({"a": XRO}, "b", Operation.ATTACH_RO)
    assert steps == ()
    assert apply(states, "b", Operation.ACTIVATE)[1] == ()


def test_a_writer_cannot_join_a_reader() -> None:
    with pytest.raises(IllegalTransition):
        apply({"a": ARO}, "b", Operation.ATTACH_RW)


def test_the_only_writer_cannot_leave_a_reader_behind() -> None:
    with pytest.raises(IllegalTransition):
        apply({"a": ARW, "b": ARO}, "a", Operation.DETACH)


def test_an_activated_writer_is_alone() -> None:
    with pytest.raises(InUse) as refused:
        apply({"a": XRW, "b": ARW}, "b", Operation.ACTIVATE)
    assert refused.value.by == "a"
    with pytest.raises(InUse):
        apply({"a": XRW, "b": ARO}, "b", Operation.ACTIVATE)


def test_there_is_no_route_between_read_only_and_read_write() -> None:
    with pytest.raises(IllegalStep):
        route(XRO, XRW)


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("target", list(State))
def test_a_route_leads_where_it_says(state: State, target: State) -> None:
    if state.attached and target.attached and state.writable != target.writable:
        return
    for operation in route(state, target):
        state = step(state, operation)
    assert state is target


class Disk(RuleBasedStateMachine):
    """Random operations of four datapaths. The plug-in's view is built from its steps alone."""

    datapaths = st.sampled_from(["a", "b", "c", "d"])

    def __init__(self) -> None:
        super().__init__()
        self.states: dict[str, State] = {}
        self.plugin = D

    @rule(dp=datapaths, operation=st.sampled_from(list(Operation)))
    def operate(self, dp: str, operation: Operation) -> None:
        before = dict(self.states)
        try:
            self.states, steps = apply(self.states, dp, operation)
        except (IllegalStep, IllegalTransition, InUse):
            assert self.states == before
            return
        for done in steps:
            self.perform(done)

    def perform(self, done: Step) -> None:
        match done:
            case Step.ATTACH:
                assert self.plugin is D
                self.plugin = ARW if superstate(self.states.values()).writable else ARO
            case Step.ACTIVATE_RW:
                assert self.plugin is ARW
                self.plugin = XRW
            case Step.ACTIVATE_RO:
                assert self.plugin is ARO
                self.plugin = XRO
            case Step.DEACTIVATE:
                assert self.plugin.activated
                self.plugin = ARW if self.plugin.writable else ARO
            case Step.DETACH:
                assert self.plugin in (ARO, ARW)
                self.plugin = D

    @invariant()
    def the_plugin_is_where_the_superstate_is(self) -> None:
        assert self.plugin is superstate(self.states.values())

    @invariant()
    def an_activated_writer_is_alone(self) -> None:
        active = [state for state in self.states.values() if state.activated]
        assert len(active) <= 1 or not any(state.writable for state in active)

    @invariant()
    def nothing_detached_is_remembered(self) -> None:
        assert all(state.attached for state in self.states.values())


TestDisk = Disk.TestCase
