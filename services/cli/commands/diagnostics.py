"""Looking into what goes wrong, for developers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from services.cli.records import RECORDS
from services.cli.server.command import HOST, Call, command
from services.cli.server.objects import Row
from services.cli.server.query import text
from services.cli.server.selectors import one
from shared.errors import ApiError

DISK: Final = "uuid name-label sr-uuid mode read-only sharable storage-lock"
DRIVE_OF_DISK: Final = "uuid userdevice device empty mode type storage-lock"
VM: Final = "uuid name-label power-state possible-hosts"
DRIVE_OF_VM: Final = "uuid userdevice device vdi-uuid empty mode type storage-lock attachable"
NETWORK_PARAMETERS: Final = ("method", "uri", "params", "requests", "connections", "framed")


async def _tell(call: Call, prefix: str, row: Row, names: str) -> None:
    """Those fields of a record."""
    wanted = names.split()
    fields = [field for field in RECORDS[prefix].fields.values() if field.name in wanted]
    await call.printer.table([[(field.label, await text(field, row)) for field in fields]])


async def _row(call: Call, cls: str, ref: str) -> Row:
    return Row(call.objects, cls, ref, await call.api.call(f"{cls}.get_record", ref))


async def _drives(call: Call, refs: Iterable[str]) -> list[Row]:
    return [await _row(call, "VBD", ref) for ref in refs]


async def _vdi_status(call: Call) -> None:
    vdi = await _row(call, "VDI", await call.ref("uuid", "VDI"))
    await _tell(call, "vdi", vdi, DISK)
    drives = await _drives(call, vdi.record["VBDs"])
    for kind, attached in (("active", True), ("inactive", False)):
        found = [drive for drive in drives if drive.record["currently_attached"] is attached]
        if found or attached:
            await call.printer.items([f"{kind} VBDs:" if found else f"no {kind} VBDs."])
        for drive in found:
            await _tell(call, "vbd", drive, DRIVE_OF_DISK)


async def _vm_status(call: Call) -> None:
    vm = await _row(call, "VM", await call.ref("uuid", "VM"))
    await _tell(call, "vm", vm, VM)
    await call.printer.items(["Checking to see whether disks are attachable"])
    for drive in await _drives(call, vm.record["VBDs"]):
        await _tell(call, "vbd", drive, DRIVE_OF_VM)
    await call.printer.items(["Checking to see whether VM can boot on each host"])
    hosts = (await call.objects.all("host")).items()
    await call.printer.table(
        [[(host["name_label"], await _verdict(call, "VM.assert_can_boot_here", vm.ref, ref)) for ref, host in hosts]]
    )
    await call.printer.items([await _agility(call, vm.ref)])


async def _verdict(call: Call, method: str, *params: str) -> str:
    try:
        await call.api.call(method, *params)
    except ApiError as error:
        return f"Cannot start here [{error}]"
    return "OK"


async def _agility(call: Call, vm: str) -> str:
    try:
        await call.api.call("VM.assert_agile", vm)
    except ApiError as error:
        return f"VM is not agile because: {error}"
    return "VM is agile."


async def _net_stats(call: Call) -> None:
    host = await one(call, HOST)
    wanted = {name: value for name, value in call.params if name in NETWORK_PARAMETERS}
    rows = await call.api.call("Diagnostics.network_stats", host.ref, wanted)
    widths = [max(map(len, column)) for column in zip(*rows, strict=False)]
    for row in rows:
        await call.printer.message(" | ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=False)))


COMMANDS = (
    command("diagnostic-vdi-status", _vdi_status, "A disk, and who uses it.", required="uuid"),
    command(
        "diagnostic-vm-status",
        _vm_status,
        "What a VM needs to start, and where it can.",
        required="uuid",
        flags="Standard",
    ),
    command("diagnostic-net-stats", _net_stats, "What a host was asked.", optional="uri method params", selector=HOST),
)
