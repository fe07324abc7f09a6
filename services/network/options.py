"""What the network service alone is told."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec


class Mode(StrEnum):
    """AUTO: bridges where this process may make them, else user-mode networking in each QEMU."""

    AUTO = "auto"
    BRIDGE = "bridge"
    USER = "user"


class NetworkOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`prefix`: starts the name of every device made here, so that hosts which share a kernel do not clash.

    `interfaces`: names (globs) of virtual Ethernet devices that count as the host's NICs; physical ones always do.
    `reconcile_after`: seconds between the two looks after a restart at which a VM must be missing for its taps to go.
    """

    prefix: Annotated[str, msgspec.Meta(pattern=r"^[a-zA-Z0-9-]{0,6}$")] = ""
    mode: Mode = Mode.AUTO
    interfaces: tuple[str, ...] = ("eth*",)
    reconcile_after: float = 30.0
