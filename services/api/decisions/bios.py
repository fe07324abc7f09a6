"""BIOS strings: what a guest may be told about its machine (vm-lifecycle 4)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from shared.errors import ApiError
from shared.vm_defaults import GENERIC_BIOS_STRINGS

LONGEST: Final = 512


def check(strings: Mapping[str, str]) -> ApiError | None:
    """The first entry that is not one: INVALID_VALUE [key, value]."""
    for key, value in strings.items():
        printable = all(" " <= character <= "~" for character in value)
        if key not in GENERIC_BIOS_STRINGS or not 1 <= len(value) <= LONGEST or not printable:
            return ApiError("INVALID_VALUE", key, value)
    return None
