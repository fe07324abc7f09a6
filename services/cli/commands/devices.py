"""Devices that VMs can be given: GPUs, USB devices, PCI devices, virtual TPMs."""

from __future__ import annotations

from services.cli.commands.prompts import FORCE_NEEDED
from services.cli.server.command import Call, command
from services.cli.server.failures import CommandError
from services.cli.server.simple import message
from shared.datamodel.types import NULL_REF


async def _vgpu_create(call: Call) -> None:
    vm, group = await call.ref("vm-uuid", "VM"), await call.ref("gpu-group-uuid", "GPU_group")
    kind = await call.optional_ref("vgpu-type-uuid", "VGPU_type") or NULL_REF
    device = call.params.get("device") or "0"
    await call.print_uuid("VGPU", await call.api.call("VGPU.create", vm, group, device, {}, kind))


async def _vtpm_destroy(call: Call) -> None:
    if not call.params.flag("force"):
        raise CommandError(FORCE_NEEDED)
    await call.api.call("VTPM.destroy", await call.ref("uuid", "VTPM"))


COMMANDS = (
    message("gpu-group-create", "GPU_group.create", "name-label", ("name-description", "")),
    message("gpu-group-destroy", "GPU_group.destroy", "uuid"),
    message("gpu-group-get-remaining-capacity", "GPU_group.get_remaining_capacity", "uuid", "vgpu-type-uuid"),
    command(
        "vgpu-create",
        _vgpu_create,
        "Gives a halted VM a virtual GPU; without vgpu-type-uuid= a whole GPU.",
        required="vm-uuid gpu-group-uuid",
        optional="vgpu-type-uuid device",
    ),
    message("vgpu-destroy", "VGPU.destroy", "uuid"),
    message("pgpu-enable-dom0-access", "PGPU.enable_dom0_access", "uuid"),
    message("pgpu-disable-dom0-access", "PGPU.disable_dom0_access", "uuid"),
    message("pci-enable-dom0-access", "PCI.enable_dom0_access", "uuid"),
    message("pci-disable-dom0-access", "PCI.disable_dom0_access", "uuid"),
    message("pci-get-dom0-access-status", "PCI.get_dom0_access_status", "uuid"),
    message("pusb-scan", "PUSB.scan", "host-uuid"),
    message("vusb-create", "VUSB.create", "vm-uuid", "usb-group-uuid", required="usb-group-uuid vm-uuid"),
    message("vusb-unplug", "VUSB.unplug", "uuid"),
    message("vusb-destroy", "VUSB.destroy", "uuid"),
    message("vtpm-create", "VTPM.create", "vm-uuid", ("is-unique", False)),
    command(
        "vtpm-destroy",
        _vtpm_destroy,
        "Removes a virtual TPM and what it holds.",
        required="uuid",
        optional="force",
    ),
)
