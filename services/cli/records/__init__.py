"""All record classes: what the generated commands are made for."""

from __future__ import annotations

from services.cli.records import clusters, devices, hosts, networks, pools, pvs, storage, vms
from services.cli.server.record import RecordClass

RECORDS: dict[str, RecordClass] = {
    each.prefix: each
    for each in (
        vms.VM,
        vms.TEMPLATE,
        vms.SNAPSHOT,
        vms.VMSS,
        vms.APPLIANCE,
        vms.VM_GROUP,
        vms.CONSOLE,
        vms.VTPM,
        hosts.HOST,
        hosts.HOST_CRASHDUMP,
        hosts.HOST_CPU,
        hosts.HOSTDRIVER,
        hosts.HOSTDRIVER_VARIANT,
        hosts.PATCH,
        hosts.UPDATE,
        hosts.FEATURE,
        pools.POOL,
        pools.TASK,
        pools.MESSAGE,
        pools.SUBJECT,
        pools.ROLE,
        pools.SECRET,
        pools.CERTIFICATE,
        pools.REPOSITORY,
        pools.OBSERVER,
        pools.DRTASK,
        pools.CALLER,
        pools.RATE_LIMIT,
        storage.SR,
        storage.SM,
        storage.PBD,
        storage.VDI,
        storage.VBD,
        networks.NETWORK,
        networks.VIF,
        networks.PIF,
        networks.BOND,
        networks.VLAN,
        networks.TUNNEL,
        networks.NETWORK_SRIOV,
        networks.SDN_CONTROLLER,
        devices.PCI,
        devices.PGPU,
        devices.GPU_GROUP,
        devices.VGPU,
        devices.VGPU_TYPE,
        devices.PUSB,
        devices.USB_GROUP,
        devices.VUSB,
        pvs.PVS_SITE,
        pvs.PVS_SERVER,
        pvs.PVS_PROXY,
        pvs.PVS_CACHE_STORAGE,
        clusters.CLUSTER,
        clusters.CLUSTER_HOST,
    )
}
"""By prefix."""
