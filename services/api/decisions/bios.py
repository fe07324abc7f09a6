"""BIOS strings: what a guest may be told about its machine (vm-lifecycle 4)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from shared.errors import ApiError

GENERIC_STRINGS: Final = {
    "bios-vendor": "Xen",
    "bios-version": "",
    "system-manufacturer": "Xen",
    "system-product-name": "HVM domU",
    "system-version": "",
    "system-serial-number": "",
    "baseboard-manufacturer": "",
    "baseboard-product-name": "",
    "baseboard-version": "",
    "baseboard-serial-number": "",
    "baseboard-asset-tag": "",
    "baseboard-location-in-chassis": "",
    "enclosure-asset-tag": "",
    "hp-rombios": "",
    "oem-1": "Xen",
    "oem-2": "MS_VM_CERT/SHA1/bdbeb6e0a816d43fa6d3fe8aaef04c2bad9d3e3d",
}

LONGEST: Final = 512


def check(strings: Mapping[str, str]) -> ApiError | None:
    """The first entry that is not one: INVALID_VALUE [key, value]."""
    for key, value in strings.items():
        printable = all(" " <= character <= "~" for character in value)
        if key not in GENERIC_STRINGS or not 1 <= len(value) <= LONGEST or not printable:
            return ApiError("INVALID_VALUE", key, value)
    return None
