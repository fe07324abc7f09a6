"""What goes with a host that is gone for good: all that was only there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal

from services.api.decisions import device_metrics
from services.api.decisions.rows import NULL, Rows, existing
from shared.contracts.db import Change, Delete, Update

PARTS: Final[dict[str, str]] = {
    "Certificate": "certificates",
    "Feature": "features",
    "PBD": "PBDs",
    "PCI": "PCIs",
    "PGPU": "PGPUs",
    "PUSB": "PUSBs",
    "host_cpu": "host_CPUs",
    "host_crashdump": "crashdumps",
    "host_patch": "patches",
}
"""Class of what is part of a host to the host's field that lists it."""

ON_PIFS: Final = (
    ("Bond", "master"),
    ("VLAN", "tagged_PIF"),
    ("VLAN", "untagged_PIF"),
    ("network_sriov", "logical_PIF"),
    ("network_sriov", "physical_PIF"),
    ("tunnel", "access_PIF"),
    ("tunnel", "transport_PIF"),
)
"""What is made of interfaces: class and field."""

DEFAULT_SRS: Final = ("default_SR", "suspend_image_SR", "crash_dump_SR")


def removal(rows: Rows, host: str) -> list[Change]:
    """Raises HANDLE_INVALID. Drives lose their disc, other devices go with their disk."""
    gone = dict.fromkeys([*_host(rows, host), *_interfaces(rows, host), *_storage(rows, host), *_domains(rows, host)])
    changes: list[Change] = []
    for vbd in [vbd for cls, ref in gone if cls == "VDI" for vbd in rows.get("VDI", ref, "VBDs")]:
        if rows.get("VBD", vbd, "type") == "CD":
            changes.append(Update(cls="VBD", ref=vbd, fields={"empty": True, "VDI": NULL}))
        else:
            gone |= dict.fromkeys(_device(rows, "VBD", vbd))
    changes = [change for change in changes if (change.cls, change.ref) not in gone]
    changes += [Delete(cls=cls, ref=ref) for cls, ref in gone if rows.row(cls, ref) is not None]
    for vm, row in rows.rows("VM").items():
        if row["affinity"] == host and ("VM", vm) not in gone:
            changes.append(Update(cls="VM", ref=vm, fields={"affinity": NULL}))
    for pool, row in rows.rows("pool").items():
        lost = {name: NULL for name in DEFAULT_SRS if ("SR", row[name]) in gone}
        if lost:
            changes.append(Update(cls="pool", ref=pool, fields=lost))
    return changes


def forgotten(rows: Rows, host: str) -> list[Change]:
    """What goes when a pool is restored without the host: its storage may come back, so SRs and disks stay.

    Raises HANDLE_INVALID.
    """
    gone = dict.fromkeys([*_host(rows, host), *_interfaces(rows, host), *_domains(rows, host)])
    changes: list[Change] = [Delete(cls=cls, ref=ref) for cls, ref in gone if rows.row(cls, ref) is not None]
    for vm, row in rows.rows("VM").items():
        if row["affinity"] == host and ("VM", vm) not in gone:
            changes.append(Update(cls="VM", ref=vm, fields={"affinity": NULL}))
    return changes


_Row = tuple[str, str]


def _host(rows: Rows, host: str) -> Iterator[_Row]:
    row = existing(rows, "host", host)
    yield "host", host
    yield "host_metrics", row["metrics"]
    for cls, field in PARTS.items():
        yield from ((cls, ref) for ref in row[field])


def _interfaces(rows: Rows, host: str) -> Iterator[_Row]:
    pifs = set(existing(rows, "host", host)["PIFs"])
    for pif in sorted(pifs):
        yield "PIF", pif
        yield "PIF_metrics", rows.get("PIF", pif, "metrics")
    for cls, field in ON_PIFS:
        yield from ((cls, ref) for ref, row in rows.rows(cls).items() if row[field] in pifs)


def _storage(rows: Rows, host: str) -> Iterator[_Row]:
    """SRs that no other host has a connection to, with their disks."""
    pbds = set(existing(rows, "host", host)["PBDs"])
    for sr in sorted({rows.get("PBD", pbd, "SR") for pbd in pbds}):
        row = rows.row("SR", sr)
        if row is None or not pbds.issuperset(row["PBDs"]):
            continue
        yield "SR", sr
        yield from (("VDI", vdi) for vdi in row["VDIs"])


def _domains(rows: Rows, host: str) -> Iterator[_Row]:
    """Its control domains, with their devices."""
    for vm, row in rows.rows("VM").items():
        if not row["is_control_domain"] or host not in (row["resident_on"], row["affinity"]):
            continue
        yield "VM", vm
        yield "VM_metrics", row["metrics"]
        yield from (("console", ref) for ref in row["consoles"])
        for vbd in row["VBDs"]:
            yield from _device(rows, "VBD", vbd)
        for vif in row["VIFs"]:
            yield from _device(rows, "VIF", vif)


def _device(rows: Rows, cls: Literal["VBD", "VIF"], ref: str) -> Iterator[_Row]:
    return ((change.cls, change.ref) for change in device_metrics.removed(rows, cls, ref))
