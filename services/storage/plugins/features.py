"""The features that an SR type may say it has, as rows of class SM hold them: name to version."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Final

log = logging.getLogger("storage.features")

KNOWN: Final = frozenset(
    (
        *(f"SR_{name}" for name in ("CREATE", "DELETE", "ATTACH", "DETACH", "SCAN", "PROBE", "UPDATE", "METADATA")),
        *("SR_SUPPORTS_LOCAL_CACHING", "SR_TRIM", "SR_MULTIPATH", "SR_CACHING", "SR_STATS"),
        *(f"VDI_{name}" for name in ("CREATE", "DELETE", "ATTACH", "DETACH", "MIRROR", "MIRROR_IN", "RESIZE")),
        *(f"VDI_{name}" for name in ("RESIZE_ONLINE", "CLONE", "SNAPSHOT", "ACTIVATE", "ACTIVATE_READONLY")),
        *(f"VDI_{name}" for name in ("DEACTIVATE", "UPDATE", "INTRODUCE", "GENERATE_CONFIG", "ATTACH_OFFLINE")),
        *(f"VDI_{name}" for name in ("RESET_ON_BOOT", "CONFIG_CBT", "COMPOSE", "READ_CACHING", "REVERT")),
        *("LARGE_VDI", "THIN_PROVISIONING"),
    )
)


def parsed(whose: str, said: Iterable[object]) -> dict[str, int]:
    """`NAME` or `NAME/<version>`; a version that is none counts as 1, and the first of two is taken. Unknown names are
    dropped. (Who says VDI_MIRROR can also be the target of a mirror: whoever looks for VDI_MIRROR_IN knows that.)
    """
    found: dict[str, int] = {}
    for feature in said:
        name, _, version = str(feature).partition("/")
        if name in KNOWN:
            found.setdefault(name, max(1, int(version)) if version.isdecimal() else 1)
        else:
            log.warning("%s: unknown feature %r", whose, feature)
    return found
