"""What a driver says of itself (`sr_get_driver_info`), as the record of an SR type."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from services.storage.plugins.features import parsed
from shared.contracts.storage import DriverInfo

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
    """`NAME` or `NAME/<version>`; unknown names are dropped."""
    return parsed(f"driver {driver}", capabilities)


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
