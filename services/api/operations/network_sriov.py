"""Messages of class network_sriov that only look at rows."""

from __future__ import annotations

from services.api.call import Call
from services.api.decisions.rows import existing, is_null
from services.api.operation import operation


@operation("network_sriov.get_remaining_capacity")
def get_remaining_capacity(call: Call, self: str) -> int:
    """Virtual functions of the interface's card that no VM has or is about to get."""
    rows = call.store
    pif = existing(rows, "PIF", existing(rows, "network_sriov", self)["physical_PIF"])
    functions = (existing(rows, "PCI", ref) for ref in existing(rows, "PCI", pif["PCI"])["virtual_functions"])
    return sum(not row["attached_VMs"] and is_null(row["scheduled_to_be_attached_to"]) for row in functions)
