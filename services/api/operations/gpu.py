"""Messages of classes GPU_group, PGPU and VGPU. Rows only: no host hands a GPU to a VM yet, so that `VM.start` refuses
a VM with one.
"""

from __future__ import annotations

from services.api.call import Call
from services.api.construct import insert
from services.api.decisions import features, gpus
from services.api.decisions.host_devices import whole_gpu
from services.api.decisions.rows import NULL, existing, is_null
from services.api.implicit import new_row
from services.api.locking import Decision, decide
from services.api.operation import operation
from shared.contracts.db import Change, Create, Delete
from shared.errors import ApiError
from shared.store import Store


async def _change(call: Call, cls: str, ref: str, decision: Decision) -> None:
    """GPUs and their groups look at each other's rows: one change at a time."""
    async with call.api.turns.of("GPUs"):
        await decide(call, cls, ref, decision)


# ---- groups


@operation("GPU_group.create")
async def create_group(call: Call, name_label: str, name_description: str, other_config: dict[str, str]) -> str:
    fields = {"name_label": name_label, "name_description": name_description, "other_config": other_config}
    return await insert(call, "GPU_group", fields)


@operation("GPU_group.destroy")
async def destroy_group(call: Call, self: str) -> None:
    """Its virtual GPUs go with it."""

    def decision(store: Store) -> list[Change]:
        row = existing(store, "GPU_group", self)
        if attached := [ref for ref in row["VGPUs"] if store.get("VGPU", ref, "currently_attached")]:
            raise ApiError("GPU_GROUP_CONTAINS_VGPU", *attached)
        if row["PGPUs"]:
            raise ApiError("GPU_GROUP_CONTAINS_PGPU", *row["PGPUs"])
        vgpus: list[Change] = [Delete(cls="VGPU", ref=ref) for ref in row["VGPUs"]]
        return [*vgpus, Delete(cls="GPU_group", ref=self)]

    await _change(call, "GPU_group", self, decision)


@operation("GPU_group.update_enabled_VGPU_types")
async def update_enabled(call: Call, self: str) -> None:
    await _change(call, "GPU_group", self, lambda store: gpus.group_types(store, self, fields=["enabled_VGPU_types"]))


@operation("GPU_group.update_supported_VGPU_types")
async def update_supported(call: Call, self: str) -> None:
    await _change(call, "GPU_group", self, lambda store: gpus.group_types(store, self, fields=["supported_VGPU_types"]))


@operation("GPU_group.get_remaining_capacity")
def group_capacity(call: Call, self: str, vgpu_type: str) -> int:
    return _number(gpus.group_remaining(call.store, self, vgpu_type))


def _number(answer: int | ApiError) -> int:
    return answer if isinstance(answer, int) else 0


# ---- GPUs


@operation("PGPU.get_remaining_capacity")
def capacity(call: Call, self: str, vgpu_type: str) -> int:
    return _number(gpus.remaining(call.store, self, vgpu_type))


@operation("PGPU.set_enabled_VGPU_types")
async def set_enabled(call: Call, self: str, value: list[str]) -> None:
    await _change(call, "PGPU", self, lambda store: gpus.enabled(store, self, value))


@operation("PGPU.add_enabled_VGPU_types")
async def add_enabled(call: Call, self: str, value: str) -> None:
    def decision(store: Store) -> list[Change]:
        refusal = gpus.refused_type(store, self, value)
        if refusal is not None:
            raise refusal
        return gpus.enabled(store, self, [*store.get("PGPU", self, "enabled_VGPU_types"), value])

    await _change(call, "PGPU", self, decision)


@operation("PGPU.remove_enabled_VGPU_types")
async def remove_enabled(call: Call, self: str, value: str) -> None:
    def decision(store: Store) -> list[Change]:
        before: list[str] = existing(store, "PGPU", self)["enabled_VGPU_types"]
        return gpus.enabled(store, self, [kind for kind in before if kind != value])

    await _change(call, "PGPU", self, decision)


@operation("PGPU.set_GPU_group")
async def set_group(call: Call, self: str, value: str) -> None:
    existing(call.store, "GPU_group", value)
    await _change(call, "PGPU", self, lambda store: gpus.moved(store, self, value))


# ---- virtual GPUs


@operation("VGPU.create")
async def create(
    call: Call, vm: str, group: str, device: str, other_config: dict[str, str], vgpu_type: str = NULL
) -> str:
    ref, uuid = new_row("VGPU")

    def decision(store: Store) -> list[Change]:
        row = existing(store, "VM", vm)
        if not features.is_enabled(store, "gpu"):
            raise ApiError("FEATURE_RESTRICTED")
        if not row["is_a_snapshot"] and row["power_state"] != "Halted":
            raise ApiError("VM_BAD_POWER_STATE", vm, "halted", row["power_state"].lower())
        kind, made = _type(store, vgpu_type)
        existing(store, "GPU_group", group)
        others = (existing(store, "VGPU", other)["type"] for other in row["VGPUs"])
        if any(kind not in existing(store, "VGPU_type", other)["compatible_types_in_vm"] for other in others):
            raise ApiError("VGPU_TYPE_NOT_COMPATIBLE", kind)
        fields = {
            "uuid": uuid,
            "VM": vm,
            "GPU_group": group,
            "device": gpus.free_device(store, vm, device),
            "other_config": other_config,
            "type": kind,
        }
        return [*made, Create(cls="VGPU", ref=ref, fields=fields)]

    await _change(call, "VM", vm, decision)
    return ref


def _type(store: Store, wanted: str) -> tuple[str, list[Change]]:
    """The type's reference, and what makes it if it is not there yet. Raises INVALID_VALUE."""
    if not is_null(wanted):
        if store.row("VGPU_type", wanted) is None:
            raise ApiError("INVALID_VALUE", "type", wanted)
        return wanted, []
    return whole_gpu(store)


@operation("VGPU.destroy")
async def destroy(call: Call, self: str) -> None:
    def decision(store: Store) -> list[Change]:
        vm = store.row("VM", existing(store, "VGPU", self)["VM"])
        if vm is not None and vm["power_state"] in ("Running", "Paused"):
            raise ApiError("OPERATION_NOT_ALLOWED", "vGPU currently attached to a running VM")
        return [Delete(cls="VGPU", ref=self)]

    await _change(call, "VGPU", self, decision)
