"""Each format's way out of a disk and into one."""

from __future__ import annotations

import uuid as uuids
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from services.storage.formats import raw, tar
from services.storage.formats.interface import Input, Output, Sink, Source
from services.storage.formats.qcow2 import reader as qcow2_reader
from services.storage.formats.qcow2 import writer as qcow2_writer
from services.storage.formats.vhd import reader as vhd_reader
from services.storage.formats.vhd import writer as vhd_writer
from services.storage.formats.vhd.create import Parent
from services.storage.transfer.compare import differences
from services.storage.transfer.disk import ZerosFirst
from services.storage.transfer.job import Job, Range


@dataclass(frozen=True, slots=True)
class Encoding:
    """A stream that is going to be written. `length`: its bytes, None if that is not known."""

    length: int | None
    write: Callable[[Output], Awaitable[None]]


async def encode(job: Job, disk: Source, base: Source | None) -> Encoding:
    """Decides what an export is going to hold. Raises `FormatError`, and what the disks raise."""
    return await _ENCODERS[job.format](job, disk, base)


async def decode(job: Job, stream: Input, sink: Sink) -> None:
    """An import; what was written is durable then. Raises `FormatError`, `Truncated`, and what the disk raises."""
    await _DECODERS[job.format](job, stream, sink)


async def _changed(job: Job, disk: Source, base: Source) -> list[Range]:
    """Where a plug-in has told it, it is not looked at: what it tells may include what was written and reverted."""
    if job.changed is not None:
        return job.changed
    return [each async for each in differences(disk, base)]


async def _encode_raw(_: Job, disk: Source, __: Source | None) -> Encoding:
    return Encoding(disk.size, partial(raw.write_raw, disk))


async def _encode_tar(job: Job, disk: Source, _: Source | None) -> Encoding:
    return Encoding(None, partial(tar.write_tar, disk, prefix=job.prefix, hashed="checksum"))


async def _encode_vhd(job: Job, disk: Source, base: Source | None) -> Encoding:
    uuid = uuids.UUID(job.uuid)
    if base is None:
        plan = await vhd_writer.plan_full(disk, uuid)
    else:
        parent = Parent(uuids.UUID(job.base_uuid), f"{job.base_uuid}.vhd")
        plan = await vhd_writer.plan_delta(disk, await _changed(job, disk, base), parent, uuid)
    return Encoding(plan.length, partial(vhd_writer.write_vhd, disk, plan=plan))


async def _encode_qcow2(job: Job, disk: Source, base: Source | None) -> Encoding:
    if base is None:
        plan = await qcow2_writer.plan_full(disk)
    else:
        plan = await qcow2_writer.plan_changed(disk, await _changed(job, disk, base))
    return Encoding(plan.length, partial(qcow2_writer.write_qcow2, disk, plan=plan))


async def _decode_raw(job: Job, stream: Input, sink: Sink) -> None:
    """An image shorter than the disk leaves the rest of it alone."""
    if job.chunked:
        await raw.read_chunks(stream, sink)
    else:
        await raw.read_raw(stream, sink, job.length)


async def _decode_tar(job: Job, stream: Input, sink: Sink) -> None:
    await tar.read_tar(stream, ZerosFirst(sink), job.prefix)


async def _decode_vhd(job: Job, stream: Input, sink: Sink) -> None:
    await vhd_reader.read_vhd(stream, sink, zero_absent=not job.differences)


async def _decode_qcow2(job: Job, stream: Input, sink: Sink) -> None:
    await qcow2_reader.read_qcow2(stream, sink, zero_absent=not job.differences, differences=job.differences)


_ENCODERS: dict[str, Callable[[Job, Source, Source | None], Awaitable[Encoding]]] = {
    "raw": _encode_raw,
    "vhd": _encode_vhd,
    "qcow2": _encode_qcow2,
    "tar": _encode_tar,
}
_DECODERS: dict[str, Callable[[Job, Input, Sink], Awaitable[None]]] = {
    "raw": _decode_raw,
    "vhd": _decode_vhd,
    "qcow2": _decode_qcow2,
    "tar": _decode_tar,
}
