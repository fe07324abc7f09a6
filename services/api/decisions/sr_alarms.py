"""Alarms about how full an SR is: its `other_config:perfmon` says when people want to hear of it (storage 4.7)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from lxml import etree

KEY: Final = "perfmon"
NAMES: Final = frozenset({"physical_utilisation", "physical_utilization"})
MESSAGE: Final = "ALARM"
_LIMIT: Final = 64 * 1024
"""Characters of a description that are looked at."""


@dataclass(frozen=True, slots=True)
class Threshold:
    """`level`: part of the SR's size. `high`: it is an alarm to be above it, else below. `period`: seconds for which
    that lasts before anybody is told. `inhibit`: seconds without a further alarm.
    """

    level: float = 0.8
    high: bool = True
    period: float = 60.0
    inhibit: float = 3600.0
    priority: int = 3


def threshold(perfmon: str) -> Threshold | None:
    """What the XML wants to be told about utilisation; None for nothing, or what is no such XML."""
    if not perfmon or len(perfmon) > _LIMIT:
        return None
    try:
        root = etree.fromstring(perfmon.encode(), etree.XMLParser(resolve_entities=False, no_network=True))
    except etree.XMLSyntaxError:
        return None
    for variable in root.iter("variable"):
        said = {child.tag: child.get("value", "") for child in variable if isinstance(child.tag, str)}
        if said.get("name") in NAMES:
            return _threshold(said)
    return None


def _threshold(said: dict[str, str]) -> Threshold:
    default = Threshold()
    try:
        return Threshold(
            level=float(said.get("alarm_trigger_level", default.level)),
            high=said.get("alarm_trigger_sense", "high") != "low",
            period=float(said.get("alarm_trigger_period", default.period)),
            inhibit=float(said.get("alarm_auto_inhibit_period", default.inhibit)),
            priority=min(max(int(said.get("alarm_priority", default.priority)), 1), 5),
        )
    except ValueError:
        return default


@dataclass(slots=True)
class Alarm:
    """One SR's, over time. `since`: when it went over the level; `told`: when people were told last."""

    since: float | None = None
    told: float | None = None

    def observe(self, wanted: Threshold, value: float, now: float) -> bool:
        """Whether people are to be told now. Times in seconds of one clock."""
        over = value > wanted.level if wanted.high else value < wanted.level
        if not over:
            self.since = None
            return False
        if self.since is None:
            self.since = now
        if now - self.since < wanted.period or (self.told is not None and now - self.told < wanted.inhibit):
            return False
        self.told = now
        return True


def body(value: float, perfmon: str) -> str:
    """Of the message, as programs that read alarms expect it."""
    return f"value: {value:f}\nconfig:\n{perfmon}"
