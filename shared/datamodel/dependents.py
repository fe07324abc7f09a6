"""Rows that live no longer than others, and references that must lead somewhere (`database-pool-ha` 1.11).

Every other reference may point to nothing for as long as it likes: a VM's affinity to a host that was forgotten.
"""

from __future__ import annotations

from typing import Final

DEPENDS_ON: Final[dict[str, tuple[str, ...]]] = {
    "VDI": ("SR",),
    "PIF": ("host", "network"),
    "Cluster_host": ("host", "PIF"),
    "VBD": ("VM", "VDI"),
    "crashdump": ("VM", "VDI"),
    "VIF": ("VM", "network"),
    "PBD": ("host", "SR"),
    "PUSB": ("host", "USB_group"),
    "VGPU": ("VM", "GPU_group"),
    "PGPU": ("host",),
    "PCI": ("host",),
    "Feature": ("host",),
    "host_patch": ("host", "pool_patch"),
    "host_cpu": ("host",),
    "console": ("VM",),
    "PVS_proxy": ("VIF", "site"),
    "PVS_server": ("site",),
    "PVS_cache_storage": ("site", "host"),
    "Certificate": ("host",),
    "VTPM": ("VM",),
    "Host_driver": ("host",),
    "Driver_variant": ("driver",),
    "tunnel": ("access_PIF", "transport_PIF"),
}
"""Class to the references without which a row of it is garbage, in the order in which garbage is collected: what goes
first leaves others without theirs. Not for every row: an empty drive (VBD) has no VDI, an authority's certificate no
host.
"""

REQUIRED: Final[frozenset[tuple[str, str]]] = frozenset({("host", "metrics")})
"""(class, field): a row whose reference leads nowhere is damaged, and nobody removes it. As is `pool.master`."""
