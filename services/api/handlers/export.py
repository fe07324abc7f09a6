"""`/export_metadata`, and `/export` of VMs that have no disks to send."""

from __future__ import annotations

import asyncio
import itertools
import time
import zlib
from collections.abc import Sequence
from typing import Final

from services.api.allowed import CHECKS
from services.api.api import Api
from services.api.decisions.rows import is_null
from services.api.edge.dispatcher import HttpRefusal
from services.api.handlers.handler import Request, attachment, handler
from services.api.metadata import exported, ova, tar
from services.api.metadata.ova import Document, Object, Version
from shared.errors import ApiError

_numbers = itertools.count(1)
"""Of `Ref:<n>`: no two objects that this process exports have the same."""

_SLICE: Final = 20
"""Objects written before others get their turn: a VM takes a fifth of a millisecond."""

_DISKS: Final = "Disks are not exported yet, and the VM has some."


def toolstack(api: Api) -> Version:
    """What documents made here say of their origin."""
    host = api.store.row("host", api.host_ref)
    software = host["software_version"] if host is not None else {}
    major, _, minor = str(software.get("xapi", "2.23")).partition(".")
    return Version(
        hostname=str(host["hostname"]) if host is not None else "",
        date=str(software.get("date", time.strftime("%Y-%m-%d", time.gmtime()))),
        product_version=str(software.get("product_version", "")),
        product_brand=str(software.get("product_brand", "")),
        build_number=str(software.get("build_number", "")),
        xapi=(int(major), int(minor)),
    )


def _chosen(request: Request) -> None:
    """Raises what `Request.named` raises."""
    if not request.flag("all"):
        request.named("VM")


@handler("get_export_metadata", before=_chosen)
async def get_export_metadata(request: Request) -> None:
    """The VMs' rows at one moment."""
    if request.flag("all"):
        vms = exported.everything(request.store, control_domains=request.flag("include_dom0", True))
    else:
        vms = [request.named("VM")]
    objects = exported.objects(
        request.store,
        vms,
        lambda: next(_numbers),
        snapshots=request.flag("export_snapshots", True),
        parents=request.flag("include_vhd_parents"),
        without=_excluded(request),
    )
    document = await _written(request.api, objects)
    archive = [tar.header(len(document), time.time()), document, tar.padding(len(document)), tar.END]
    await _start(request, sum(map(len, archive)))
    for part in archive:
        await request.stream.write(part)


def _excluded(request: Request) -> set[str]:
    words = request.argument("excluded_device_types").lower().split(",")
    return {exported.DEVICE_TYPES[word] for word in words if word in exported.DEVICE_TYPES}


async def _written(api: Api, objects: Sequence[Object]) -> bytes:
    parts = []
    for number, part in enumerate(ova.write(Document(toolstack(api), tuple(objects)))):
        parts.append(part.encode())
        if number % _SLICE == 0:
            await asyncio.sleep(0)
    return b"".join(parts)


async def _start(request: Request, length: int | None) -> None:
    headers = [
        ("task-id", request.task),
        ("connection", "close"),
        ("cache-control", "no-cache, no-store"),
        ("content-type", "application/octet-stream"),
        attachment("export.xva"),
    ]
    if length is not None:
        headers.insert(0, ("content-length", str(length)))
    await request.stream.start(headers, http10=True)


def _without_disks(request: Request) -> None:
    """Raises what `Request.named` raises, `HttpRefusal` 501, and why the VM may not be exported now."""
    vm = request.named("VM")
    refusal = CHECKS["VM"](request.store, vm, "export")
    if refusal is not None:
        raise refusal
    row = request.store.get("VM", vm, "VBDs")
    drives = (request.store.row("VBD", ref) for ref in row)
    disks = any(vbd is not None and vbd["type"] != "CD" and not is_null(vbd["VDI"]) for vbd in drives)
    suspended = request.flag("preserve_power_state") and not is_null(request.store.get("VM", vm, "suspend_VDI"))
    if disks or suspended:
        raise HttpRefusal(501, _DISKS, error=ApiError("NOT_IMPLEMENTED", request.row.permission))
    if request.argument("use_compression") == "zstd":
        raise HttpRefusal(501, "There is no zstd here yet.", error=ApiError("NOT_IMPLEMENTED", request.row.permission))


@handler("get_export", before=_without_disks)
async def get_export(request: Request) -> None:
    """Of a VM whose drives are CDs or empty: nothing follows `ova.xml`."""
    objects = exported.objects(
        request.store,
        [request.named("VM")],
        lambda: next(_numbers),
        snapshots=False,
        power_state=request.flag("preserve_power_state"),
    )
    document = await _written(request.api, objects)
    archive = tar.header(len(document), time.time()) + document + tar.padding(len(document)) + tar.END
    await _start(request, None)
    if request.argument("use_compression") in ("true", "gzip"):
        archive = await asyncio.to_thread(_gzipped, archive)
    await request.stream.write(archive)


def _gzipped(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=31)
    return packer.compress(data) + packer.flush()
