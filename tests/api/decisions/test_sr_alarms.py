"""When people hear that an SR is full."""

from __future__ import annotations

import pytest

from services.api.decisions.sr_alarms import Alarm, Threshold, threshold


def described(**settings: str) -> str:
    inner = "".join(f'<{name} value="{value}"/>' for name, value in settings.items())
    return f'<config><variable><name value="physical_utilisation"/>{inner}</variable></config>'


def test_what_is_not_said_has_a_default() -> None:
    assert threshold(described()) == Threshold(0.8, True, 60.0, 3600.0, 3)
    wanted = described(alarm_trigger_level="0.5", alarm_trigger_sense="low", alarm_trigger_period="0")
    assert threshold(wanted) == Threshold(0.5, False, 0.0, 3600.0, 3)


@pytest.mark.parametrize("text", ["", "x", "<config/>", "<config><variable><name value='cpu'/></variable></config>"])
def test_nobody_is_told_who_has_not_asked(text: str) -> None:
    assert threshold(text) is None


def test_numbers_that_are_none_leave_the_default() -> None:
    assert threshold(described(alarm_trigger_level="much")) == Threshold()


def test_an_alarm_comes_after_a_while_and_not_again_soon() -> None:
    alarm, wanted = Alarm(), Threshold(level=0.5, period=60, inhibit=100)
    assert not alarm.observe(wanted, 0.9, 0)
    assert not alarm.observe(wanted, 0.4, 30)
    assert not alarm.observe(wanted, 0.9, 40)
    assert alarm.observe(wanted, 0.9, 100)
    assert not alarm.observe(wanted, 0.9, 199)
    assert alarm.observe(wanted, 0.9, 200)
