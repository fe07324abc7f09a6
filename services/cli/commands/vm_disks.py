"""The disks, CDs and interfaces of VMs."""

from __future__ import annotations

import logging
from typing import Any

from services.cli.records import RECORDS
from services.cli.server.command import VM, Call, Selector, command
from services.cli.server.failures import CommandError
from services.cli.server.objects import Record, Row
from services.cli.server.query import names, show
from services.cli.server.selectors import on_each
from services.cli.server.values import size
from shared.errors import ApiError

log = logging.getLogger("cli")


async def _drives(call: Call, vm: Row, kind: str) -> list[Row]:
    """The VM's VBDs of a type (CD | Disk | Floppy)."""
    found = [(ref, await call.objects.record("VBD", ref)) for ref in vm.record["VBDs"]]
    return [Row(call.objects, "VBD", ref, record) for ref, record in found if record and record["type"] == kind]


# ---- lists


async def _list_drives(call: Call, vm: Row, kind: str, title: str) -> None:
    vbd_fields = "uuid,vm-name-label,userdevice" + (",empty" if kind == "CD" else "")
    vdi_fields = "uuid,name-label,sr-name-label,virtual-size"
    for number, drive in enumerate(await _drives(call, vm, kind)):
        await call.printer.message(f"{title} {number} VBD:")
        wanted = names(call.params.get("vbd-params", vbd_fields), ())
        await call.printer.table(await show([drive], RECORDS["vbd"], wanted))
        disk = None if drive.record["empty"] else await call.objects.record("VDI", drive.record["VDI"])
        if disk is not None:
            await call.printer.message(f"{title} {number} VDI:")
            wanted = names(call.params.get("vdi-params", vdi_fields), ())
            row = Row(call.objects, "VDI", drive.record["VDI"], disk)
            await call.printer.table(await show([row], RECORDS["vdi"], wanted))


async def _disk_list(call: Call) -> None:
    async def tell(vm: Row) -> None:
        await _list_drives(call, vm, "Disk", "Disk")

    await on_each(call, tell)


async def _cd_list(call: Call) -> None:
    async def tell(vm: Row) -> None:
        await _list_drives(call, vm, "CD", "CD")

    await on_each(call, tell)


async def _snapshot_disk_list(call: Call) -> None:
    name = "snapshot-uuid" if "snapshot-uuid" in call.params else "uuid"
    ref = await call.ref(name, "VM")
    record = await call.api.call("VM.get_record", ref)
    if not record["is_a_snapshot"]:
        raise CommandError(f"{record['uuid']} is not a snapshot")
    await _list_drives(call, Row(call.objects, "VM", ref, record), "Disk", "Disk")


async def _vif_list(call: Call) -> None:
    wanted = ("uuid", "vm-name-label", "device", "MAC", "network-uuid", "network-name-label")

    async def tell(vm: Row) -> None:
        found = [(ref, await call.objects.record("VIF", ref)) for ref in vm.record["VIFs"]]
        interfaces = [Row(call.objects, "VIF", ref, record) for ref, record in found if record]
        await call.printer.table(await show(interfaces, RECORDS["vif"], wanted))

    await on_each(call, tell)


async def _all_cds(call: Call) -> None:
    found = [Row(call.objects, "VDI", ref, disk) for ref, disk in (await _isos(call)).items()]
    wanted = names(call.params.find("params"), ("uuid", "name-label"))
    await call.printer.table(await show(found, RECORDS["vdi"], wanted))


# ---- disks


async def default_sr(call: Call) -> str:
    """The SR that `sr-uuid` or else the pool names. Raises `CommandError` without either."""
    if "sr-uuid" in call.params:
        return await call.ref("sr-uuid", "SR")
    pool = next(iter((await call.objects.all("pool")).values()))
    if await call.objects.record("SR", pool["default_SR"]) is None:
        raise CommandError("No default Pool SR set; you must specify an SR on the commandline")
    return str(pool["default_SR"])


async def _disk_add(call: Call) -> None:
    amount = size("disk-size", call.params["disk-size"])

    async def add(vm: Row) -> None:
        sr = await default_sr(call)
        disk = await call.api.call("VDI.create", _new_disk(sr, amount, vm.uuid))
        try:
            drive = await call.api.call("VBD.create", _new_drive(vm.ref, disk, call.params["device"]))
        except ApiError:
            await call.api.call("VDI.destroy", disk)
            raise
        await _try_plug(call, drive)

    await on_each(call, add)


async def _try_plug(call: Call, drive: str) -> None:
    """The drive is there at the next start if it cannot be plugged now (a halted VM)."""
    try:
        await call.api.call("VBD.plug", drive)
    except ApiError as error:
        log.info("a new drive is not plugged in yet: %s", error)


def _new_disk(sr: str, amount: int, vm_uuid: str) -> Record:
    return {
        "name_label": "Created by xe",
        "name_description": "Created by xe",
        "SR": sr,
        "virtual_size": amount,
        "type": "user",
        "sharable": False,
        "read_only": False,
        "other_config": {},
        "xenstore_data": {},
        "sm_config": {"vmhint": vm_uuid},
        "tags": [],
    }


