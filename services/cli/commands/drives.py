"""VBDs and VIFs by themselves."""

from __future__ import annotations

import asyncio
import time

from services.cli.server.command import Call, command
from services.cli.server.failures import CommandError
from services.cli.server.simple import message
from services.cli.server.values import enum_value, integer
from shared.datamodel import model
from shared.datamodel.types import NULL_REF
from shared.errors import ApiError

_POLL = 5.0
"""Seconds between looks at a drive whose guest will not let go of it yet."""


async def _vbd_create(call: Call) -> None:
    params = call.params
    vm = await call.ref("vm-uuid", "VM")
    disk = await call.optional_ref("vdi-uuid", "VDI")
    kind = enum_value(model.enums["vbd_type"], params.get("type", "Disk"))
    if disk is None and kind == "Disk":
        raise CommandError("Empty VBDs can only be made for type=CD")
    record = {
        "VM": vm,
        "VDI": disk or NULL_REF,
        "userdevice": params["device"],
        "bootable": params.flag("bootable"),
        "mode": enum_value(model.enums["vbd_mode"], params.get("mode", "RW")),
        "type": kind,
        "unpluggable": params.flag("unpluggable", True),
        "empty": disk is None,
        "other_config": {},
        "qos_algorithm_type": "",
        "qos_algorithm_params": {},
    }
    await call.print_uuid("VBD", await call.api.call("VBD.create", record))


async def _vbd_unplug(call: Call) -> None:
    drive = await call.ref("uuid", "VBD")
    method = "VBD.unplug_force" if call.params.flag("force") else "VBD.unplug"
    patience = integer("timeout", call.params.get("timeout", "0"))
    deadline = time.monotonic() + patience
    try:
        await call.api.call(method, drive)
    except ApiError as error:
        if error.code != "DEVICE_DETACH_REJECTED" or not patience:
            raise
        while await call.api.call("VBD.get_currently_attached", drive):
            if time.monotonic() >= deadline:
                raise
            await asyncio.sleep(min(_POLL, max(deadline - time.monotonic(), 0.0)))


async def _vif_create(call: Call) -> None:
    params = call.params
    vm = await call.ref("vm-uuid", "VM")
    network = await call.ref("network-uuid", "network")
    mac = params.get("mac")
    record = {
        "device": params["device"],
        "network": network,
        "VM": vm,
        "MAC": "" if mac == "random" else mac,
        "MTU": await call.api.call("network.get_MTU", network),
        "other_config": {},
        "qos_algorithm_type": "",
        "qos_algorithm_params": {},
    }
    await call.print_uuid("VIF", await call.api.call("VIF.create", record))


async def _vif_unplug(call: Call) -> None:
    method = "VIF.unplug_force" if call.params.flag("force") else "VIF.unplug"
    await call.api.call(method, await call.ref("uuid", "VIF"))


COMMANDS = (
    command(
        "vbd-create",
        _vbd_create,
        "Gives a VM a drive; without vdi-uuid an empty one (type=CD).",
        required="vm-uuid device",
        optional="vdi-uuid bootable type mode unpluggable",
    ),
    message("vbd-destroy", "VBD.destroy", "uuid"),
    message("vbd-plug", "VBD.plug", "uuid"),
    command(
        "vbd-unplug",
        _vbd_unplug,
        "Takes a drive off a running VM. timeout=<seconds>: waits for the guest.",
        required="uuid",
        optional="timeout force",
    ),
    message("vbd-insert", "VBD.insert", "uuid", "vdi-uuid"),
    message("vbd-eject", "VBD.eject", "uuid"),
    message("vbd-pause", "VBD.pause", "uuid", flags="Hidden"),
    message("vbd-unpause", "VBD.unpause", "uuid", "token", flags="Hidden"),
    command(
        "vif-create",
        _vif_create,
        "Gives a VM an interface in a network.",
        required="device network-uuid vm-uuid",
        optional="mac",
    ),
    message("vif-destroy", "VIF.destroy", "uuid"),
    message("vif-plug", "VIF.plug", "uuid"),
    command(
        "vif-unplug",
        _vif_unplug,
        "Takes an interface off a running VM.",
        required="uuid",
        optional="force",
    ),
    message("vif-move", "VIF.move", "uuid", "network-uuid"),
    message("vif-configure-ipv4", "VIF.configure_ipv4", "uuid", "mode", ("address", ""), ("gateway", "")),
    message("vif-configure-ipv6", "VIF.configure_ipv6", "uuid", "mode", ("address", ""), ("gateway", "")),
)
