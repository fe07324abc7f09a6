"""GPUs: how many virtual GPUs of a type still fit, and which types and groups a GPU may have.

A type is enabled on a GPU only if the GPU supports it; a group has the types of its GPUs.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal

from services.api.decisions.rows import Record, Rows, existing
from shared.contracts.db import Change, Update
from shared.errors import ApiError

Types = Literal["supported_VGPU_types", "enabled_VGPU_types"]

HIGHEST_DEVICE: Final = 20
"""Of a virtual GPU; 0 stands for the lowest that is free."""

SAYS_MOST: Final = (
    "PGPU_INSUFFICIENT_CAPACITY_FOR_VGPU",
    "VGPU_TYPE_NOT_COMPATIBLE_WITH_RUNNING_TYPE",
    "VGPU_TYPE_NOT_ENABLED",
    "VGPU_TYPE_NOT_SUPPORTED",
)
"""Why the GPUs of a group have no room, the nearest miss first."""


def model(rows: Rows, pgpu: str) -> str:
    """Vendor and device, as `GPU_group.GPU_types` holds them. Raises HANDLE_INVALID."""
    pci = existing(rows, "PCI", existing(rows, "PGPU", pgpu)["PCI"])
    return f"{pci['vendor_id']}/{pci['device_id']}"


# ---- room


def allocated(rows: Rows, pgpu: str) -> list[Record]:
    """The virtual GPUs that are on it, or will be."""
    own = [rows.row("VGPU", ref) for ref in existing(rows, "PGPU", pgpu)["resident_VGPUs"]]
    coming = [row for row in rows.rows("VGPU").values() if row["scheduled_to_be_resident_on"] == pgpu]
    return [row for row in own if row is not None] + coming


def refused_type(rows: Rows, pgpu: str, vgpu_type: str, field: Types = "supported_VGPU_types") -> ApiError | None:
    """Why the GPU does not take virtual GPUs of that type at all: VGPU_TYPE_NOT_SUPPORTED or _ENABLED."""
    row = existing(rows, "PGPU", pgpu)
    supported: list[str] = row["supported_VGPU_types"]
    if vgpu_type not in supported:
        return ApiError("VGPU_TYPE_NOT_SUPPORTED", vgpu_type, *supported)
    if field == "enabled_VGPU_types" and vgpu_type not in row[field]:
        return ApiError("VGPU_TYPE_NOT_ENABLED", vgpu_type, *row[field])
    return None


def remaining(rows: Rows, pgpu: str, vgpu_type: str) -> int | ApiError:
    """How many more virtual GPUs of the type fit on the GPU, at least one; else why none does.

    A whole GPU can be given to a VM once; otherwise what counts is how often the type's size fits.
    """
    refusal = refused_type(rows, pgpu, vgpu_type, "enabled_VGPU_types")
    if refusal is not None:
        return refusal
    present = allocated(rows, pgpu)
    kinds = {vgpu["type"]: existing(rows, "VGPU_type", vgpu["type"]) for vgpu in present}
    if any(vgpu_type not in kind["compatible_types_on_pgpu"] for kind in kinds.values()):
        running = ";".join(sorted(kinds))
        return ApiError("VGPU_TYPE_NOT_COMPATIBLE_WITH_RUNNING_TYPE", pgpu, vgpu_type, running)
    row, kind = existing(rows, "PGPU", pgpu), existing(rows, "VGPU_type", vgpu_type)
    if kind["implementation"] == "passthrough":
        pci = rows.row("PCI", row["PCI"])
        taken = pci is not None and bool(pci["attached_VMs"])
        free = 0 if taken or present else 1
    elif kind["size"] > 0:
        free = (row["size"] - sum(kinds[vgpu["type"]]["size"] for vgpu in present)) // kind["size"]
    else:
        free = 0
    return free if free > 0 else ApiError("PGPU_INSUFFICIENT_CAPACITY_FOR_VGPU", pgpu, vgpu_type)


def group_remaining(rows: Rows, group: str, vgpu_type: str, host: str | None = None) -> int | ApiError:
    """The same for all GPUs of a group (on that host); if none has room, the most telling reason."""
    answers = [
        remaining(rows, pgpu, vgpu_type)
        for pgpu in existing(rows, "GPU_group", group)["PGPUs"]
        if host is None or existing(rows, "PGPU", pgpu)["host"] == host
    ]
    free = sum(answer for answer in answers if isinstance(answer, int))
    if free:
        return free
    reasons = [answer for answer in answers if isinstance(answer, ApiError)]
    if not reasons:
        return ApiError("GPU_GROUP_CONTAINS_NO_PGPUS", group)
    return min(reasons, key=lambda reason: SAYS_MOST.index(reason.code))


def unavailable(rows: Rows, vm: Record, ref: str, host: str) -> ApiError | None:
    """Why the VM's virtual GPUs do not fit on the host's GPUs: VM_REQUIRES_VGPU, or VM_REQUIRES_GPU for whole ones."""
    for name in vm["VGPUs"]:
        vgpu = existing(rows, "VGPU", name)
        group, kind = vgpu["GPU_group"], vgpu["type"]
        if isinstance(group_remaining(rows, group, kind, host), ApiError):
            if existing(rows, "VGPU_type", kind)["implementation"] == "passthrough":
                return ApiError("VM_REQUIRES_GPU", ref, group)
            return ApiError("VM_REQUIRES_VGPU", ref, group, kind)
    return None


# ---- settings


def users(rows: Rows, pgpu: str, vgpu_type: str | None = None) -> list[str]:
    """VMs that have a virtual GPU (of that type) on the GPU."""
    vgpus = (existing(rows, "VGPU", ref) for ref in existing(rows, "PGPU", pgpu)["resident_VGPUs"])
    return [vgpu["VM"] for vgpu in vgpus if vgpu_type in (None, vgpu["type"])]


def enabled(rows: Rows, pgpu: str, wanted: Iterable[str]) -> list[Change]:
    """The GPU enables these types and no others. Raises VGPU_TYPE_NOT_SUPPORTED, PGPU_IN_USE_BY_VM."""
    wanted = list(dict.fromkeys(wanted))
    row = existing(rows, "PGPU", pgpu)
    for new in wanted:
        refusal = refused_type(rows, pgpu, new) if new not in row["enabled_VGPU_types"] else None
        if refusal is not None:
            raise refusal
    for old in row["enabled_VGPU_types"]:
        if old not in wanted and (vms := users(rows, pgpu, old)):
            raise ApiError("PGPU_IN_USE_BY_VM", *vms)
    change: list[Change] = [Update(cls="PGPU", ref=pgpu, fields={"enabled_VGPU_types": wanted})]
    group = rows.row("GPU_group", row["GPU_group"])
    if group is None:
        return change
    others = [existing(rows, "PGPU", ref)["enabled_VGPU_types"] for ref in group["PGPUs"] if ref != pgpu]
    return [*change, _union(row["GPU_group"], "enabled_VGPU_types", [*others, wanted])]


FIELDS: Final[tuple[Types, ...]] = ("supported_VGPU_types", "enabled_VGPU_types")


def group_types(
    rows: Rows, group: str, pgpus: Iterable[str] | None = None, fields: Iterable[Types] = FIELDS
) -> list[Change]:
    """Types that a group's GPUs support and enable together. `pgpus`: those that it is about to have."""
    refs = existing(rows, "GPU_group", group)["PGPUs"] if pgpus is None else list(pgpus)
    members = [existing(rows, "PGPU", ref) for ref in refs]
    return [_union(group, field, [member[field] for member in members]) for field in fields]


