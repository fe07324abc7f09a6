"""Datetimes as the API writes them."""

from __future__ import annotations

import calendar
import time
from datetime import datetime

EPOCH = "19700101T00:00:00Z"


def now() -> str:
    return stamp(time.time())


def stamp(seconds: float) -> str:
    """`YYYYMMDDThh:mm:ssZ` of a Unix time."""
    return time.strftime("%Y%m%dT%H:%M:%SZ", time.gmtime(seconds))


def seconds(text: str) -> float:
    """Unix time of a stored datetime."""
    if text.endswith("Z"):
        return calendar.timegm(time.strptime(text, "%Y%m%dT%H:%M:%SZ"))
    return datetime.strptime(text, "%Y%m%dT%H:%M:%S%z").timestamp()


def utc(text: str) -> str:
    """The same moment as we write it, to be compared as text: a client may give a time of another zone."""
    return text if text.endswith("Z") else stamp(seconds(text))
