"""What a volume plug-in says of itself, and the scripts that it has, as the record of an SR type."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from services.storage.plugins import features
from services.storage.smapiv3 import compat
from services.storage.smapiv3.interface_v5 import SR, Plugin, QueryResult, Volume
from services.storage.smapiv3.scripts import Scripts
from shared.contracts.storage import DriverInfo

NONPERSISTENT: Final = "NONPERSISTENT"
"""Of datapaths: they can forget by themselves what a VM has written."""

RENAMED: Final = {"VDI_DESTROY": "VDI_DELETE"}

OF_SCRIPTS: Final[Mapping[Callable[..., Any], str]] = {
    SR.attach: "SR_ATTACH",
    SR.create: "SR_CREATE",
    SR.destroy: "SR_DELETE",
    SR.detach: "SR_DETACH",
    SR.ls: "SR_SCAN",
    SR.stat: "SR_UPDATE",
    SR.probe: "SR_PROBE",
    Volume.create: "VDI_CREATE",
    Volume.clone: "VDI_CLONE",
    Volume.snapshot: "VDI_SNAPSHOT",
    Volume.resize: "VDI_RESIZE",
    Volume.destroy: "VDI_DELETE",
    Volume.stat: "VDI_UPDATE",
}
"""Who has the script has the feature."""
ALWAYS: Final = ("VDI_ATTACH", "VDI_DETACH", "VDI_ACTIVATE", "VDI_DEACTIVATE", "VDI_INTRODUCE")


class WrongVersion(Exception):
    """The plug-in asks for a version of the interface that is not supported."""

    def __init__(self, name: str, version: str) -> None:
        super().__init__(f"{name} needs version {version!r} of SMAPIv3; there are {', '.join(compat.SUPPORTED)}")


async def query(scripts: Scripts) -> QueryResult:
    """Asks a plug-in what it is; from then on its version is known. Raises what calls raise, and `WrongVersion`."""
    found = await scripts.calls()(Plugin.query)
    if found.required_api_version not in compat.SUPPORTED:
        raise WrongVersion(found.name, found.required_api_version)
    scripts.version = found.required_api_version
    return found


async def features_by_scripts(scripts: Scripts) -> list[str]:
    return [feature for declared, feature in OF_SCRIPTS.items() if await scripts.has(declared)]


def driver_info(kind: str, said: QueryResult, by_scripts: list[str]) -> DriverInfo:
    """`kind`: the SR type. Who can clone can also make disks forget what a VM has written."""
    names = [RENAMED.get(feature, feature) for feature in said.features]
    known = features.parsed(kind, [*names, *by_scripts, *ALWAYS])
    if "VDI_CLONE" in known:
        known.setdefault("VDI_RESET_ON_BOOT", 2)
    return DriverInfo(
        type=kind,
        name=said.name,
        description=said.description,
        vendor=said.vendor,
        copyright=said.copyright,
        version=said.version,
        required_api_version=said.required_api_version,
        features=known,
        configuration=said.configuration,
        required_cluster_stack=said.required_cluster_stack,
    )
