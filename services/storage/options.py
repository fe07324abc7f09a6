"""What the storage service alone is told."""

from __future__ import annotations

import msgspec


class StorageOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Times in seconds.

    `qemu_img`: name or path of the program. `lock_timeout`: how long to wait for another host that rearranges images.
    `retry_interval`: between attempts to attach an SR again that should be attached.
    """

    qemu_img: str = "qemu-img"
    qemu_img_timeout: float = 120.0
    lock_timeout: float = 30.0
    retry_interval: float = 5.0
