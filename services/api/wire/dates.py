"""Datetimes on the wire: `20250102T03:04:05Z`, the date without dashes, the time with colons, no fractions."""

from __future__ import annotations

import re
from datetime import datetime

_FORM = re.compile(
    r"""(?P<year>\d{4})(?P<dash>-?)(?P<month>\d\d)(?P=dash)(?P<day>\d\d)
        [T ]
        (?P<time>\d\d:\d\d:\d\d)(?P<fraction>\.\d+)?
        (?P<zone>Z|[+-]\d\d:?\d\d)?""",
    re.VERBOSE | re.ASCII,
)


def canonical(text: str) -> str:
    """The form that is stored and sent. No zone means UTC; other zones are kept.

    A bare date, a time without seconds, an impossible date, or a fraction with a date without dashes: ValueError.
    Blanks after the zone are let pass, as the original does.
    """
    found = _FORM.fullmatch(text.rstrip(" "))
    if found is None or (found["fraction"] and not found["dash"]):
        raise ValueError(f"{text!r} is not a date and time")
    date = f"{found['year']}{found['month']}{found['day']}"
    datetime.strptime(f"{date}T{found['time']}", "%Y%m%dT%H:%M:%S")
    zone = found["zone"] or "Z"
    if zone != "Z":
        hours, minutes = int(zone[1:3]), int(zone[-2:])
        if hours > 23 or minutes > 59:
            raise ValueError(f"{text!r} has no such time zone")
        zone = "Z" if hours == minutes == 0 else f"{zone[0]}{hours:02}:{minutes:02}"
    return f"{date}T{found['time']}{zone}"
