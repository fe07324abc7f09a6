"""The device_config of SRs of the type `lvm`."""

from __future__ import annotations

from services.storage.plugins.errors import Failure, backend_failure

THIN, THICK = "thin", "thick"


def devices_of(configuration: dict[str, str]) -> list[str]:
    """Raises SR_BACKEND_FAILURE_90, _91."""
    text = configuration.get("device", "")
    if not text:
        raise backend_failure(Failure.DEVICE_MISSING, "The request is missing the device parameter")
    devices = text.split(",")
    for device in devices:
        if not device.startswith("/") or not device.isprintable():
            raise backend_failure(Failure.DEVICE_INVALID, f"device must be absolute paths, not {device!r}")
    return devices


def thin_of(configuration: dict[str, str]) -> bool:
    """Raises SR_BACKEND_FAILURE_1."""
    allocation = configuration.get("allocation", THIN)
    if allocation not in (THIN, THICK):
        raise backend_failure(Failure.INVALID_ARGUMENT, f"allocation is {THIN} or {THICK}, not {allocation!r}")
    return allocation == THIN
