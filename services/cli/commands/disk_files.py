"""Disks that go to files and come from them."""

from __future__ import annotations

from services.cli.protocol import HttpGet, HttpPut
from services.cli.server.command import Call, command
from services.cli.server.transfers import transfer


async def _query(call: Call) -> dict[str, str]:
    query = {"vdi": await call.ref("uuid", "VDI")}
    if "format" in call.params:
        query["format"] = call.params["format"]
    return query


async def _vdi_import(call: Call) -> None:
    query, progress = await _query(call), call.params.flag("progress")
    await transfer(call, HttpPut, "VDI import", "/import_raw_vdi", query, call.params["filename"], progress=progress)


async def _vdi_export(call: Call) -> None:
    query, progress = await _query(call), call.params.flag("progress")
    if "base" in call.params:
        query["base"] = await call.ref("base", "VDI")
    await transfer(call, HttpGet, "VDI export", "/export_raw_vdi", query, call.params["filename"], progress=progress)


COMMANDS = (
    command(
        "vdi-export",
        _vdi_export,
        "Writes a disk to a file: format=raw, vhd, qcow2 or tar; base=<uuid>: only what differs from that disk.",
        required="uuid filename",
        optional="format base progress",
        flags="With_fd",
    ),
    command(
        "vdi-import",
        _vdi_import,
        "Writes a file to a disk: format=raw, vhd, qcow2 or tar.",
        required="uuid filename",
        optional="format progress",
        flags="With_fd",
    ),
)
