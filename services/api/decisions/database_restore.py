"""How a database that was dumped before, perhaps on another machine, becomes this pool's (`database-pool-ha` 1.9)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from services.api.decisions.host_removal import forgotten
from services.api.decisions.rows import Rows, existing, the_pool
from services.api.decisions.vm_state_reset import force_state_reset
from shared.contracts.db import Change, Row, Update
from shared.errors import ApiError, internal_error

_RUNNING = frozenset({"Running", "Paused"})


@dataclass(frozen=True, slots=True)
class Plan:
    """`host`: reference that this host has in the backup. `changes`: to the rows of the backup, in order."""

    host: str
    changes: list[Change]


def check_version(found: tuple[int, int], ours: tuple[int, int]) -> None:
    """Raises RESTORE_INCOMPATIBLE_VERSION unless they are equal."""
    if found != ours:
        raise ApiError("RESTORE_INCOMPATIBLE_VERSION")


def plan(backup: Rows, current: Rows, here: str) -> Plan:
    """The host `here` takes the place of the backup's coordinator; the other hosts of the backup are forgotten.

    Raises RESTORE_TARGET_MISSING_DEVICE, RESTORE_TARGET_MGMT_IF_NOT_IN_BACKUP; INTERNAL_ERROR for a backup without a
    coordinator.
    """
    pool = the_pool(backup)
    master = str(pool["master"]) if pool is not None else ""
    if backup.row("host", master) is None:
        raise internal_error("the backup names no coordinator")
    changes: list[Change] = []
    for host in backup.rows("host"):
        if host != master:
            changes += forgotten(backup, host)
    changes += _identity(backup, master, current, here)
    changes += _interfaces(backup, master, current, here)
    for vm, row in backup.rows("VM").items():
        control = row["is_control_domain"]
        if not control and row["power_state"] in _RUNNING and row["resident_on"] != master:
            changes += force_state_reset(backup, vm, "Halted")
    return Plan(master, changes)


def _identity(backup: Rows, master: str, current: Rows, here: str) -> list[Change]:
    """The machine is this one: its name for the pool, its control domain's, where it is reached."""
    host = existing(current, "host", here)
    fields: Row = {name: host[name] for name in ("uuid", "address", "hostname")}
    changes: list[Change] = [Update(cls="host", ref=master, fields=fields)]
    ours = current.row("VM", host["control_domain"])
    theirs = str(backup.get("host", master, "control_domain"))
    if ours is not None and backup.row("VM", theirs) is not None:
        changes.append(Update(cls="VM", ref=theirs, fields={"uuid": ours["uuid"]}))
    return changes


def _interfaces(backup: Rows, master: str, current: Rows, here: str) -> list[Change]:
    """By the names of their devices. The one for management stays what it is: it is how the host is reached."""
    pifs = [row for ref in existing(current, "host", here)["PIFs"] if (row := current.row("PIF", ref)) is not None]
    macs: dict[str, Any] = {row["device"]: row["MAC"] for row in pifs if row["physical"]}
    managing = [row["device"] for row in pifs if row["management"]]
    management = managing[0] if len(managing) == 1 else None
    changes: list[Change] = []
    devices: list[str] = []
    for ref in existing(backup, "host", master)["PIFs"]:
        row = existing(backup, "PIF", ref)
        device = str(row["device"])
        devices.append(device)
        fields: Row = {"management": device == management}
        if row["physical"]:
            if device not in macs:
                raise ApiError("RESTORE_TARGET_MISSING_DEVICE", device)
            fields["MAC"] = macs[device]
        changes.append(Update(cls="PIF", ref=ref, fields=fields))
    if management is not None and management not in devices:
        raise ApiError("RESTORE_TARGET_MGMT_IF_NOT_IN_BACKUP", *reversed(devices))
    return changes
