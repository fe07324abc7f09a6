"""What follows when a VM is found (or declared) to be in another power state (vm-lifecycle 1.8)."""

from __future__ import annotations

from typing import Final

from services.api.decisions.rows import NULL, Record, Rows, existing
from shared.contracts.db import Change, Row, Update

OFF_DUTY: Final = frozenset({"Halted", "Suspended"})
"""States in which a VM is on no host."""

SETTLED_BY_HALT: Final = frozenset({"restart_vm", "restart_device_model"})
"""Pending guidance that a VM has followed once it is halted."""

DETACHED: Final[dict[str, Row]] = {
    "VBD": {"currently_attached": False, "reserved": False, "current_operations": {}},
    "VIF": {"currently_attached": False, "reserved": False, "current_operations": {}, "reserved_pci": NULL},
    "VUSB": {"currently_attached": False, "current_operations": {}},
    "VGPU": {"currently_attached": False},
}
"""Devices of a halted VM, by class."""


def force_state_reset(
    rows: Rows, vm: str, state: str, *, keep_operations: bool = False, checkpointing: bool = False
) -> list[Change]:
    """The changes that bring VM and devices in line with `state`. `allowed_operations` are the caller's.

    `keep_operations`: operations of the VM in progress go on (the state was reached by one of them, or by the guest).
    `checkpointing`: the suspended VM will go on where it is. Raises HANDLE_INVALID.
    """
    row = existing(rows, "VM", vm)
    fields: Row = {"power_state": state}
    changes: list[Change] = []
    if state == "Halted":
        fields["requires_reboot"] = False
        for name in ("pending_guidances", "pending_guidances_recommended", "pending_guidances_full"):
            fields[name] = [guidance for guidance in row[name] if guidance not in SETTLED_BY_HALT]
        for cls, detached in DETACHED.items():
            changes += [Update(cls=cls, ref=ref, fields=detached) for ref in row[cls + "s"] if rows.row(cls, ref)]
    if state in OFF_DUTY and not checkpointing:
        fields |= {"resident_on": NULL, "scheduled_to_be_resident_on": NULL, "domid": -1}
        unplaced = {"resident_on": NULL, "scheduled_to_be_resident_on": NULL}
        changes += [Update(cls="VGPU", ref=ref, fields=unplaced) for ref in row["VGPUs"] if rows.row("VGPU", ref)]
        changes += [_taken_back(ref, existing(rows, "PCI", ref), vm) for ref in row["attached_PCIs"]]
    if not keep_operations:
        fields["current_operations"] = {}
    return [Update(cls="VM", ref=vm, fields=fields), *changes]


def _taken_back(pci: str, row: Record, vm: str) -> Change:
    """`PCI.attached_VMs` is the end that is written: `VM.attached_PCIs` follows."""
    others = [other for other in row["attached_VMs"] if other != vm]
    return Update(cls="PCI", ref=pci, fields={"attached_VMs": others})
