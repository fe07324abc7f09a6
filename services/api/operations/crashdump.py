"""Messages of classes crashdump and host_crashdump: dumps of VMs on disks, dumps of hosts in their file systems."""

from __future__ import annotations

import logging

from services.api.call import Call
from services.api.construct import remove
from services.api.decisions.liveness import require_live
from services.api.decisions.rows import existing
from services.api.operation import operation
from services.api.subcalls import perform
from shared.errors import ApiError

log = logging.getLogger("api.crashdump")


@operation("crashdump.destroy")
async def destroy(call: Call, self: str) -> None:
    """The dump and its disk. The record goes also when the disk cannot: the disk then stands for itself."""
    vdi: str = existing(call.store, "crashdump", self)["VDI"]
    try:
        await perform(call, "VDI.destroy", vdi)
    except ApiError as error:
        if error.code == "TASK_CANCELLED":
            raise
        log.warning("the disk %s of a dump stays: %s", vdi, error, extra={"task": call.task})
    await remove(call, "crashdump", self)


@operation("host_crashdump.destroy", built=False)
def destroy_host_dump(call: Call, self: str) -> None:
    require_live(call.store, existing(call.store, "host_crashdump", self)["host"])
    raise ApiError("NOT_IMPLEMENTED", call.message.wire_name)


@operation("host_crashdump.upload", built=False)
def upload(call: Call, self: str, url: str, options: dict[str, str]) -> None:
    require_live(call.store, existing(call.store, "host_crashdump", self)["host"])
    if not url:
        raise ApiError("INVALID_VALUE", "url", "")
    raise ApiError("NOT_IMPLEMENTED", call.message.wire_name)
