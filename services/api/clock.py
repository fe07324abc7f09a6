"""Datetimes as the API writes them."""

from __future__ import annotations

import calendar
import time

EPOCH = "19700101T00:00:00Z"


def now() -> str:
    return stamp(time.time())


def stamp(seconds: float) -> str:
    """`YYYYMMDDThh:mm:ssZ` of a Unix time."""
    return time.strftime("%Y%m%dT%H:%M:%SZ", time.gmtime(seconds))


def seconds(text: str) -> float:
    """Unix time of a stored datetime."""
    return calendar.timegm(time.strptime(text, "%Y%m%dT%H:%M:%SZ"))
