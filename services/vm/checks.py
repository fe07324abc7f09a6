"""What is wrong with a VM's configuration whatever the hypervisor. Pure; raises the API's errors."""

from __future__ import annotations

from shared.contracts.vm import VmSpec
from shared.errors import ApiError

DIRECT_BOOT = ("pv", "pv_in_pvh", "pvh")
"""Domain types that start a kernel without firmware."""


def check(vm: VmSpec) -> None:
    if vm.vcpus_max < 1:
        raise ApiError("INVALID_VALUE", "VCPUs_max", vm.vcpus_max)
    if not 1 <= vm.vcpus_at_startup <= vm.vcpus_max:
        raise ApiError("INVALID_VALUE", "VCPUs_at_startup", vm.vcpus_at_startup)
    if vm.memory_dynamic_max < 1024 * 1024:
        raise ApiError("INVALID_VALUE", "memory_dynamic_max", vm.memory_dynamic_max)
    if vm.domain_type != "hvm" and vm.domain_type not in DIRECT_BOOT:
        raise ApiError("INVALID_VALUE", "domain_type", vm.domain_type)
    for names in ([vbd.device for vbd in vm.vbds], [vif.device for vif in vm.vifs]):
        for name in names:
            if not name.isascii() or not name.isdigit() or str(int(name)) != name:
                raise ApiError("INVALID_DEVICE", name)
        if len(set(names)) < len(names):
            raise ApiError("DEVICE_ALREADY_EXISTS", next(name for name in names if names.count(name) > 1))
    for vbd in vm.vbds:
        if not vbd.sr and vbd.type != "CD":
            raise ApiError("VBD_NOT_REMOVABLE_MEDIA", vbd.ref)
