"""What can be said about how a VM boots before a host looks at its files (vm-lifecycle 4)."""

from __future__ import annotations

from services.api.decisions.rows import Record
from shared.errors import ApiError
from shared.vm_defaults import DEVICE_MODELS


def firmware(vm: Record) -> str:
    return str(vm["HVM_boot_params"].get("firmware", "") or "bios")


def check(vm: Record) -> ApiError | None:
    if vm["domain_type"] != "hvm" or firmware(vm) in DEVICE_MODELS:
        return None
    return ApiError("INVALID_VALUE", "HVM-boot-params['firmware']", firmware(vm))


def platform(vm: Record) -> dict[str, str]:
    """The VM's platform with what a start fills in."""
    filled = dict(vm["platform"])
    if vm["domain_type"] == "hvm":
        filled.setdefault("device-model", DEVICE_MODELS[firmware(vm)])
    return filled
