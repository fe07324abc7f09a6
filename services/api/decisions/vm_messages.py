"""Texts of the XenAPI messages about VMs (vm-lifecycle 1.7). All of them are informational."""

from __future__ import annotations

from typing import Final

from services.api.decisions.rows import Record, Rows

PRIORITY: Final = 5

TEXTS: Final[dict[str, str]] = {
    "VM_STARTED": "{vm} started on host: {host} (uuid: {host_uuid})",
    "VM_RESUMED": "{vm} resumed on host: {host} (uuid: {host_uuid})",
    "VM_SHUTDOWN": "{vm} shutdown",
    "VM_SHUTDOWN forcibly": "{vm} shutdown forcibly",
    "VM_REBOOTED": "{vm} rebooted cleanly",
    "VM_REBOOTED forcibly": "{vm} rebooted forcibly",
    "VM_SUSPENDED": "{vm} suspended",
    "VM_PAUSED": "{vm} paused",
    "VM_UNPAUSED": "{vm} unpaused",
    "VM_MIGRATED": "{vm} migrated from host '{source}' (uuid: {source_uuid}) to host '{host}' (uuid: {host_uuid})",
    "VM_SNAPSHOTTED": "{vm} snapshotted, snapshot name: {snapshot}",
    "VM_CHECKPOINTED": "{vm} checkpointed, snapshot name: {snapshot}",
    "VM_SNAPSHOT_REVERTED": "{vm} reverted to snapshot: {snapshot} (uuid {snapshot_uuid})",
}


def disk(rows: Rows, vbd: str) -> str:
    """A VBD's disk, and where it is, as far as rows say."""
    drive = rows.row("VBD", vbd)
    vdi = None if drive is None else rows.row("VDI", drive["VDI"])
    if drive is None or vdi is None:
        return "a disk"
    sr = rows.row("SR", vdi["SR"])
    where = "" if sr is None else f" on SR '{sr['name_label']}' (uuid: {sr['uuid']})"
    return f"disk '{vdi['name_label']}' (uuid: {vdi['uuid']}, device {drive['userdevice']}){where}"


def body(
    name: str,
    vm: Record,
    *,
    host: Record | None = None,
    source: Record | None = None,
    snapshot: Record | None = None,
    forcibly: bool = False,
) -> str:
    """The message's body. `host`: where the VM is now; `source`: where it was; `snapshot`: of the VM."""
    words = {"vm": f"VM '{vm['name_label']}' (uuid: {vm['uuid']})"}
    for role, row in (("host", host), ("source", source), ("snapshot", snapshot)):
        if row is not None:
            words |= {role: row["name_label"], f"{role}_uuid": row["uuid"]}
    return TEXTS[f"{name} forcibly" if forcibly else name].format(**words)
