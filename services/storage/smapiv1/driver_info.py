"""What a driver says of itself (`sr_get_driver_info`), as the record of an SR type."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any, Final

from shared.contracts.storage import DriverInfo

log = logging.getLogger("storage.smapiv1")

CAPABILITIES: Final = frozenset(
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
_TEXTS: Final = ("name", "description", "vendor", "copyright", "driver_version", "required_api_version")


class Unusable(Exception):
    """A driver's description cannot be used; the text says why."""


def driver_info(driver: str, path: str, said: Any) -> DriverInfo:
    """`driver`: name of the executable without its `SR`. `said`: the driver's answer. Raises `Unusable`."""
    if not isinstance(said, Mapping):
        raise Unusable(f"its description is no struct: {said!r:.200}")
    for name in _TEXTS:
        if not isinstance(said.get(name), str):
            raise Unusable(f"its description has no text {name!r}")
    return DriverInfo(
        type=driver.lower(),
        name=said["name"],
        description=said["description"],
        vendor=said["vendor"],
        copyright=said["copyright"],
        version=said["driver_version"],
        required_api_version=said["required_api_version"],
        features=features(driver, _list(said, "capabilities")),
        configuration=_configuration(_list(said, "configuration")),
        driver_filename=path,
        supported_image_formats=[str(each) for each in said.get("supported_image_formats") or ()],
    )


def features(driver: str, capabilities: Iterable[Any]) -> dict[str, int]:
    """`NAME` or `NAME/<version>`; a version that is none counts as 1. Unknown names are dropped.

    Who says VDI_MIRROR can also be the target of a mirror, without saying VDI_MIRROR_IN.
    """
    found: dict[str, int] = {}
    for capability in capabilities:
        name, _, version = str(capability).partition("/")
        if name not in CAPABILITIES:
            log.warning("driver %s: unknown capability %r", driver, capability)
            continue
        found.setdefault(name, max(1, int(version)) if version.isdecimal() else 1)
    return found


def _list(said: Mapping[str, Any], name: str) -> list[Any]:
    if not isinstance(said.get(name), list):
        raise Unusable(f"its description has no list {name!r}")
    value: list[Any] = said[name]
    return value


def _configuration(entries: list[Any]) -> dict[str, str]:
    found = {}
    for entry in entries:
        if not isinstance(entry, Mapping) or not {"key", "description"} <= entry.keys():
            raise Unusable(f"its configuration holds {entry!r:.200}, which is no key with a description")
        found[str(entry["key"])] = str(entry["description"])
    return found
