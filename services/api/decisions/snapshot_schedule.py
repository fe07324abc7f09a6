"""What a VMSS may say about when and how many snapshots are taken."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from shared.errors import ApiError

RETAINED: Final = range(1, 11)

DAYS: Final = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")

MINUTES: Final = frozenset({"0", "15", "30", "45"})
HOURS: Final = frozenset(map(str, range(24)))


def check_retained(value: int) -> ApiError | None:
    return None if value in RETAINED else ApiError("INVALID_VALUE", "retained_snapshots", value)


def check_schedule(schedule: Mapping[str, str]) -> ApiError | None:
    """The first entry that is wrong: INVALID_VALUE ["schedule:<key>", value]."""
    for key, value in schedule.items():
        if not _is_valid(key, value):
            return ApiError("INVALID_VALUE", f"schedule:{key}", value)
    return None


def _is_valid(key: str, value: str) -> bool:
    if key == "min":
        return value in MINUTES
    if key == "hour":
        return value in HOURS
    return key == "days" and all(day.strip().lower() in DAYS for day in value.split(","))
