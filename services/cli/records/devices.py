"""PCI devices, GPUs and USB devices."""

from __future__ import annotations

from collections.abc import Sequence

from services.cli.server.objects import Row
from services.cli.server.readers import called
from services.cli.server.record import attr, computed, follow, name_of, records, values
from services.cli.server.values import Value


async def _ids(row: Row, refs: Sequence[str]) -> Value:
    found = [await row.objects.record("PCI", ref) for ref in refs]
    return [str(record["pci_id"]) for record in found if record is not None]


async def _dependencies(row: Row) -> Value:
    return await _ids(row, row.record["dependencies"])


async def _gpu_dependencies(row: Row) -> Value:
    device = await row.behind("PCI", "PCI")
    return await _ids(row, device["dependencies"]) if device is not None else []


async def _compatibility(row: Row) -> Value:
    return [f"{key}:({len(value)} bytes)" for key, value in row.record["compatibility_metadata"].items()]


async def _resolution(row: Row) -> Value:
    return f"{row.record['max_resolution_x']}x{row.record['max_resolution_y']}"


PCI = records(
    "pci",
    "PCI",
    default="uuid vendor-name device-name pci-id",
    fields=(
        attr("uuid"),
        attr("vendor-name"),
        attr("device-name"),
        attr("driver-name"),
        attr("host-uuid", "host"),
        name_of("host-name-label", "host"),
        attr("pci-id"),
        computed("dependencies", _dependencies, view="S"),
        attr("other-config", write="add remove"),
    ),
)

PGPU = records(
    "pgpu",
    "PGPU",
    default="uuid pci-uuid vendor-name device-name gpu-group-uuid",
    fields=(
        attr("uuid"),
        follow("pci-uuid", "PCI", "uuid"),
        follow("vendor-name", "PCI"),
        follow("device-name", "PCI"),
        attr("dom0-access"),
        attr("is-system-display-device"),
        attr("gpu-group-uuid", "GPU_group", write="set"),
        name_of("gpu-group-name-label", "GPU_group"),
        attr("host-uuid", "host"),
        name_of("host-name-label", "host"),
        follow("pci-id", "PCI"),
        computed("dependencies", _gpu_dependencies, needs=["PCI"], view="S"),
        attr("other-config", write="add remove"),
        attr("supported-VGPU-types", view=""),
        attr("enabled-VGPU-types", write="set add remove"),
        attr("resident-VGPUs", view=""),
    ),
)

GPU_GROUP = records(
    "gpu-group",
    "GPU_group",
    default="uuid name-label name-description",
    fields=(
        attr("uuid"),
        attr("name-label", write="set"),
        attr("name-description", write="set"),
        attr("VGPU-uuids", "VGPUs"),
        attr("PGPU-uuids", "PGPUs"),
        attr("other-config", write="add remove"),
        computed("enabled-VGPU-types", called("GPU_group.get_enabled_VGPU_types")),
        computed("supported-VGPU-types", called("GPU_group.get_supported_VGPU_types")),
        attr("allocation-algorithm", write="set"),
    ),
)

VGPU = records(
    "vgpu",
    "VGPU",
    default="uuid vm-uuid device gpu-group-uuid",
    fields=(
        attr("uuid"),
        attr("vm-uuid", "VM"),
        name_of("vm-name-label", "VM"),
        attr("device"),
        attr("gpu-group-uuid", "GPU_group"),
        name_of("gpu-group-name-label", "GPU_group"),
        attr("currently-attached"),
        attr("other-config", write="add remove"),
        attr("type-uuid", "type"),
        follow("type-model-name", "type", "model_name"),
        attr("resident-on"),
        computed("compatibility-metadata", _compatibility),
        attr("extra_args", write="set"),
        follow("pci", "PCI", "pci_id"),
    ),
)

VGPU_TYPE = records(
    "vgpu-type",
    "VGPU_type",
    default="uuid vendor-name model-name max-heads max-resolution",
    fields=(
        attr("uuid"),
        attr("vendor-name"),
        attr("model-name"),
        attr("framebuffer-size"),
        attr("max-heads"),
        computed("max-resolution", _resolution),
        attr("supported-on-PGPUs", view=""),
        attr("enabled-on-PGPUs", view=""),
        attr("supported-on-GPU-groups", view=""),
        attr("enabled-on-GPU-groups", view=""),
        attr("VGPU-uuids", "VGPUs", view=""),
        attr("experimental"),
        attr("compatible-types-in-vm", view=""),
    ),
)

PUSB = records(
    "pusb",
    "PUSB",
    default="uuid path vendor-id vendor-desc product-id product-desc serial version description speed",
    fields=(
        attr("uuid"),
        attr("usb-group-uuid", "USB_group"),
        attr("host-uuid", "host"),
        name_of("host-name-label", "host"),
        attr("path"),
        attr("vendor-id"),
        attr("vendor-desc"),
        attr("product-id"),
        attr("product-desc"),
        attr("serial"),
        attr("version"),
        attr("description"),
        attr("speed"),
        attr("passthrough-enabled", write="set"),
    ),
)

USB_GROUP = records(
    "usb-group",
    "USB_group",
    default="uuid name-label name-description",
    fields=(
        attr("uuid"),
        attr("name-label", write="set"),
        attr("name-description", write="set"),
        attr("VUSB-uuids", "VUSBs"),
        attr("PUSB-uuids", "PUSBs"),
        attr("other-config", write="add remove"),
    ),
)

VUSB = records(
    "vusb",
    "VUSB",
    default="uuid vm-uuid usb-group-uuid",
    fields=(
        attr("uuid"),
        attr("vm-uuid", "VM"),
        name_of("vm-name-label", "VM"),
        attr("usb-group-uuid", "USB_group"),
        name_of("usb-group-name-label", "USB_group"),
        attr("other-config", write="add remove"),
        attr("currently-attached"),
        attr("allowed-operations"),
        values("current-operations"),
    ),
)
