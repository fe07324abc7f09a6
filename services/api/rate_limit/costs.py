"""What calls cost, in tokens: one, unless a file says otherwise.

# comment
VM.start = 100
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

log = logging.getLogger("api.rate_limit")

USUAL: Final = 1.0


def read(path: str) -> dict[str, float]:
    """Message to cost. A file that cannot be read gives none, with a line in the log. `path` "": no file."""
    if not path:
        return {}
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        log.warning("the costs of calls cannot be read from %s, so that each costs %g: %s", path, USUAL, error)
        return {}
    return dict(parse(text.splitlines()))


def parse(lines: Iterable[str]) -> Mapping[str, float]:
    """Lines that say nothing useful are left out, with a line in the log."""
    costs: dict[str, float] = {}
    for line in lines:
        name, separator, value = line.partition("#")[0].partition("=")
        if not name.strip() and not separator:
            continue
        try:
            cost = float(value)
        except ValueError:
            cost = math.nan
        if not separator or not name.strip() or not 0 <= cost < math.inf:
            log.warning("no cost of a call: %r", line)
            continue
        costs[name.strip()] = cost
    return costs
