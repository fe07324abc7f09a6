"""Messages of class pool about redo logs on SRs."""

from __future__ import annotations

import logging

from services.api.call import Call
from services.api.decisions import sr_everywhere
from services.api.decisions.liveness import require_live
from services.api.decisions.rows import existing
from services.api.operation import operation
from services.api.storage_hosts import ask
from services.api.subcalls import perform
from shared.bus.interface import BusError
from shared.contracts import storage
from shared.contracts.db import USE_REDO_LOG, RedoLogDisk, UseRedoLog
from shared.errors import ApiError

log = logging.getLogger("api.databases")

TURN = "redo log"
"""Its beginning and end take turns."""


@operation("pool.enable_redo_log")
async def enable_redo_log(call: Call, sr: str) -> None:
    """The disk is open on every host, and has all rows, when it is answered. One that the SR has already is used; one
    that is made stays for the next attempt.

    Raises CANNOT_ENABLE_REDO_LOG [reason] for all that goes wrong: the log is as before then.
    """
    async with call.api.turns.of(TURN):
        try:
            vdi = await _disk(call, sr)
        except ApiError as error:
            raise ApiError("CANNOT_ENABLE_REDO_LOG", f"there is no disk for it on that SR: {error}") from error
        before = _used(call)
        disk, asked = _place(call, vdi), False
        try:
            for host in call.store.rows("host"):
                require_live(call.store, host)
                wanted = storage.DiskOpen(dp=disk.datapath, sr=disk.sr, location=disk.location, writable=True)
                await ask(call.api, host, storage.OPEN, storage.Open(disks=[wanted]))
            asked = True
            await _use(call, vdi)
        except ApiError as error:
            in_doubt = asked and isinstance(error, BusError)  # the hosts close what turns out to be open for nothing
            if disk != before and not in_doubt:
                await _close(call, disk)
            if error.code == "CANNOT_ENABLE_REDO_LOG":
                raise
            raise ApiError("CANNOT_ENABLE_REDO_LOG", f"the disk cannot be attached on all hosts: {error}") from error
        if before is not None and before != disk:
            await _close(call, before)


async def _disk(call: Call, sr: str) -> str:
    """Raises HANDLE_INVALID, SR_OPERATION_NOT_SUPPORTED, and what VDI.create raises."""
    if error := sr_everywhere.check_attached_offline(call.store, sr):
        raise error
    usable = sr_everywhere.redo_log_disk(call.store, sr)
    if usable is not None:
        return usable
    record = {
        "name_label": "Metadata redo-log",
        "name_description": "Every change of the database, for when its host is lost",
        "SR": sr,
        "virtual_size": sr_everywhere.REDO_LOG_SIZE,
        "type": "redo_log",
        "sharable": True,
        "read_only": False,
        "other_config": {},
        "sm_config": {"type": "raw"},
    }
    return str(await perform(call, "VDI.create", record))


@operation("pool.disable_redo_log")
async def disable_redo_log(call: Call) -> None:
    """The database's own log stays, as does the disk."""
    async with call.api.turns.of(TURN):
        if not next(iter(call.store.rows("pool").values()))["redo_log_enabled"]:
            return
        before = _used(call)
        await _use(call, "")
        if before is not None:
            await _close(call, before)


async def _use(call: Call, vdi: str) -> None:
    committed = await call.api.bus.call(USE_REDO_LOG, UseRedoLog(vdi=vdi))
    await call.api.replica.wait_generation(committed.generation)


def _used(call: Call) -> RedoLogDisk | None:
    """The disk that the pool's row says, if there is one."""
    pool = next(iter(call.store.rows("pool").values()))
    vdi = pool["redo_log_vdi"] if pool["redo_log_enabled"] else ""
    return _place(call, vdi) if call.store.row("VDI", vdi) is not None else None


def _place(call: Call, vdi: str) -> RedoLogDisk:
    """Raises HANDLE_INVALID."""
    row = existing(call.store, "VDI", vdi)
    return RedoLogDisk(vdi=row["uuid"], sr=call.api.uuid_of("SR", row["SR"]), location=row["location"])


async def _close(call: Call, disk: RedoLogDisk) -> None:
    """On all hosts; a host that does not answer lets go when its database process hears of it."""
    for host in call.store.rows("host"):
        try:
            require_live(call.store, host)
            await ask(call.api, host, storage.CLOSE, storage.Close(dps=[disk.datapath]))
        except ApiError as error:
            log.warning("the disk %s of the redo log stays open on host %s: %s", disk.vdi, host, error)