def _union(group: str, field: Types, parts: Iterable[list[str]]) -> Update:
    together = dict.fromkeys(kind for part in parts for kind in part)
    return Update(cls="GPU_group", ref=group, fields={field: list(together)})


def moved(rows: Rows, pgpu: str, group: str) -> list[Change]:
    """The GPU is in that group from now on. Raises PGPU_IN_USE_BY_VM, PGPU_NOT_COMPATIBLE_WITH_GPU_GROUP."""
    row, target = existing(rows, "PGPU", pgpu), existing(rows, "GPU_group", group)
    if vms := users(rows, pgpu):
        raise ApiError("PGPU_IN_USE_BY_VM", *vms)
    own = model(rows, pgpu)
    models: list[str] = target["GPU_types"] or [own]
    if own not in models:
        raise ApiError("PGPU_NOT_COMPATIBLE_WITH_GPU_GROUP", own, f"[{', '.join(models)}]")
    changes: list[Change] = [
        Update(cls="PGPU", ref=pgpu, fields={"GPU_group": group}),
        Update(cls="GPU_group", ref=group, fields={"GPU_types": models}),
        *group_types(rows, group, dict.fromkeys([*target["PGPUs"], pgpu])),
    ]
    before = row["GPU_group"]
    if before != group and rows.row("GPU_group", before) is not None:
        left = [ref for ref in existing(rows, "GPU_group", before)["PGPUs"] if ref != pgpu]
        changes += group_types(rows, before, left)
    return changes


def free_device(rows: Rows, vm: str, device: str) -> str:
    """The number a new virtual GPU of the VM gets. Raises VM_PCI_BUS_FULL, DEVICE_ALREADY_EXISTS, INVALID_DEVICE."""
    if not (device.isascii() and device.isdecimal() and len(device) < 10):
        raise ApiError("INVALID_DEVICE", device)
    number = int(device)
    taken = {int(existing(rows, "VGPU", ref)["device"]) for ref in existing(rows, "VM", vm)["VGPUs"]}
    if number == 0:
        free = [candidate for candidate in range(HIGHEST_DEVICE + 1) if candidate not in taken]
        if not free:
            raise ApiError("VM_PCI_BUS_FULL", vm)
        return str(free[0])
    if number in taken:
        raise ApiError("DEVICE_ALREADY_EXISTS", device)
    if number > HIGHEST_DEVICE:
        raise ApiError("INVALID_DEVICE", device)
    return device
