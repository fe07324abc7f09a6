from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.vm import plan
from services.vm.backend import StopReason
from services.vm.plan import MicroOp, Reaction
from tests.vm import specs

FULL = specs.vm(vbds=[specs.disk()], vifs=[specs.vif()])


def flat(stages: plan.Plan) -> list[MicroOp]:
    return [op for stage in stages for op in stage]


def test_a_start_opens_devices_before_it_creates_and_survives_before_it_runs() -> None:
    assert plan.start(FULL, paused=False) == (
        (MicroOp.RESERVE,),
        (MicroOp.OPEN_DISKS, MicroOp.PLUG_VIFS),
        (MicroOp.CREATE,),
        (MicroOp.SURVIVE,),
        (MicroOp.UNPAUSE,),
    )


def test_a_vm_without_devices_asks_nobody() -> None:
    assert flat(plan.start(specs.vm(vbds=[specs.empty_cd()]), paused=True)) == [
        MicroOp.RESERVE,
        MicroOp.CREATE,
        MicroOp.SURVIVE,
    ]


def test_a_release_ends_the_domain_before_it_gives_the_devices_back_and_forgets_last() -> None:
    assert plan.release(FULL) == (
        (MicroOp.CONDEMN,),
        (MicroOp.DESTROY,),
        (MicroOp.CLOSE_DISKS, MicroOp.UNPLUG_VIFS),
        (MicroOp.FORGET,),
    )


@given(st.integers(min_value=0, max_value=5), st.booleans())
def test_undoing_a_start_undoes_every_stage_that_was_begun_in_reverse(begun: int, paused: bool) -> None:
    stages = plan.start(FULL, paused)[:begun]
    undone = flat(plan.undo(stages))
    expected = [plan.UNDO[op] for stage in reversed(stages) for op in stage if op in plan.UNDO]
    assert undone == expected


@pytest.mark.parametrize(
    ("fields", "reason", "uptime", "expected"),
    [
        ({}, StopReason.SHUTDOWN, 999, Reaction.HALT),
        ({"actions_after_shutdown": "restart"}, StopReason.SHUTDOWN, 1, Reaction.RESTART),
        ({}, StopReason.REBOOT, 1, Reaction.RESTART),
        ({"actions_after_reboot": "destroy"}, StopReason.REBOOT, 999, Reaction.HALT),
        ({"actions_after_crash": "restart"}, StopReason.CRASH, 999, Reaction.RESTART),
        ({"actions_after_crash": "restart"}, StopReason.CRASH, 119, Reaction.HALT),
        ({"actions_after_crash": "coredump_and_restart"}, StopReason.CRASH, 999, Reaction.RESTART),
        ({"actions_after_crash": "coredump_and_destroy"}, StopReason.CRASH, 999, Reaction.HALT),
        ({"actions_after_crash": "rename_restart"}, StopReason.CRASH, 999, Reaction.RESTART),
        ({"actions_after_crash": "preserve"}, StopReason.CRASH, 1, Reaction.PRESERVE),
        ({"actions_after_crash": "preserve"}, StopReason.DIED, 999, Reaction.HALT),
        ({"actions_after_crash": "restart"}, StopReason.DIED, 999, Reaction.RESTART),
        ({"actions_after_crash": "restart"}, StopReason.ENDED, 999, Reaction.HALT),
    ],
)
def test_what_a_guest_did_is_answered_by_its_actions(
    fields: dict[str, str], reason: StopReason, uptime: float, expected: Reaction
) -> None:
    assert plan.reaction(specs.vm(**fields), reason, uptime, 120) is expected


def test_a_guest_that_reboots_soon_after_its_start_waits() -> None:
    assert plan.pause_before_restart(StopReason.REBOOT, 10, 120, 15) == 15
    assert plan.pause_before_restart(StopReason.REBOOT, 121, 120, 15) == 0
    assert plan.pause_before_restart(StopReason.REBOOT, 0, 0, 15) == 0
