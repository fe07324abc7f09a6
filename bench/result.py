"""One line of the table that `make bench` prints."""

from __future__ import annotations

import msgspec


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """A measurement beside what it is compared with, taken in the same run where that can be.

    `better`: "less" (a time) or "more" (a rate). `aim`: the ratio of `value` to `reference` wanted at most (at least).
    """

    name: str
    value: float
    unit: str
    reference_name: str
    reference: float
    aim: float | None = None
    better: str = "less"

    @property
    def ratio(self) -> float:
        return self.value / self.reference if self.reference else float("inf")

    @property
    def verdict(self) -> str:
        if self.aim is None:
            return ""
        reached = self.ratio <= self.aim if self.better == "less" else self.ratio >= self.aim
        return "reached" if reached else "missed"
