"""What operations take for their duration: after the last one has ended there must be nothing of it."""

from __future__ import annotations

from typing import Any

from shared.store import NULL
from tests.api.harness import Pool


def leftovers(pool: Pool) -> dict[str, Any]:
    """Locks, marks, reservations, tasks and memory that nobody has given back; empty when all is well."""
    found: dict[str, Any] = {}
    for cls, table in pool.store.tables.items():
        for ref, row in table.rows.items():
            if cls != "task" and row.fields.get("current_operations"):
                found[f"{cls} {ref} current_operations"] = row.fields["current_operations"]
            if row.fields.get("scheduled_to_be_resident_on", NULL) != NULL:
                found[f"{cls} {ref} scheduled"] = row.fields["scheduled_to_be_resident_on"]
    if tasks := [row["name_label"] for row in pool.store.rows("task").values() if row["status"] == "pending"]:
        found["tasks"] = tasks
    if pool.api.running:
        found["running"] = dict(pool.api.running)
    for host in pool.store.rows("host"):
        used = pool.api.placement.memory.use(host).dynamic_max
        vms = pool.store.rows("VM").values()
        counted = sum(vm["memory_dynamic_max"] for vm in vms if vm["resident_on"] == host)
        if used != counted:
            found[f"memory of {host}"] = used - counted
    for sr, disks in pool.disks.srs.items():
        known = {vdi["location"] for vdi in pool.store.rows("VDI").values() if _uuid_of(pool, vdi["SR"]) == sr}
        if known != set(disks):
            found[f"disks of {sr}"] = known ^ set(disks)
    for cls in ("VBD", "VIF"):
        for ref, device in pool.store.rows(cls).items():
            if pool.store.row("VM", device["VM"]) is None:
                found[f"{cls} {ref}"] = "its VM is gone"
    return found


def _uuid_of(pool: Pool, sr: str) -> str:
    row = pool.store.row("SR", sr)
    return "" if row is None else str(row["uuid"])
