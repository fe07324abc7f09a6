"""IP addresses as clients write them."""

from __future__ import annotations

import ipaddress


def is_address(text: str, version: int) -> bool:
    try:
        return ipaddress.ip_address(text).version == version
    except ValueError:
        return False


def is_cidr(text: str, version: int) -> bool:
    """Whether it is an address with the length of its network's prefix, such as `10.0.0.5/24`."""
    address, _, prefix = text.partition("/")
    longest = 128 if version == 6 else 32
    return prefix.isdecimal() and len(prefix) < 4 and int(prefix) <= longest and is_address(address, version)
