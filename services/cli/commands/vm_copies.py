"""Making VMs: installing, cloning, copying, snapshots; and unmaking them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import xml.etree.ElementTree as ElementTree
from typing import Any

from services.cli.commands.prompts import FORCE_NEEDED, confirmed
from services.cli.protocol import Print
from services.cli.server.command import VM, Call, Selector, command
from services.cli.server.failures import CommandError
from services.cli.server.objects import Record, Row
from services.cli.server.selectors import on_each
from shared.datamodel.types import NULL_REF
from shared.errors import ApiError

log = logging.getLogger("cli")

_TEMPLATES_TOO = Selector("vm", templates=True)


# ---- installing


async def _install(call: Call) -> None:
    template, record = await _template(call)
    sr = await _chosen_sr(call)
    name = call.params["new-name-label"]
    if sr is None:
        vm: str = await call.api.call("VM.clone", template, name)
    elif record["is_a_snapshot"]:
        raise CommandError("A snapshot cannot be copied to another SR: leave out the SR, or use snapshot-copy")
    else:
        vm = await call.api.call("VM.copy", template, name, sr)
    try:
        await _furnish(call, vm, sr)
        await call.print_uuid("VM", vm)
    except (Exception, asyncio.CancelledError):
        await _discard(call, vm)
        raise


async def _discard(call: Call, vm: str) -> None:
    """Removes a VM that could not be finished; what stopped that matters more than a failure to remove it."""
    try:
        await call.api.call("VM.destroy", vm)
    except ApiError as error:
        log.warning("cannot remove the unfinished VM %s: %s", vm, error)


async def _template(call: Call) -> tuple[str, Record]:
    params = call.params
    templates = {ref: vm for ref, vm in (await call.objects.all("VM")).items() if vm["is_a_template"]}

    def having(attribute: str, wanted: str) -> list[str]:
        return [ref for ref, vm in templates.items() if vm[attribute] == wanted]

    if "template-uuid" in params:
        found = having("uuid", params["template-uuid"])
    elif "template-name-label" in params or "template-name" in params:
        found = having("name_label", params.get("template-name-label") or params.get("template-name"))
    elif "template" in params:
        found = having("uuid", params["template"]) or having("name_label", params["template"])
    else:
        raise CommandError(
            "Template must be specified by parameter 'template-uuid', 'template-name', 'template-name-label' or "
            "'template'"
        )
    if len(found) != 1:
        raise CommandError("More than one matching template found" if found else "No templates matched")
    return found[0], templates[found[0]]


async def _chosen_sr(call: Call) -> str | None:
    if "sr-uuid" in call.params:
        return await call.ref("sr-uuid", "SR")
    if "sr-name-label" not in call.params:
        return None
    found: list[str] = await call.api.call("SR.get_by_name_label", call.params["sr-name-label"])
    if len(found) != 1:
        raise CommandError("Multiple SRs matched" if found else "No SRs matched")
    return found[0]


async def _furnish(call: Call, vm: str, sr: str | None) -> None:
    """What makes a clone of a template an installed VM; it is not started."""
    await call.api.call("VM.set_name_description", vm, "Installed via xe CLI")
    if sr is not None:
        await call.api.call("VM.set_suspend_SR", vm, sr)
    record = await call.api.call("VM.get_record", vm)
    pool = next(iter((await call.objects.all("pool")).values()))
    if (disks := record["other_config"].get("disks")) is not None:
        home = sr or str(pool["default_SR"])
        home_uuid = await call.objects.uuid("SR", home)
        if home_uuid is None:
            raise CommandError("No SR specified and Pool default SR is null")
        await call.api.call("VM.remove_from_other_config", vm, "disks")
        await call.api.call("VM.add_to_other_config", vm, "disks", placed(disks, home_uuid))
    if recommends_vendor_device(record["recommendations"]) and not pool["policy_no_vendor_device"]:
        await call.api.call("VM.set_has_vendor_device", vm, True)
    if "copy-bios-strings-from" in call.params:
        host = await call.objects.by_uuid("host", call.params["copy-bios-strings-from"])
        await call.api.call("VM.copy_bios_strings", vm, host)
    await call.api.call("VM.provision", vm)


def placed(disks: str, sr_uuid: str) -> str:
    """The disks that a template wants (`<provision><disk .../></provision>`), all on one SR."""
    try:
        root = ElementTree.fromstring(disks)
    except ElementTree.ParseError as error:
        raise CommandError(f"The template's list of disks is not XML: {error}") from error
    for disk in root.iter("disk"):
        disk.set("sr", sr_uuid)
    return ElementTree.tostring(root, encoding="unicode")


def recommends_vendor_device(recommendations: str) -> bool:
    """Does a template ask for the device that lets Windows update its drivers?"""
    with contextlib.suppress(ElementTree.ParseError):  # not XML: it recommends nothing
        for each in ElementTree.fromstring(recommendations).iter("restriction"):
            if each.get("field") == "has-vendor-device":
                return each.get("value") == "true"
    return False


# ---- copies


async def _describe_first(call: Call, made: list[str]) -> None:
    if made and "new-name-description" in call.params:
        await call.api.call("VM.set_name_description", made[0], call.params["new-name-description"])


async def _copies(call: Call, method: str, *rest: Any) -> None:
    """One copy of each selected VM; prints their uuids."""

    async def copy(vm: Row) -> str:
        return str(await call.api.call(method, vm.ref, call.params["new-name-label"], *rest))

    made = await on_each(call, copy)
    await _describe_first(call, made)
    await call.printer.items([await call.uuid("VM", ref) for ref in made])


async def _clone(call: Call) -> None:
    await _copies(call, "VM.clone")


async def _copy(call: Call) -> None:
    await _copies(call, "VM.copy", await call.optional_ref("sr-uuid", "SR") or NULL_REF)


async def _snapshot(call: Call) -> None:
    uuids = [uuid for uuid in call.params.get("ignore-vdi-uuids").split(",") if uuid]
    ignored = [await call.objects.by_uuid("VDI", uuid) for uuid in uuids]
    await _copies(call, "VM.snapshot", *([ignored] if ignored else []))


async def _checkpoint(call: Call) -> None:
    await _copies(call, "VM.checkpoint")


async def _quiesced(call: Call) -> None:
    await _copies(call, "VM.snapshot_with_quiesce")


async def _create(call: Call) -> None:
    """A VM without anything: halted, one CPU, 256 MiB."""
    memory = 256 << 20
    record = {
        "name_label": call.params["name-label"],
        "name_description": call.params.get("name-description"),
        "user_version": 0,
        "is_a_template": False,
        "affinity": NULL_REF,
        "memory_static_max": memory,
        "memory_static_min": memory,
        "memory_dynamic_max": memory,
        "memory_dynamic_min": memory,
        "VCPUs_params": {},
        "VCPUs_max": 1,
        "VCPUs_at_startup": 1,
        "actions_after_shutdown": "destroy",
        "actions_after_reboot": "restart",
        "actions_after_crash": "restart",
        "PV_bootloader": "",
        "PV_kernel": "",
        "PV_ramdisk": "",
        "PV_args": "",
        "PV_bootloader_args": "",
        "PV_legacy_args": "",
        "HVM_boot_policy": "",
        "HVM_boot_params": {},
        "platform": {},
        "PCI_bus": "",
        "other_config": {},
        "recommendations": "",
    }
    await call.print_uuid("VM", await call.api.call("VM.create", record))


# ---- snapshots


async def _the_snapshot(call: Call) -> Row:
    """The snapshot of `snapshot-uuid` or `uuid`. Raises `CommandError` if it is none."""
    name = "snapshot-uuid" if "snapshot-uuid" in call.params else "uuid"
    if name not in call.params:
        raise CommandError("Required parameter not found: snapshot-uuid or uuid.")
    row = await _vm(call, call.params[name])
    if not row.record["is_a_snapshot"]:
        raise CommandError(f"This operation can only be performed on a VM snapshot. {row.uuid} is not a VM snapshot.")
    return row


async def _vm(call: Call, uuid: str) -> Row:
    ref = await call.objects.by_uuid("VM", uuid)
    return Row(call.objects, "VM", ref, await call.api.call("VM.get_record", ref))


async def _snapshot_clone(call: Call) -> None:
    await _from_snapshot(call, "VM.clone")


async def _snapshot_copy(call: Call) -> None:
    await _from_snapshot(call, "VM.copy", await call.optional_ref("sr-uuid", "SR") or NULL_REF)


async def _from_snapshot(call: Call, method: str, *rest: Any) -> None:
    snapshot = await _the_snapshot(call)
    made: str = await call.api.call(method, snapshot.ref, call.params["new-name-label"], *rest)
    await _describe_first(call, [made])
    await call.print_uuid("VM", made)


async def _snapshot_revert(call: Call) -> None:
    await call.api.call("VM.revert", (await _the_snapshot(call)).ref)


async def _snapshot_destroy(call: Call) -> None:
    await _destroy_vm(call, await _the_snapshot(call))


async def _snapshot_reset_powerstate(call: Call) -> None:
    if not call.params.flag("force"):
        raise CommandError(FORCE_NEEDED)
    await call.api.call("VM.power_state_reset", (await _the_snapshot(call)).ref)


# ---- the end of VMs


async def _destroy(call: Call) -> None:
    row = await _vm(call, call.params["uuid"])
    if row.record["is_control_domain"]:
        raise CommandError("A control domain cannot be destroyed")
    await call.api.call("VM.destroy", row.ref)


async def _destroy_vm(call: Call, row: Row) -> None:
    if row.record["power_state"] != "Halted":
        await call.api.call("VM.hard_shutdown", row.ref)
    await call.api.call("VM.destroy", row.ref)


async def _uninstall(call: Call) -> None:
    async def with_snapshots(vm: Row) -> list[Row]:
        found = [vm]
        for ref in vm.record["snapshots"]:
            record = await call.objects.record("VM", ref)
            if record is not None:
                found.append(Row(call.objects, "VM", ref, record))
        return found

    await _remove(call, [row for group in await on_each(call, with_snapshots) for row in group])


async def _template_uninstall(call: Call) -> None:
    row = await _vm(call, call.params["template-uuid"])
    if not row.record["is_a_template"]:
        raise CommandError(f"This operation can only be performed on a VM template. {row.uuid} is not a VM template.")
    await _remove(call, [row])


async def _snapshot_uninstall(call: Call) -> None:
    await _remove(call, [await _the_snapshot(call)])


async def _remove(call: Call, vms: list[Row]) -> None:
    """Destroys VMs and the disks they own, after telling and asking."""
    disks: dict[str, Record] = {}
    for vm in vms:
        disks.update(await _own_disks(call, vm))
    lines = ["The following items are about to be destroyed"]
    lines += [f"VM : {vm.uuid} ({vm.name})" for vm in vms]
    for disk in disks.values():
        shared = "** WARNING: disk is shared by other VMs" if len(disk["VBDs"]) > 1 else ""
        lines.append(f"VDI: {disk['uuid']} ({disk['name_label']}) {shared}")
    for line in lines:
        await call.terminal.send(Print(line))
    if not call.params.flag("force") and not await confirmed(call):
        return
    for vm in vms:
        await _destroy_vm(call, vm)
    for ref in disks:
        try:
            await call.api.call("VDI.destroy", ref)
        except ApiError as error:
            if error.code != "HANDLE_INVALID":  # gone with its VM: what was wanted
                raise
    await call.terminal.send(Print("All objects destroyed"))


async def _own_disks(call: Call, vm: Row) -> dict[str, Record]:
    refs = [vm.record["suspend_VDI"]]
    for ref in vm.record["VBDs"]:
        drive = await call.objects.record("VBD", ref)
        if drive is not None and "owner" in drive["other_config"]:
            refs.append(drive["VDI"])
    found = {ref: await call.objects.record("VDI", ref) for ref in refs}
    return {ref: record for ref, record in found.items() if record is not None}


_SNAPSHOT = "uuid snapshot-uuid"

COMMANDS = (
    command(
        "vm-install",
        _install,
        "Makes a VM from a template: template=<name or uuid>, or template-uuid=, template-name-label=.",
        required="new-name-label",
        optional="sr-name-label sr-uuid template copy-bios-strings-from",
        flags="Standard",
    ),
    command(
        "vm-clone",
        _clone,
        "Clones halted VMs, sharing their disks' content where the SR can.",
        optional="new-name-description",
        selector=_TEMPLATES_TOO,
        required="new-name-label",
        flags="Standard",
    ),
    command(
        "vm-copy",
        _copy,
        "Copies halted VMs with their disks, to an SR if one is given.",
        optional="new-name-description sr-uuid",
        selector=_TEMPLATES_TOO,
        required="new-name-label",
        flags="Standard",
    ),
    command(
        "vm-snapshot",
        _snapshot,
        "Takes snapshots of VMs' disks.",
        optional="new-name-description ignore-vdi-uuids",
        selector=VM,
        required="new-name-label",
        flags="Standard",
    ),
    command(
        "vm-checkpoint",
        _checkpoint,
        "Takes snapshots of VMs' disks and memory.",
        optional="new-name-description",
        selector=VM,
        required="new-name-label",
        flags="Standard",
    ),
    command(
        "vm-snapshot-with-quiesce",
        _quiesced,
        "Takes snapshots of VMs whose guests hold still meanwhile.",
        optional="new-name-description",
        selector=VM,
        required="new-name-label",
        flags="Standard",
    ),
    command(
        "vm-create",
        _create,
        "Makes a VM without disks or interfaces.",
        required="name-label",
        optional="name-description",
        flags="Hidden",
    ),
    command("vm-destroy", _destroy, "Removes a halted VM; its disks stay.", required="uuid"),
    command(
        "vm-uninstall",
        _uninstall,
        "Removes VMs with their snapshots and disks.",
        optional="force",
        flags="With_fd Standard",
        selector=VM,
    ),
    command(
        "template-uninstall",
        _template_uninstall,
        "Removes a template with its disks.",
        required="template-uuid",
        optional="force",
        flags="With_fd Standard",
    ),
    command(
        "snapshot-uninstall",
        _snapshot_uninstall,
        "Removes a snapshot with its disks.",
        optional=f"{_SNAPSHOT} force",
        flags="With_fd Standard",
    ),
    command(
        "snapshot-clone",
        _snapshot_clone,
        "Makes a template from a snapshot.",
        optional="uuid new-name-description",
        also="snapshot-uuid",
        required="new-name-label",
        flags="Standard",
    ),
    command(
        "snapshot-copy",
        _snapshot_copy,
        "Makes a template from a snapshot, with disks of its own.",
        optional="uuid new-name-description sr-uuid",
        also="snapshot-uuid",
        required="new-name-label",
        flags="Standard",
    ),
    command("snapshot-destroy", _snapshot_destroy, "Removes a snapshot; its disks stay.", optional=_SNAPSHOT),
    command(
        "snapshot-revert",
        _snapshot_revert,
        "Takes a VM back to the state of its snapshot.",
        optional=_SNAPSHOT,
        flags="Standard",
    ),
    command(
        "snapshot-reset-powerstate",
        _snapshot_reset_powerstate,
        "Forgets the memory that a snapshot holds.",
        optional=f"{_SNAPSHOT} force",
        flags="Standard",
        selector=VM,
    ),
)
