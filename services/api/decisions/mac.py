"""MAC addresses as clients write them."""

from __future__ import annotations

import re
from typing import Final

_MAC: Final = re.compile(r"[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}")


def is_mac(text: str) -> bool:
    return _MAC.fullmatch(text) is not None
