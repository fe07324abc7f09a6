"""Messages of class VDI about databases in disks: whose, and sessions that look into them."""

from __future__ import annotations

from services.api import reading_sessions, stored_databases
from services.api.call import Call
from services.api.decisions.metadata_disks import METADATA
from services.api.decisions.rows import existing
from services.api.decisions.vdi_types import incompatible
from services.api.operation import operation
from shared.errors import ApiError
from shared.redo_blocks.layout import Damaged
from shared.store import Store

USER = "disaster-recovery"


@operation("VDI.open_database")
async def open_database(call: Call, self: str) -> str:
    """The session reads what the database held when it was opened, with the role read-only."""
    kind = existing(call.store, "VDI", self)["type"]
    if kind != METADATA:
        raise incompatible(self, kind)
    return await reading_sessions.begin(call.api, call.caller, await _rows(call, self), USER)


async def _rows(call: Call, vdi: str) -> Store:
    """Raises COULD_NOT_IMPORT_DATABASE [reason]."""
    try:
        rows = await stored_databases.load(call.api, vdi)
    except (ApiError, OSError, Damaged) as error:
        raise ApiError("COULD_NOT_IMPORT_DATABASE", stored_databases.reason(error)) from error
    if rows is None:
        raise ApiError("COULD_NOT_IMPORT_DATABASE", "there is no database in the disk")
    return rows


@operation("VDI.read_database_pool_uuid")
async def read_database_pool_uuid(call: Call, self: str) -> str:
    """Other disks are not looked into: they are their VMs'."""
    if existing(call.store, "VDI", self)["type"] != METADATA:
        return ""
    return await stored_databases.pool_uuid(call.api, self)
