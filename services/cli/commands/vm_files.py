"""VMs that go to files and come from them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from services.cli.protocol import HttpPut, Print
from services.cli.server.command import VM, Call, Command, command
from services.cli.server.downloads import download
from services.cli.server.failures import CommandError, Leave
from services.cli.server.objects import Row
from services.cli.server.selectors import on_each
from services.cli.server.transfers import transfer
from shared.datamodel.types import NULL_REF

OWN_FORMAT: Final = "default"
COMPRESSION: Final = {"true": "gzip", "gzip": "gzip", "zstd": "zstd"}
"""Values of `compress`; others are for none."""

_REFERENCE: Final = re.compile(r"OpaqueRef:[^<]+")

NOTHING_MADE: Final = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx"
"""Stands for a VM that would have been made."""


def _truth(value: bool) -> str:
    return str(value).lower()


async def _export(call: Call, vm: str, filename: str) -> None:
    params = call.params
    query = {
        "ref": vm,
        "use_compression": COMPRESSION.get(params.get("compress"), ""),
        "preserve_power_state": _truth(params.flag("preserve-power-state")),
        "export_snapshots": _truth(params.flag("include-snapshots")),
    }
    metadata = params.flag("metadata")
    if metadata:
        query["excluded_device_types"] = params.get("excluded-device-types")
    await download(call, "Export", "/export_metadata" if metadata else "/export", query, filename)


async def _vm_export(call: Call) -> None:
    """Of several VMs, the second goes to `<filename>2`, and so on."""
    filename = call.params["filename"]
    done = 0

    async def export(vm: Row) -> None:
        nonlocal done
        done += 1
        await _export(call, vm.ref, filename if done == 1 else f"{filename}{done}")

    await on_each(call, export)


def _export_of(name: str, kind: str, optional: str) -> Command:
    async def run(call: Call) -> None:
        filename, uuid = call.params["filename"], call.params[f"{kind}-uuid"]
        vm = await call.objects.by_uuid("VM", uuid)
        if not await call.api.call(f"VM.get_is_a_{kind}", vm):
            raise CommandError(f"This operation can only be performed on a VM {kind}. {uuid} is not a VM {kind}.")
        await _export(call, vm, filename)

    return command(
        name,
        run,
        f"Writes a {kind} to a file.",
        required=f"filename {kind}-uuid",
        optional=optional,
        flags="With_fd Standard",
    )


# ---- the way back


async def _sr(call: Call) -> str:
    """The one that is named, or the pool's. Raises `CommandError` if the pool has none."""
    if "sr-uuid" in call.params:
        return await call.ref("sr-uuid", "SR")
    pool = next(iter((await call.objects.all("pool")).values()))
    if await call.objects.record("SR", pool["default_SR"]) is None:
        raise CommandError("No SR specified and Pool default SR is null")
    return str(pool["default_SR"])


async def _refuse(call: Call, why: str) -> None:
    await call.printer.stderr(why)
    raise Leave(1)


async def _vm_import(call: Call) -> None:
    params, sr = call.params, await _sr(call)
    kind, metadata, dry_run = params.get("type", OWN_FORMAT), params.flag("metadata"), params.flag("dry-run")
    if "url" in params and "filename" in params:
        await _refuse(call, "Either the file or the url can be imported, not both")
    if kind != OWN_FORMAT:
        access = params["host-username"], params["host-password"]
        await call.api.call("VM.import_convert", kind, *access, sr, params.mapping("remote-config"))
        return
    if "url" in params:
        made = await call.api.call("VM.import", params["url"], sr, params.flag("preserve"), params.flag("force"))
    else:
        filename = params["filename"]
        if dry_run and not metadata:
            await _refuse(call, "Only an import of metadata can be tried with dry-run")
        made = await _sent(call, sr, filename, metadata, dry_run)
    uuids = [await call.uuid("VM", vm) for vm in made]
    await call.terminal.send(Print(",".join(uuids or ([NOTHING_MADE] if dry_run else []))))


async def _sent(call: Call, sr: str, filename: str, metadata: bool, dry_run: bool) -> list[str]:
    """References of the VMs that the file had."""
    params = call.params
    query = {
        "restore": _truth(params.flag("preserve")),
        "force": _truth(params.flag("force")),
        "dry_run": _truth(dry_run),
    }
    if sr != NULL_REF:
        query["sr_id"] = sr
    disks: Mapping[str, str] = params.mapping("vdi")
    query |= {f"vdi:{disk}": other for disk, other in disks.items()}
    path = "/import_metadata" if metadata else "/import"
    return _REFERENCE.findall(await transfer(call, HttpPut, "VM import", path, query, filename))


COMMANDS = (
    command(
        "vm-export",
        _vm_export,
        "Writes VMs to files: with their disks, or with metadata=true without.",
        required="filename",
        optional="preserve-power-state compress metadata excluded-device-types include-snapshots",
        flags="With_fd Standard",
        selector=VM,
    ),
    _export_of("template-export", "template", "compress metadata excluded-device-types"),
    _export_of(
        "snapshot-export-to-template",
        "snapshot",
        "preserve-power-state compress metadata excluded-device-types",
    ),
    command(
        "vm-import",
        _vm_import,
        "Makes VMs from a file, or from what is behind url=.",
        optional="filename preserve sr-uuid force host-username host-password type remote-config dry-run metadata url "
        "vdi:",
        flags="With_fd Standard",
    ),
)