def _new_drive(vm: str, disk: str, device: str, **different: Any) -> Record:
    return {
        "VM": vm,
        "VDI": disk,
        "userdevice": device,
        "bootable": False,
        "mode": "RW",
        "type": "Disk",
        "unpluggable": True,
        "empty": False,
        "other_config": {"owner": ""},
        "qos_algorithm_type": "",
        "qos_algorithm_params": {},
        **different,
    }


async def _disk_remove(call: Call) -> None:
    async def remove(vm: Row) -> None:
        drives = [d for d in await _drives(call, vm, "Disk") if d.record["userdevice"] == call.params["device"]]
        if not drives:
            raise CommandError("Disk not found")
        for drive in drives:
            await call.api.call("VBD.destroy", drive.ref)
            await call.api.call("VDI.destroy", drive.record["VDI"])

    await on_each(call, remove)


# ---- CDs


async def _isos(call: Call) -> dict[str, Record]:
    """The disks in ISO libraries."""
    srs = await call.objects.all("SR")
    disks = await call.objects.all("VDI")
    return {ref: disk for ref, disk in disks.items() if srs.get(disk["SR"], {}).get("content_type") == "iso"}


async def _named_cd(call: Call) -> str:
    name = call.params["cd-name"]
    found = [ref for ref, disk in (await _isos(call)).items() if disk["name_label"] == name]
    if not found:
        raise CommandError(f"CD {name} not found!")
    return found[0]


async def _cd_add(call: Call) -> None:
    async def add(vm: Row) -> None:
        disk = await _named_cd(call)
        record = _new_drive(
            vm.ref, disk, call.params["device"], bootable=True, mode="RO", type="CD", unpluggable=False, other_config={}
        )
        await _try_plug(call, await call.api.call("VBD.create", record))

    await on_each(call, add)


async def _cd_insert(call: Call) -> None:
    async def insert(vm: Row) -> None:
        disk = await _named_cd(call)
        empty = [drive for drive in await _drives(call, vm, "CD") if drive.record["empty"]]
        if not empty:
            raise ApiError("VM_NO_EMPTY_CD_VBD", vm.ref)
        if len(empty) > 1:
            raise CommandError("Two or more empty CD devices found. Please use vbd-insert")
        await call.api.call("VBD.insert", empty[0].ref, disk)

    await on_each(call, insert)


async def _cd_eject(call: Call) -> None:
    async def eject(vm: Row) -> None:
        drives = await _drives(call, vm, "CD")
        if not drives:
            raise CommandError("No CDs found")
        if len(drives) > 1:
            raise CommandError("Two or more CDs found. Please use vbd-eject")
        await call.api.call("VBD.eject", drives[0].ref)

    await on_each(call, eject)


async def _cd_remove(call: Call) -> None:
    async def remove(vm: Row) -> None:
        isos = await _isos(call)
        for drive in await _drives(call, vm, "CD"):
            disk = isos.get(drive.record["VDI"])
            if disk is not None and disk["name_label"] == call.params["cd-name"]:
                await call.api.call("VBD.destroy", drive.ref)
                return
        raise CommandError(f"CD {call.params['cd-name']} not found!")

    await on_each(call, remove)


COMMANDS = (
    command(
        "vm-disk-list",
        _disk_list,
        "Lists the disks of VMs: drive, then disk.",
        optional="vbd-params vdi-params",
        flags="Standard",
        selector=VM,
    ),
    command(
        "vm-disk-add",
        _disk_add,
        "Makes a disk and gives it to VMs. disk-size=10GiB.",
        required="disk-size device",
        optional="sr-uuid",
        flags="Standard",
        selector=VM,
    ),
    command(
        "vm-disk-remove",
        _disk_remove,
        "Destroys the disk at a position of VMs.",
        required="device",
        flags="Standard",
        selector=VM,
    ),
    command(
        "snapshot-disk-list",
        _snapshot_disk_list,
        "Lists the disks of a snapshot.",
        optional="uuid snapshot-uuid vbd-params vdi-params",
        flags="Standard",
        selector=VM,
    ),
    command(
        "vm-cd-list",
        _cd_list,
        "Lists the CD drives of VMs.",
        optional="vbd-params vdi-params",
        flags="Standard",
        selector=VM,
    ),
    command(
        "vm-cd-add",
        _cd_add,
        "Gives VMs a CD drive with a CD.",
        required="cd-name device",
        flags="Standard",
        selector=VM,
    ),
    command(
        "vm-cd-insert",
        _cd_insert,
        "Puts a CD into the empty drive of VMs.",
        required="cd-name",
        flags="Standard",
        selector=VM,
    ),
    command("vm-cd-eject", _cd_eject, "Takes the CD out of the drive of VMs.", flags="Standard", selector=VM),
    command(
        "vm-cd-remove",
        _cd_remove,
        "Removes the CD drive that holds a CD.",
        required="cd-name",
        flags="Standard",
        selector=VM,
    ),
    command("cd-list", _all_cds, "Lists the CDs there are.", optional="params", flags="Standard"),
    command(
        "vm-vif-list",
        _vif_list,
        "Lists the interfaces of VMs.",
        flags="Standard",
        selector=Selector("vm", implied=True),
    ),
)
